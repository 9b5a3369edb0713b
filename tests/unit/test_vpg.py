"""Laws of the vanilla policy gradient: its gradient is the return's, its step size follows the KL."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import clipper
from clipper.action_layout import ActionLayout
from clipper.algorithms.vpg import VPG, adapted_learning_rate
from clipper.config_relatives import VPGConfig
from clipper.errors import ConfigError
from clipper.metrics import Episode
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import build_policy
from clipper.policies.networks import mlp_shape
from clipper.rollout import Rollout
from clipper.spaces import ObservationLayout
from clipper.training_report import Report
from helpers import flat_parameters, random_rollout, small_policy

# A decision process of five states that ends after at most four steps. From state s action 0 leads
# to s + 1 and action 1 to s + 2 (modulo 5); arriving in state 4 ends it. Rewards by state and action.
REWARDS = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
LIMIT = 4


def next_state(state: int, action: int) -> int:
    """Returns where an action leads."""
    return (state + 1 + action) % 5


def tabular_policy() -> ActorCritic:
    """Returns a float64 policy over the five states, one-hot, whose choices differ by state."""
    config = VPGConfig().replace(hidden_sizes=(6,), policy_gain=1.5, normalize_obs=False)
    return build_policy(
        ObservationLayout(spaces.Discrete(5)),
        ActionLayout(spaces.Discrete(2)),
        mlp_shape(config),
        module=None,
        seed=1,
        log_std_init=0.0,
        normalize_obs=False,
    ).double()


def expected_return(policy: ActorCritic, gamma: float = 1.0) -> Tensor:
    """Returns J, differentiable: the value of state 0 with four steps to go, by backward induction."""
    logits = policy.distribution_params(torch.eye(5, dtype=torch.float64))
    chances = torch.softmax(logits, -1)
    values = [torch.zeros((), dtype=torch.float64) for _ in range(5)]
    for _ in range(LIMIT):
        values = [
            sum(
                chances[s, a]
                * (REWARDS[s, a] + gamma * (next_state(s, a) != 4) * values[next_state(s, a)])
                for a in range(2)
            )
            for s in range(5)
        ]
    return values[0]


def trajectories() -> list[tuple[list[int], list[int]]]:
    """Returns states and actions of every episode that can happen, of two to four steps."""
    found = set()
    for choice in itertools.product(range(2), repeat=LIMIT):
        state, states, actions = 0, [], []
        for action in choice:
            states.append(state)
            actions.append(action)
            state = next_state(state, action)
            if state == 4:
                break
        found.add((tuple(states), tuple(actions)))
    return [(list(states), list(actions)) for states, actions in sorted(found)]


def rollout_of(policy: ActorCritic, states: list[int], actions: list[int]) -> Rollout:
    """Returns one whole episode as a rollout of one environment."""
    eye = torch.eye(5)
    obs, acted = eye[states][:, None], torch.tensor(actions)[:, None, None]
    log_probs, values = policy.evaluate(obs, acted)
    length = len(states)
    ends = torch.zeros(length, 1, dtype=torch.bool)
    ends[-1] = True
    final = eye[next_state(states[-1], actions[-1])][None]
    return Rollout(
        obs=obs,
        actions=acted,
        log_probs=log_probs,
        rewards=torch.tensor(REWARDS[states, actions], dtype=torch.float32)[:, None],
        terminated=ends,
        truncated=torch.zeros_like(ends),
        values=values,
        next_values=torch.cat([values[1:], torch.full((1, 1), 77.0)]).double(),
        final_obs=final,
        final_at=torch.tensor([[length - 1, 0]]),
        last_obs=eye[:1],
        episodes=(Episode(0, 0, 0.0, length, False, length),),
    )


@pytest.mark.parametrize(
    ("advantage", "gamma", "is_exact"),
    [
        ("total_return", 1.0, True),
        ("reward_to_go", 1.0, True),
        ("reward_to_go_baseline", 1.0, True),
        ("total_return", 0.5, True),
        ("reward_to_go", 0.5, False),
        ("reward_to_go_baseline", 0.5, False),
    ],
)
def test_the_expected_gradient_of_reinforce_is_that_of_the_return(
    advantage: str, gamma: float, is_exact: bool
) -> None:
    """Over all episodes that can happen, each with its probability: the exact gradient, over T.

    The exact one is the derivative of the value of the first state by backward induction, which
    knows nothing of log-probabilities. T is `num_steps`; the baseline V is any function of the state.
    Rewards-to-go leave out gamma^t, and so are another direction for gamma < 1: as documented.
    """
    policy = tabular_policy()
    config = VPGConfig().replace(
        num_envs=1,
        num_steps=LIMIT,
        one_episode=True,
        advantage=advantage,
        normalize_advantage="none",
        gamma=gamma,
    )
    vpg = VPG(policy, config, 1, 0)
    actor = vpg.policy_optimizer.group
    exact = actor.gradient(expected_return(policy, gamma))
    found = torch.zeros_like(exact)
    total = 0.0
    for states, actions in trajectories():
        rollout = rollout_of(policy, states, actions)
        probability = float(rollout.log_probs.sum().exp())
        total += probability
        batch = vpg.judge(rollout)
        params = policy.distribution_params(batch.obs)
        log_probs = policy.distribution.log_prob(params, batch.actions)
        found += probability * actor.gradient(vpg.objective(log_probs, batch))
    assert total == pytest.approx(1.0)
    if is_exact:
        torch.testing.assert_close(LIMIT * found, exact, rtol=1e-6, atol=1e-6)
    else:
        assert float((LIMIT * found - exact).norm()) > 0.05 * float(exact.norm())


@pytest.mark.parametrize("is_one_episode", [True, False])
def test_entropy_counts_for_the_same_at_every_step(is_one_episode: bool) -> None:
    """Where nothing is to be gained the loss is the entropy's: a step of a short episode weighs no more.

    Of REINFORCE that is -c sum H / T, T being `num_steps`; of a rollout of fixed length -c mean H.
    """
    policy = tabular_policy()
    config = VPGConfig().replace(
        num_envs=1,
        num_steps=LIMIT,
        one_episode=is_one_episode,
        normalize_advantage="none",
        adaptive_kl_target=None,
        ent_coef=0.5,
    )
    vpg = VPG(policy, config, 1, 0)
    actor = vpg.policy_optimizer.group
    for states, actions in trajectories():
        batch = vpg.judge(rollout_of(policy, states, actions))
        batch = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
        entropies = [
            -(chance * chance.log()).sum()
            for chance in torch.softmax(policy.distribution_params(batch.obs), -1)
        ]
        share = 0.5 / (LIMIT if is_one_episode else len(states))
        expected = float(actor.gradient(share * sum(entropies)).norm())
        before = flat_parameters(policy)
        metrics = vpg.improve(batch)
        assert metrics["loss/grad_norm"] == pytest.approx(expected, rel=1e-9)
        assert metrics["policy/entropy"] == pytest.approx(
            float(torch.stack(entropies).mean().detach())
        )
        assert not torch.equal(before, flat_parameters(policy))


def test_a_mean_over_the_steps_of_each_episode_would_not_be() -> None:
    """Negative control: divided by its own length, an episode counts for more the shorter it is."""
    policy = tabular_policy()
    config = VPGConfig().replace(
        num_envs=1, num_steps=LIMIT, advantage="reward_to_go", normalize_advantage="none", gamma=1.0
    )
    vpg = VPG(policy, config, 1, 0)
    actor = vpg.policy_optimizer.group
    exact = actor.gradient(expected_return(policy))
    found = torch.zeros_like(exact)
    for states, actions in trajectories():
        rollout = rollout_of(policy, states, actions)
        batch = vpg.judge(rollout)
        params = policy.distribution_params(batch.obs)
        log_probs = policy.distribution.log_prob(params, batch.actions)
        weight = float(rollout.log_probs.sum().exp())
        found += weight * actor.gradient(vpg.objective(log_probs, batch))
    assert float(torch.nn.functional.cosine_similarity(found, exact, 0)) < 0.999


class FiveStates(gymnasium.Env[Any, Any]):
    """The decision process above as an environment."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begins in state 0."""
        super().reset(seed=seed)
        self.state = self.steps = 0
        return 0, {}

    def step(self, action: Any) -> Any:
        """Moves on; four steps are the end whatever happens."""
        reward = REWARDS[self.state, action]
        self.state = next_state(self.state, int(action))
        self.steps += 1
        return self.state, float(reward), self.state == 4 or self.steps == LIMIT, False, {}


def test_the_gradient_of_many_sampled_episodes_is_that_of_the_return() -> None:
    """A rollout of 65,536 steps that were really acted and stepped: cosine above 0.999.

    Here the mean is over time steps; all episodes are whole but for the last of each environment.
    """
    agent = clipper.VPG(
        FiveStates,
        seed=5,
        num_envs=16,
        num_steps=4096,
        hidden_sizes=(6,),
        policy_gain=1.5,
        normalize_obs=False,
        advantage="reward_to_go_baseline",
        normalize_advantage="none",
        gamma=1.0,
    )
    vpg = agent._run.algorithm
    assert isinstance(vpg, VPG)
    sampler, _ = agent._playground.ready(agent.policy)
    batch = vpg.judge(sampler.collect(agent.policy, 4096))
    params = agent.policy.distribution_params(batch.obs)
    log_probs = agent.policy.distribution.log_prob(params, batch.actions)
    actor = vpg.policy_optimizer.group
    found = actor.gradient(vpg.objective(log_probs, batch)).double()
    exact = actor.gradient(expected_return(agent.policy.double()))
    assert float(torch.nn.functional.cosine_similarity(found, exact, 0)) > 0.999
    agent.close()


@pytest.mark.parametrize(
    ("kl", "expected"),
    # d_targ 0.01: above 0.02 divided by 1.5, below 0.005 multiplied, the bounds themselves neither
    [(0.0, 0.45), (0.0049, 0.45), (0.005, 0.3), (0.01, 0.3), (0.02, 0.3), (0.021, 0.2), (9, 0.2)],
)
def test_the_step_size_follows_the_divergence(kl: float, expected: float) -> None:
    """The rule of figure 3: a factor of 1.5 where the KL is off its target by more than 2."""
    assert adapted_learning_rate(0.3, kl, 0.01) == pytest.approx(expected)


def test_the_step_size_stays_within_bounds() -> None:
    """However long the divergence is off, the next step is neither nothing nor beyond measure."""
    large, small = 0.3, 0.3
    for _ in range(1000):
        large = adapted_learning_rate(large, 0.0, 0.01)
        small = adapted_learning_rate(small, 1.0, 0.01)
    assert (small, large) == (1e-8, 1.0)


def test_a_step_that_nothing_was_learnt_from_leaves_the_step_size() -> None:
    """Without a whole episode there is no gradient, and that counts for nothing."""
    log = run(adaptive_kl_target=0.01, advantage="total_return", num_steps=2, ent_coef=0.0)
    assert {row["schedule/learning_rate"] for row in log} == {log[0]["schedule/learning_rate"]}
    assert {row["rollout/complete_fraction"] for row in log} == {0.0}


def run(**settings: Any) -> list[dict[str, float]]:
    """Returns the metrics of every iteration of a short run on CartPole."""
    log: list[dict[str, float]] = []

    def keep(report: Report) -> None:
        log.append(dict(report.metrics))

    plain = {
        "preset": "none",
        "num_steps": 32,
        "num_envs": 4,
        "hidden_sizes": (8,),
        "eval_every": 0,
    }
    agent = clipper.VPG("CartPole-v1", seed=4, **{**plain, "total_timesteps": 20 * 128, **settings})
    agent.train(progress=False, callback=keep)
    return log


def test_an_adapted_step_size_is_used_from_the_next_iteration_on() -> None:
    """Each row's step size is the last one's, moved by the last one's exact KL; it begins as given."""
    log = run(learning_rate=3e-3, adaptive_kl_target=0.002)
    assert log[0]["schedule/learning_rate"] == 3e-3
    for before, after in itertools.pairwise(log):
        expected = adapted_learning_rate(
            before["schedule/learning_rate"], before["policy/kl"], 0.002
        )
        assert after["schedule/learning_rate"] == expected
    assert len({row["schedule/learning_rate"] for row in log}) > 2


def test_without_a_target_the_step_size_is_the_schedules() -> None:
    """linear:1e-2:0 over 20 iterations falls by a twentieth each, whatever the KL is."""
    log = run(learning_rate="linear:1e-2:0", adaptive_kl_target=None)
    for i, row in enumerate(log):
        assert row["schedule/learning_rate"] == pytest.approx(1e-2 * (1 - i / 20))


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_the_reported_divergence_is_between_before_and_after(kind: str) -> None:
    """By torch's own distributions, on all rows of the rollout."""
    policy = small_policy(kind)
    config = VPGConfig().replace(num_steps=16, num_envs=4, learning_rate=0.03)
    vpg = VPG(policy, config, 4, 0)
    batch = vpg.judge(random_rollout(policy))

    def made() -> Any:
        with torch.no_grad():
            rows = policy.distribution_params(batch.obs)
        if kind == "discrete":
            return torch.distributions.Categorical(logits=rows)
        mean, log_std = rows.chunk(2, -1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)

    old = made()
    metrics = vpg.improve(batch)
    expected = float(torch.distributions.kl_divergence(old, made()).mean())
    assert expected > 1e-4
    assert metrics["policy/kl"] == pytest.approx(expected)


def test_one_step_of_the_policy_is_one_of_torchs_adam() -> None:
    """-mean[log pi A + c H] minimised by torch.optim.Adam on a copy gives the same parameters."""
    policy, twin = small_policy("discrete"), small_policy("discrete")
    config = VPGConfig().replace(num_steps=16, num_envs=4, ent_coef=0.3, learning_rate=0.01)
    vpg = VPG(policy, config, 4, 0)
    actor = [p for n, p in twin.named_parameters() if "critic" not in n]
    adam = torch.optim.Adam(actor, lr=0.01)
    for seed in range(3):
        rollout = random_rollout(policy, seed=seed)
        batch = vpg.judge(rollout)
        vpg._learning_rate = 0.01
        vpg.improve(batch)
        logits = twin(batch.obs)[0]
        there = torch.distributions.Categorical(logits=logits)
        advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
        loss = -(there.log_prob(batch.actions[:, 0]) * advantages + 0.3 * there.entropy()).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(
            flat_parameters(policy), flat_parameters(twin), rtol=1e-9, atol=1e-11
        )


@pytest.mark.parametrize("cap", [500, 7])
def test_reinforce_learns_from_one_episode_at_a_time(cap: int) -> None:
    """Every iteration is one episode of the environment, or a piece of it where it is longer."""
    steps: list[tuple[int, int]] = []
    agent = clipper.VPG(
        "CartPole-v1",
        preset="none",
        seed=1,
        num_envs=1,
        num_steps=cap,
        one_episode=True,
        total_timesteps=600,
        eval_every=0,
        hidden_sizes=(8,),
    )

    def keep(report: Report) -> None:
        before = steps[-1][0] if steps else 0
        length = sum(episode.episode_length for episode in report.episodes)
        steps.append((report.step, length))
        taken = report.step - before
        assert taken <= cap
        assert len(report.episodes) == (taken < cap) or taken == cap
        if cap == 500:
            assert taken == length

    agent.train(progress=False, callback=keep)
    assert len(steps) > 10
    # the last episode is played to its end
    assert 600 <= agent.step < 600 + cap


def test_contradictions_are_refused() -> None:
    """One episode at a time leaves nothing for a second environment; a KL target sets the step.

    One episode has one return, of which its own mean leaves nothing.
    """
    with pytest.raises(
        ConfigError, match="normalize_advantage must be none when one_episode is tr"
    ):
        VPGConfig().replace(one_episode=True, num_envs=1, advantage="total_return")
    with pytest.raises(ConfigError, match="num_envs must be 1 when one_episode is true"):
        VPGConfig().replace(one_episode=True, num_envs=2)
    with pytest.raises(ConfigError, match="learning_rate must be one number when adaptive_kl"):
        VPGConfig().replace(learning_rate="linear:1e-3:0", adaptive_kl_target=0.01)


@pytest.mark.parametrize("name", ["clip_range", "num_epochs", "vf_coef", "max_grad_norm", "max_kl"])
def test_settings_of_other_algorithms_are_refused(name: str) -> None:
    """What the vanilla policy gradient does not use is unknown to it."""
    with pytest.raises(ConfigError, match=f"no setting '{name}'"):
        clipper.VPG("CartPole-v1", **{name: 1})
