"""ACER's targets, gradient and memory, each against its definition in float64."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch import Tensor, nn

import clipper
from clipper.action_layout import ActionLayout
from clipper.advantages import retrace
from clipper.algorithms.acer import ACER, Judged, taken
from clipper.config_acer import ACERConfig
from clipper.engine import kernels
from clipper.errors import ConfigError, FileError, InvariantBreach, SpaceError
from clipper.losses import acer_objective, trust_region_correction
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import build_policy
from clipper.policies.networks import mlp_shape
from clipper.replay import ReplayMemory, Trajectory, poisson, replay_plan
from clipper.rollout import Rollout
from clipper.spaces import ObservationLayout
from helpers import flat_parameters, random_rollout

T, N, D, P = 6, 4, 3, 3
needs_native = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))


def q_policy(dtype: torch.dtype = torch.float64, **settings: Any) -> ActorCritic:
    """Returns a policy with a value of every action, whose actions depend on the observation."""
    config = ACERConfig().replace(
        **{"hidden_sizes": (5,), "policy_gain": 1.0, "normalize_obs": False, **settings}
    )
    policy = build_policy(
        ObservationLayout(spaces.Box(-np.inf, np.inf, (D,))),
        ActionLayout(spaces.Discrete(P)),
        mlp_shape(config),
        module=None,
        seed=0,
        log_std_init=0.0,
        normalize_obs=config.normalize_obs,
    )
    return policy.to(dtype)


def learner(policy: ActorCritic, **settings: Any) -> ACER:
    """Returns ACER around a policy; memory for three rollouts."""
    plain = {"num_envs": N, "num_steps": T, "replay_capacity": 3 * T, "replay_start": 0}
    return ACER(policy, ACERConfig().replace(**{**plain, **settings}), N, 7)


def moved(policy: ActorCritic, by: float = 0.5) -> None:
    """Moves every parameter by random numbers."""
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(by * noise.to(parameter.dtype))


def off_policy(**settings: Any) -> tuple[ACER, Trajectory, Rollout]:
    """Returns ACER with a rollout whose policy was another one than it has become."""
    acer = learner(q_policy(), **settings)
    rollout = random_rollout(acer.policy, num_steps=T, num_envs=N, end_rate=0.15, seed=1)
    trajectory = acer.remember(rollout)
    moved(acer.policy)
    return acer, trajectory, rollout


# --- Retrace --------------------------------------------------------------------------------------


def test_retrace_is_its_definition() -> None:
    """Q^ret_t = Q_t + sum over j >= t of gamma^(j-t) (prod of min(1, rho_i), t < i <= j) delta_j.

    The sum in O(T^2), Munos et al.'s eq. 4 with lambda 1; it stops behind the first end of any kind.
    """
    rng = np.random.default_rng(0)
    shape, gamma = (9, 5), 0.9
    rewards, q, next_v = rng.normal(size=(3, *shape))
    ratio = np.exp(rng.normal(size=shape))
    terminated, truncated = rng.random((2, *shape)) < 0.15
    expected = np.zeros(shape)
    for n in range(shape[1]):
        for t in range(shape[0]):
            total, trace = q[t, n], 1.0
            for j in range(t, shape[0]):
                trace *= 1.0 if j == t else gamma * min(1.0, ratio[j, n])
                bootstrap = 0.0 if terminated[j, n] else gamma * next_v[j, n]
                total += trace * (rewards[j, n] + bootstrap - q[j, n])
                if terminated[j, n] or truncated[j, n]:
                    break
            expected[t, n] = total
    columns = [torch.from_numpy(x) for x in (rewards, q, next_v, ratio, terminated, truncated)]
    np.testing.assert_allclose(retrace(*columns, gamma), expected, rtol=1e-12, atol=1e-12)
    assert (ratio > 1).any()
    assert terminated.any()
    assert truncated.any()


def test_retrace_on_policy_is_the_recursion_of_the_paper() -> None:
    """Backwards as in algorithm 2: Q^ret <- r + gamma Q^ret; then rho-bar (Q^ret - Q) + V."""
    rng = np.random.default_rng(1)
    rewards, q, v = rng.normal(size=(3, 8, 1))
    ratio = np.exp(rng.normal(size=(8, 1)))
    last_v, gamma = 0.7, 0.95
    expected, q_ret = np.zeros(8), last_v
    for i in reversed(range(8)):
        q_ret = rewards[i, 0] + gamma * q_ret
        expected[i] = q_ret
        q_ret = min(1.0, ratio[i, 0]) * (q_ret - q[i, 0]) + v[i, 0]
    next_v = np.concatenate([v[1:], [[last_v]]])
    never = torch.zeros(8, 1, dtype=torch.bool)
    found = retrace(*map(torch.from_numpy, (rewards, q, next_v, ratio)), never, never, gamma)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)


def test_what_follows_an_end_does_not_matter() -> None:
    """A ratio that is infinite and a target that is NaN behind a termination change nothing."""
    rewards, q, next_v = torch.ones(3, 1), torch.zeros(3, 1), torch.tensor([[1.0], [9.0], [2.0]])
    ratio = torch.tensor([[1.0], [1.0], [torch.inf]])
    terminated = torch.tensor([[False], [True], [False]])
    rewards[2] = torch.nan
    found = retrace(rewards, q, next_v, ratio, terminated, torch.zeros_like(terminated), 0.5)
    # Q^ret_1 = 1; Q^ret_0 = 1 + 0.5 x 1 + 0.5 x 1 x (1 - 0)
    assert found[:2, 0].tolist() == [2.0, 1.0]


# --- the policy's gradient ------------------------------------------------------------------------


def test_the_objective_has_the_gradient_of_the_paper() -> None:
    """min(c, rho_a)(Q^ret - V) grad log pi(a) + E_pi[(rho - c)/rho]_+ (Q - V) grad log pi, by hand.

    d log pi(a) / d logit_j = [j = a] - pi(j); summed action by action in Python's floats.
    """
    rng = np.random.default_rng(2)
    rows, clip = 7, 1.3
    logits = torch.from_numpy(rng.normal(size=(rows, P))).requires_grad_()
    pi = torch.softmax(logits, -1).detach().numpy()
    mu = rng.dirichlet(np.ones(P), rows)
    q, targets = rng.normal(size=(rows, P)), rng.normal(size=rows)
    actions = rng.integers(0, P, rows)
    expected, corrected = np.zeros((rows, P)), 0
    for m in range(rows):
        v = sum(pi[m, a] * q[m, a] for a in range(P))
        for j in range(P):
            for a in range(P):
                rho = pi[m, a] / mu[m, a]
                slope = (1.0 if j == a else 0.0) - pi[m, j]
                if a == actions[m]:
                    expected[m, j] += min(clip, rho) * (targets[m] - v) * slope
                if rho > clip:
                    expected[m, j] += pi[m, a] * (rho - clip) / rho * (q[m, a] - v) * slope
                    corrected += 1
    objective = acer_objective(
        torch.log_softmax(logits, -1),
        torch.from_numpy(actions),
        torch.from_numpy(pi / mu),
        torch.from_numpy(q),
        torch.from_numpy((pi * q).sum(1)),
        torch.from_numpy(targets),
        clip,
    )
    (found,) = torch.autograd.grad(objective, logits)
    np.testing.assert_allclose(found * rows, expected, rtol=1e-10, atol=1e-12)
    assert corrected > 0


@pytest.mark.parametrize("clip", [0.5, 2.0, math.inf])
def test_truncation_and_correction_leave_the_gradient_unbiased(clip: float) -> None:
    """With true Q values the mean over a ~ mu is that of the plain policy gradient, for every c.

    sum_a mu(a) g(a) = sum_a pi(a) (Q(a) - V) grad log pi(a): section 3.2 of the paper.
    """
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(size=(1, P))).requires_grad_()
    pi = torch.softmax(logits, -1)
    mu = torch.from_numpy(rng.dirichlet(np.ones(P)))[None]
    q = torch.from_numpy(rng.normal(size=(1, P)))
    v = (pi * q).sum(-1).detach()
    log_pi = torch.log_softmax(logits, -1)
    total = torch.zeros(())
    for a in range(P):
        at = torch.tensor([a])
        g = acer_objective(log_pi, at, (pi / mu).detach(), q, v, q[:, a], clip)
        total = total + mu[0, a] * g
    (found,) = torch.autograd.grad(total, logits, retain_graph=True)
    (expected,) = torch.autograd.grad((pi * q).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


# --- one update -----------------------------------------------------------------------------------


def test_rows_are_judged_as_defined() -> None:
    """ratio = pi / mu, V = sum pi Q, and targets from V of the true successor of every row.

    The successor of a step that ended an episode is the observation it ended in, not the next row.
    """
    acer, trajectory, rollout = off_policy(gamma=0.9)
    judged = acer.judge(trajectory)
    params, q = acer.policy.action_values(rollout.obs.double().flatten(0, 1))
    pi = torch.softmax(params, -1)
    v = (pi * q).sum(-1)
    torch.testing.assert_close(judged.values, v, rtol=1e-12, atol=0)
    mu = trajectory.behaviour.flatten(0, 1).exp()
    torch.testing.assert_close(judged.ratio, pi / mu, rtol=1e-9, atol=0)
    assert float((judged.ratio - 1).abs().max()) > 0.1
    successors = torch.cat([rollout.obs[1:], rollout.last_obs[None]])
    for (t, n), final in zip(rollout.final_at.tolist(), rollout.final_obs, strict=True):
        successors[t, n] = final
    next_v = acer.policy(successors.double().flatten(0, 1))[1].view(T, N)
    expected = retrace(
        rollout.rewards.double(),
        taken(q, trajectory).view(T, N),
        next_v,
        taken(judged.ratio, trajectory).view(T, N),
        rollout.terminated,
        rollout.truncated,
        0.9,
    )
    torch.testing.assert_close(judged.targets.view(T, N), expected, rtol=1e-9, atol=1e-12)
    assert bool((rollout.truncated & ~rollout.terminated)[:-1].any())
    assert bool(rollout.terminated[:-1].any())


def test_the_ratio_of_a_fresh_rollout_is_one() -> None:
    """Exactly, for behaviour and policy are the same numbers of the same rows."""
    acer = learner(q_policy())
    trajectory = acer.remember(random_rollout(acer.policy, num_steps=T, num_envs=N))
    assert bool((acer.judge(trajectory).ratio == 1.0).all())


def test_the_gradient_is_that_of_the_formulas() -> None:
    """z of the policy's part through the network, and (Q - Q^ret) grad Q of the taken actions.

    g and k from their formulas in logits, k = pi - pi_a; the policy is away from its average, and
    delta is small, so that some rows are held back.
    """
    settings = {"trust_region_delta": 0.02, "ent_coef": 0.03, "importance_clip": 1.2}
    acer, trajectory, _ = off_policy(vf_coef=0.7, **settings)
    old = learner(q_policy()).policy  # where the average still is
    judged = acer.judge(trajectory)
    with torch.no_grad():
        pi = torch.softmax(judged.params, -1)
        log_pi = pi.log()
        actions = trajectory.actions.flatten()
        chosen = torch.nn.functional.one_hot(actions, P)
        v = judged.values[:, None]
        weight = judged.ratio.gather(1, actions[:, None]).clamp(max=1.2)
        g = weight * (judged.targets[:, None] - v) * (chosen - pi)
        excess = (1 - 1.2 / judged.ratio).clamp(min=0)
        pull = pi * excess * (judged.action_values - v)
        g += pull - pi * pull.sum(-1, keepdim=True)
        # the gradient of the entropy: -pi (log pi + H)
        entropy = -(pi * log_pi).sum(-1, keepdim=True)
        g -= 0.03 * pi * (log_pi + entropy)
        k = pi - torch.softmax(old(judged.obs)[0], -1)
        z = trust_region_correction(g, k, 0.02)
        held_back = (z != g).any(-1).double().mean()
        off = taken(judged.action_values, trajectory) - judged.targets
    expected_loss = -(z * judged.params).sum() / (T * N)
    expected_loss = expected_loss + 0.7 * (off * taken(judged.action_values, trajectory)).sum() / (
        T * N
    )
    parameters = [*acer.policy.parameters()]
    expected = torch.autograd.grad(expected_loss, parameters, retain_graph=True)
    loss, report = acer.loss(trajectory, judged)
    found = torch.autograd.grad(loss, parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    assert float(report[-1]) == pytest.approx(float(held_back))
    assert 0 < float(held_back) < 1


def test_an_update_moves_q_towards_its_targets() -> None:
    """Steps on one trajectory bring the loss of Q down; the policy's is another matter."""
    acer, trajectory, _ = off_policy()
    first = float(acer.improve(trajectory, acer.judge(trajectory), 2e-2)[3])
    for _ in range(200):
        last = float(acer.improve(trajectory, acer.judge(trajectory), 2e-2)[3])
    assert last < 0.5 * first


def test_a_module_that_is_not_a_function_of_its_observation_is_refused() -> None:
    """With dropout the policy that is remembered is not the one that acted."""

    class Noisy(nn.Module):
        def __init__(self, obs_size: int, num_outputs: int) -> None:
            super().__init__()
            self.actor = nn.Sequential(nn.Linear(obs_size, num_outputs), nn.Dropout(0.5))
            self.critic = nn.Linear(obs_size, num_outputs)

        def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
            return self.actor(obs), self.critic(obs)

    agent = clipper.ACER("CartPole-v1", module=Noisy, num_envs=2, num_steps=8)
    with pytest.raises(InvariantBreach, match="ratio must be 1"):
        agent.train(64, progress=False)


# --- the memory -----------------------------------------------------------------------------------


def numbered(number: int) -> Trajectory:
    """Returns a trajectory of 2 steps and 3 envs whose every number says which it is."""
    value = 10.0 * number + torch.arange(3.0).expand(2, 3)
    return Trajectory(
        obs=value[..., None].expand(2, 3, 1),
        next_obs=value[..., None].expand(2, 3, 1) + 0.5,
        actions=torch.full((2, 3), number),
        rewards=value + torch.tensor([[0.0], [100.0]]),
        terminated=torch.full((2, 3), number % 2 == 0),
        truncated=torch.zeros(2, 3, dtype=torch.bool),
        behaviour=value[..., None].expand(2, 3, 2),
    )


def test_the_memory_returns_what_was_put_in() -> None:
    """Of each environment the rollout of the age that is asked for; the oldest one is forgotten."""
    memory = ReplayMemory(3)
    for number in range(5):
        assert len(memory) == min(number, 3)
        memory.add(numbered(number))
    sample = memory.sample(np.array([0, 1, 2]))
    assert sample.actions.tolist() == [[4, 3, 2], [4, 3, 2]]
    assert sample.rewards.tolist() == [[40.0, 31.0, 22.0], [140.0, 131.0, 122.0]]
    assert sample.obs[..., 0].tolist() == [[40.0, 31.0, 22.0]] * 2
    assert sample.next_obs[..., 0].tolist() == [[40.5, 31.5, 22.5]] * 2
    assert sample.terminated.tolist() == [[True, False, True]] * 2
    assert sample.behaviour.shape == (2, 3, 2)


@pytest.mark.parametrize("before", [0, 2, 3, 7])
def test_a_state_of_the_memory_holds_over_one_more_rollout(before: int) -> None:
    """An iteration that is taken back leaves the memory as it was, although nothing was copied."""
    memory = ReplayMemory(3)
    for number in range(before):
        memory.add(numbered(number))
    state = memory.state_dict()
    ages = np.arange(3) % max(before, 1)
    expected = memory.sample(ages).rewards if before else None
    memory.add(numbered(99))
    memory.load_state_dict(state)
    assert len(memory) == min(before, 3)
    if expected is not None:
        assert torch.equal(memory.sample(ages).rewards, expected)
    # negative control: the state of a memory with another rollout in it is another one
    memory.add(numbered(99))
    assert float(memory.sample(np.zeros(3, dtype=np.int64)).rewards[0, 0]) == 990.0


def test_a_memory_loads_into_an_empty_one() -> None:
    """Capacity and content are those of the memory that was saved, also after more is added."""
    memory, other = ReplayMemory(3), ReplayMemory(3)
    for number in range(6):
        memory.add(numbered(number))
    other.load_state_dict(copy.deepcopy(memory.state_dict()))
    for number in (6, 7):
        memory.add(numbered(number))
        other.add(numbered(number))
        for ages in (np.array([0, 1, 2]), np.array([2, 2, 0])):
            assert torch.equal(memory.sample(ages).rewards, other.sample(ages).rewards)


def test_the_number_of_replays_is_poisson() -> None:
    """Mean, variance and the whole distribution of 4,000 iterations; each age equally often."""
    plans = [replay_plan(3, i, 4.0, 10, 5) for i in range(4000)]
    counts = np.array([len(plan) for plan in plans])
    observed = np.bincount(counts.clip(max=11), minlength=12)
    expected = stats.poisson.pmf(np.arange(12), 4.0)
    expected[-1] += stats.poisson.sf(11, 4.0)
    assert stats.chisquare(observed, expected * 4000).pvalue > 0.01
    ages = np.concatenate([plan.ravel() for plan in plans])
    assert stats.chisquare(np.bincount(ages, minlength=10)).pvalue > 0.01
    # environments replay rollouts of their own
    joint = np.concatenate([plan[:, :2] for plan in plans if len(plan)])
    assert abs(np.corrcoef(joint.T)[0, 1]) < 0.03
    np.testing.assert_array_equal(plans[7], replay_plan(3, 7, 4.0, 10, 5))


def test_poisson_inverts_its_distribution() -> None:
    """The smallest k whose cumulative probability is above u, as scipy has it; 0 for mean 0."""
    for u in (0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 2.0**-24):
        assert poisson(4.0, u) == stats.poisson.ppf(np.nextafter(u, 1.0), 4.0)
        assert poisson(0.0, u) == 0


def test_nothing_is_replayed_before_replay_start() -> None:
    """The first updates are on-policy alone; the metrics say how many followed from memory."""
    agent = clipper.ACER(
        "CartPole-v1", num_envs=2, num_steps=5, replay_start=30, replay_capacity=20, eval_every=0
    )
    rows: list[dict[str, float]] = []
    agent.train(120, progress=False, callback=lambda report: rows.append(dict(report.metrics)))
    assert [row["replay/timesteps"] for row in rows[:6]] == [10, 20, 30, 40, 40, 40]
    assert [row["replay/updates"] for row in rows[:2]] == [0, 0]
    assert sum(row["replay/updates"] for row in rows[2:]) > 10
    assert all("replay/ratio_mean" not in row for row in rows[:2])


# --- the policy that it asks for ------------------------------------------------------------------


@needs_native
def test_values_of_successors_are_means_over_actions() -> None:
    """V = sum_a pi(a|s) Q(s, a), also of the observations after the last row, with the engine acting."""
    policy = q_policy(torch.float32)
    rollout = random_rollout(policy, seed=3)
    at = (rollout.final_obs, rollout.final_at, rollout.last_obs)
    plain = policy.next_values(rollout.values, *at)
    learner(policy, engine="native")
    torch.testing.assert_close(policy.next_values(rollout.values, *at), plain)


@needs_native
def test_the_native_engine_acts_and_values_are_those_of_torch() -> None:
    """Actions and log-probabilities come from C++, V = sum pi Q from torch, in rollouts as well."""
    agent = clipper.ACER("CartPole-v1", num_envs=4, num_steps=16, seed=3)
    assert agent.engine.startswith("native")
    assert "torch learns (values of every action are not in C++)" in agent.describe_engine()
    sampler, _ = agent._playground.ready(agent.policy)
    rollout = sampler.collect(agent.policy, 16)
    plain = copy.deepcopy(agent.policy)
    log_probs, values = plain.evaluate(rollout.obs, rollout.actions)
    torch.testing.assert_close(rollout.log_probs, log_probs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rollout.values, values, rtol=1e-5, atol=1e-6)
    # which is not what the kernels read, the value of the first action
    with torch.no_grad():
        first = plain.network(rollout.obs.flatten(0, 1))[1][:, 0].view(16, 4)
    assert float((values - first).abs().max()) > 1e-3
    noise = agent.policy.noise(3, 1, 0, 1, 8)[0]
    obs = rollout.obs.flatten(0, 1)[:8].numpy()
    drawn = torch.from_numpy(noise)
    np.testing.assert_array_equal(agent.policy.act(obs, drawn), plain.act(obs, drawn))


@pytest.mark.parametrize("env", ["Pendulum-v1", "multi_discrete"])
def test_other_actions_are_refused(env: str) -> None:
    """With a sentence that names the space, before anything is trained."""

    class MultiDiscrete(gymnasium.Env):
        observation_space = spaces.Box(-1.0, 1.0, (2,))
        action_space = spaces.MultiDiscrete([2, 3])

    with pytest.raises(SpaceError, match=r"must be Discrete, but is (Box|MultiDiscrete)"):
        clipper.ACER(env if env == "Pendulum-v1" else MultiDiscrete)


def test_a_module_must_value_every_action() -> None:
    """One that gives a single value is refused with the shape that is wanted; a right one learns."""

    class Own(nn.Module):
        def __init__(self, obs_size: int, num_outputs: int, num_values: int) -> None:
            super().__init__()
            self.actor = nn.Linear(obs_size, num_outputs)
            self.critic = nn.Linear(obs_size, num_values)

        def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
            return self.actor(obs), self.critic(obs)

    with pytest.raises(ConfigError, match=r"values \[M, 2\]"):
        clipper.ACER("CartPole-v1", module=lambda size, outputs: Own(size, outputs, 1))
    agent = clipper.ACER(
        "CartPole-v1", module=lambda size, outputs: Own(size, outputs, 2), num_envs=2, num_steps=8
    )
    before = flat_parameters(agent.policy)
    agent.train(32, progress=False)
    assert not torch.equal(flat_parameters(agent.policy), before)


def test_an_agent_file_keeps_values_of_every_action(tmp_path: Path) -> None:
    """What is loaded acts and values as before; a file with another critic is refused."""
    agent = clipper.ACER("CartPole-v1", num_envs=2, num_steps=8, seed=1)
    agent.train(64, progress=False)
    agent.save(tmp_path / "acer.safetensors")
    loaded = clipper.load(tmp_path / "acer.safetensors")
    assert isinstance(loaded, clipper.ACER)
    obs = torch.randn(5, 4)
    torch.testing.assert_close(loaded.policy.values(obs), agent.policy.values(obs))
    assert loaded.policy.network.critic[-1].weight.shape == (2, 64)
    # a PPO agent's critic has one output: neither takes the other's weights
    ppo = clipper.PPO("CartPole-v1", num_envs=2, num_steps=16, minibatch_size=16)
    with pytest.raises(FileError, match="must hold the tensors of this policy"):
        ppo.init_from(tmp_path / "acer.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay_capacity": 19}, "replay_capacity must be at least num_steps = 20, but is 19"),
        (
            {"replay_capacity": 20, "num_envs": 2},
            "replay_start must be at most the 40 steps that fit into the memory, but is 10,000",
        ),
    ],
)
def test_a_memory_that_is_too_small_is_refused(settings: dict[str, Any], message: str) -> None:
    """It must hold a rollout, and reach the size at which replay starts."""
    with pytest.raises(ConfigError, match=message):
        ACERConfig().replace(**settings)


def test_judged_rows_are_not_differentiated_through_targets() -> None:
    """Values, ratios and targets carry no gradient; parameters and Q do."""
    acer, trajectory, _ = off_policy()
    judged: Judged = acer.judge(trajectory)
    assert judged.params.requires_grad
    assert judged.action_values.requires_grad
    assert not any(x.requires_grad for x in (judged.values, judged.ratio, judged.targets))
