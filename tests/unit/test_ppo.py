"""The control flow of one iteration: which rows, which order, which numbers, and when it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clipper
from clipper.algorithms.ppo import PPO
from clipper.errors import InvariantBreach, NumericsError
from clipper.rollout import Batch, Rollout
from clipper.training_report import Report
from helpers import flat_parameters, learner, random_rollout, small_policy


class Spy:
    """Wraps a PPO so that every minibatch, clip range, step size and parameter vector is kept."""

    def __init__(self, ppo: PPO, monkeypatch: pytest.MonkeyPatch) -> None:
        self.minibatches: list[Batch] = []
        self.clip_ranges: list[float] = []
        self.reports: list[Tensor] = []
        self.learning_rates: list[float] = []
        self.parameters: list[Tensor] = []
        loss, minimise = ppo.loss, ppo.engine.minimise

        def spy_loss(minibatch: Batch, clip_range: float) -> Any:
            found = loss(minibatch, clip_range)
            self.minibatches.append(minibatch)
            self.clip_ranges.append(clip_range)
            self.reports.append(found[1])
            return found

        def spy_minimise(value: Tensor, learning_rate: float) -> float:
            self.learning_rates.append(learning_rate)
            self.parameters.append(flat_parameters(ppo.policy))
            return minimise(value, learning_rate)

        monkeypatch.setattr(ppo, "loss", spy_loss)
        monkeypatch.setattr(ppo.engine, "minimise", spy_minimise)


class OneRollout:
    """A sampler that always returns the same rollout."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout

    def collect(self, policy: Any, num_steps: int) -> Rollout:
        return self.rollout


def setup(kind: str = "discrete", **settings: Any) -> tuple[PPO, Rollout]:
    """Returns a PPO with 16 steps x 4 envs, minibatches of 16, and a rollout of its policy."""
    ppo = learner(small_policy(kind), **{"num_epochs": 3, "learning_rate": 1e-2, **settings})
    return ppo, random_rollout(ppo.policy)


def row_ids(ppo: PPO, minibatches: list[Batch], rollout: Rollout) -> list[int]:
    """Returns which rows of the rollout the minibatches hold; observations tell them apart."""
    known = {tuple(obs): i for i, obs in enumerate(rollout.obs.double().flatten(0, 1).tolist())}
    assert len(known) == rollout.num_rows
    return [known[tuple(obs)] for batch in minibatches for obs in batch.obs.tolist()]


# --- which rows and which settings ----------------------------------------------------------------


def test_every_epoch_visits_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 epochs of 4 minibatches of 16 rows; each epoch is another order of all 64 rows."""
    ppo, rollout = setup()
    spy = Spy(ppo, monkeypatch)
    metrics = ppo.improve(rollout, 0.0)
    assert [len(batch.advantages) for batch in spy.minibatches] == [16] * 12
    ids = row_ids(ppo, spy.minibatches, rollout)
    epochs = [ids[:64], ids[64:128], ids[128:]]
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert metrics["policy/epochs"] == 3
    assert ppo.engine.num_updates == 12


def test_columns_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffling moves whole rows: each has its own action, log-probability and advantage."""
    ppo, rollout = setup(num_epochs=1)
    spy = Spy(ppo, monkeypatch)
    ppo.improve(rollout, 0.0)
    ids = row_ids(ppo, spy.minibatches, rollout)
    for name in ("actions", "log_probs", "values"):
        column = torch.cat([getattr(batch, name) for batch in spy.minibatches])
        assert torch.equal(column, getattr(rollout, name).flatten(0, 1)[ids])
    advantages = torch.cat([batch.advantages for batch in spy.minibatches])
    targets = torch.cat([batch.value_targets for batch in spy.minibatches])
    # the target of V is A + V
    torch.testing.assert_close(targets, advantages + rollout.values.flatten()[ids])


def test_orders_differ_by_iteration_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first minibatch of an iteration depends on the run's seed and on the iteration."""
    firsts = []
    for seed in (0, 1):
        ppo, rollout = setup(seed=seed, num_epochs=1, learning_rate=0.0)
        spy = Spy(ppo, monkeypatch)
        ppo.iterate(OneRollout(rollout), 0.0)  # type: ignore[arg-type]
        ppo.iterate(OneRollout(rollout), 0.0)  # type: ignore[arg-type]
        ids = row_ids(ppo, spy.minibatches, rollout)
        firsts += [tuple(ids[:16]), tuple(ids[64:80])]
    assert len(set(firsts)) == 4


@pytest.mark.parametrize(
    ("progress", "learning_rate", "clip_range"),
    # linear:0.02:0 and linear:0.3:0.1 after 0, 1/4 and all of the run
    [(0.0, 0.02, 0.3), (0.25, 0.015, 0.25), (1.0, 0.0, 0.1)],
)
def test_schedules(
    progress: float, learning_rate: float, clip_range: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step size and clip range are those of the progress, in every update and in the metrics."""
    ppo, rollout = setup(learning_rate="linear:0.02:0", clip_range="linear:0.3:0.1")
    spy = Spy(ppo, monkeypatch)
    before = flat_parameters(ppo.policy)
    metrics = ppo.improve(rollout, progress)
    assert spy.learning_rates == pytest.approx([learning_rate] * 12)
    assert spy.clip_ranges == pytest.approx([clip_range] * 12)
    assert metrics["schedule/learning_rate"] == pytest.approx(learning_rate)
    assert metrics["schedule/clip_range"] == pytest.approx(clip_range)
    moved = not torch.equal(flat_parameters(ppo.policy), before)
    assert moved == (learning_rate > 0)


def test_schedules_follow_the_run() -> None:
    """Iteration k of K trains with the schedule's value at k / K: 4 iterations, 1e-2 to 0."""
    agent = clipper.PPO(
        "CartPole-v1", preset="none", num_envs=2, num_steps=8, minibatch_size=16, num_epochs=1,
        total_timesteps=64, learning_rate="linear:1e-2:0", eval_every=0,
    )  # fmt: skip
    rates: list[float] = []
    agent.train(
        progress=False,
        callback=lambda report: rates.append(report.metrics["schedule/learning_rate"]),
    )
    assert rates == pytest.approx([1e-2, 0.75e-2, 0.5e-2, 0.25e-2])


def test_a_minibatch_of_one_row_learns() -> None:
    """One row has no standard deviation: its advantage is used as it is."""
    ppo, rollout = setup(minibatch_size=1, num_epochs=1, learning_rate=1e-4)
    before = flat_parameters(ppo.policy)
    metrics = ppo.improve(rollout, 0.0)
    assert all(math.isfinite(number) for number in metrics.values())
    assert not torch.equal(flat_parameters(ppo.policy), before)


# --- target_kl ------------------------------------------------------------------------------------


def test_target_kl_can_stop_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first minibatch is too far from the old policy already, no parameter moves.

    All log ratios are 0.0009: k3 = e^0.0009 - 1 - 0.0009 = 4.05e-7, above 1.5 x 2.6e-7 = 3.9e-7.
    """
    ppo, rollout = setup(target_kl=2.6e-7)
    rollout = replace(rollout, log_probs=rollout.log_probs - 0.0009)
    spy = Spy(ppo, monkeypatch)
    before = flat_parameters(ppo.policy)
    metrics = ppo.improve(rollout, 0.0)
    assert torch.equal(flat_parameters(ppo.policy), before)
    assert len(spy.minibatches) == 1
    assert spy.learning_rates == []
    assert metrics["policy/epochs"] == 0
    assert metrics["policy/approx_kl"] == pytest.approx(4.051e-7, rel=1e-3)
    assert "loss/grad_norm" not in metrics
    # just below the limit it goes on: 1.5 x 8.5e-6 = 1.275e-5
    other, _ = setup(target_kl=8.5e-6)
    other.improve(rollout, 0.0)
    assert not torch.equal(flat_parameters(other.policy), before)


def test_target_kl_stops_before_the_step_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minibatch whose estimate exceeds 1.5 x target is reported, not learnt from; all ends."""
    ppo, rollout = setup(target_kl=0.01, num_epochs=10, learning_rate=2e-2)
    spy = Spy(ppo, monkeypatch)
    metrics = ppo.improve(rollout, 0.0)
    kls = [float(report[4]) for report in spy.reports]
    assert all(kl <= 0.015 for kl in kls[:-1])
    assert kls[-1] > 0.015
    assert len(spy.learning_rates) == len(kls) - 1 == ppo.engine.num_updates
    assert metrics["policy/epochs"] == (len(kls) - 1) // 4 < 10


# --- recompute_advantages -------------------------------------------------------------------------


def gae_by_hand(rollout: Rollout, values: Tensor, next_values: Tensor) -> Tensor:
    """A_t backwards in time, gamma 0.9 and lambda 0.8."""
    T, N = rollout.rewards.shape
    found = torch.zeros(T, N, dtype=torch.float64)
    for i in range(N):
        later = 0.0
        for t in reversed(range(T)):
            terminated, truncated = bool(rollout.terminated[t, i]), bool(rollout.truncated[t, i])
            future = 0.0 if terminated else 0.9 * float(next_values[t, i])
            delta = float(rollout.rewards[t, i]) + future - float(values[t, i])
            later = delta + (0.0 if terminated or truncated else 0.72 * later)
            found[t, i] = later
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_recompute_advantages(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, each epoch's advantages and targets come from the values of its start; else the
    first epoch's. The old log-probabilities stay those of the policy that acted."""
    ppo, rollout = setup(
        recompute_advantages=recompute, gamma=0.9, gae_lambda=0.8, learning_rate=3e-2
    )
    spy = Spy(ppo, monkeypatch)
    ppo.improve(rollout, 0.0)
    final_rows = {tuple(at): i for i, at in enumerate(rollout.final_at.tolist())}
    twin = small_policy("discrete")
    for epoch in range(3):
        # the policy as it was before the epoch's first step
        start = spy.parameters[4 * epoch if recompute else 0]
        nn.utils.vector_to_parameters(start, twin.parameters())
        values = twin.values(rollout.obs)
        next_values = torch.cat([values[1:], twin.values(rollout.last_obs)[None]])
        for (t, i), row in final_rows.items():
            next_values[t, i] = twin.values(rollout.final_obs[row])
        advantages = gae_by_hand(rollout, values, next_values)
        batches = spy.minibatches[4 * epoch : 4 * epoch + 4]
        ids = row_ids(ppo, batches, rollout)
        expected = {
            "advantages": advantages,
            "value_targets": advantages + values,
            "log_probs": rollout.log_probs,
        }
        for name, block in expected.items():
            column = torch.cat([getattr(batch, name) for batch in batches])
            torch.testing.assert_close(column, block.flatten()[ids], rtol=1e-9, atol=1e-9)
    moved = (spy.parameters[8] - spy.parameters[0]).norm()
    assert float(moved) > 0.1


# --- the invariants -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary", "box"])
def test_the_first_ratio_is_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any update the new policy is the old one: ratio 1, KL 0, nothing clipped."""
    ppo, rollout = setup(kind)
    spy = Spy(ppo, monkeypatch)
    metrics = ppo.improve(rollout, 0.0)
    assert metrics["policy/first_ratio_error"] < 1e-12
    _, _, _, _, kl, clipped, error = spy.reports[0].tolist()
    assert kl < 1e-24
    assert clipped == 0
    assert error == metrics["policy/first_ratio_error"]
    # and later it is not: the metric is that of the first minibatch, not of all
    assert float(spy.reports[-1][6]) > 1e-3


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_first_ratio_is_one_in_training(env_id: str) -> None:
    """In float32, with both normalisers, every iteration begins at ratio 1 but for rounding."""
    agent = clipper.PPO(
        env_id, preset="none", num_envs=2, num_steps=64, minibatch_size=64, total_timesteps=512,
        learning_rate=1e-2, normalize_obs=True, normalize_reward=True, eval_every=0,
    )  # fmt: skip
    errors: list[float] = []
    agent.train(
        progress=False,
        callback=lambda report: errors.append(report.metrics["policy/first_ratio_error"]),
    )
    assert len(errors) == 4
    assert max(errors) < 1e-4


class Noisy(nn.Module):
    """A network whose output is not a function of the observation: half of it drops out."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_size, 32), nn.Tanh(), nn.Dropout(0.5))
        self.policy, self.value = nn.Linear(32, num_outputs), nn.Linear(32, 1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and values."""
        features = self.body(obs)
        return self.policy(features), self.value(features)


def test_a_module_with_dropout_is_refused() -> None:
    """The ratio is not 1 on the first minibatch: an error of ours, and no parameter has moved."""
    agent = clipper.PPO("CartPole-v1", module=Noisy, num_steps=16, num_envs=2, minibatch_size=32)
    before = flat_parameters(agent.policy)
    with pytest.raises(InvariantBreach, match="ratio must be 1") as caught:
        agent.train(progress=False)
    assert "dropout" in str(caught.value)
    assert torch.equal(flat_parameters(agent.policy), before)
    assert agent.step == 0


def test_a_ratio_off_by_more_than_a_hundredth_is_a_breach() -> None:
    """e^0.0095 - 1 = 0.0095 passes with a warning, e^0.0105 - 1 = 0.0106 does not."""
    ppo, rollout = setup()
    with pytest.raises(InvariantBreach):
        ppo.improve(replace(rollout, log_probs=rollout.log_probs - 0.0105), 0.0)
    with pytest.raises(InvariantBreach):
        ppo.improve(replace(rollout, log_probs=rollout.log_probs * math.nan), 0.0)
    assert ppo.engine.num_updates == 0
    with pytest.warns(UserWarning, match=r"off by 0\.0095"):
        ppo.improve(replace(rollout, log_probs=rollout.log_probs - 0.0095), 0.0)
    # e^0.0009 - 1 = 0.0009 is passed over (a warning would be an error here)
    ppo, rollout = setup()
    ppo.improve(replace(rollout, log_probs=rollout.log_probs - 0.0009), 0.0)


class Spoilt(gymnasium.Wrapper):
    """Gives one number that is not finite, at one step of its life."""

    def __init__(self, what: str, value: float, at: int) -> None:
        super().__init__(gymnasium.make("CartPole-v1", disable_env_checker=True))
        self.what, self.value, self.at, self.count = what, value, at, 0

    def step(self, action: Any) -> Any:
        """Steps, and spoils step number `at`."""
        obs, reward, *rest = self.env.step(action)
        self.count += 1
        if self.count == self.at:
            if self.what == "reward":
                reward = self.value
            else:
                obs = np.array([0.0, self.value, 0.0, 0.0], dtype=np.float32)
        return obs, reward, *rest


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_number_that_is_not_finite_moves_nothing(what: str, value: float) -> None:
    """It ends training with its environment and step; the agent is that of the iteration before.

    Steps 17 to 32 of each environment are the second iteration; step 20 of each is spoilt, env 0's
    is met first.
    """
    agent = clipper.PPO(
        lambda: Spoilt(what, value, at=20), preset="none", num_envs=2, num_steps=16,
        minibatch_size=16, total_timesteps=320, eval_every=0,
    )  # fmt: skip
    after_first: list[Tensor] = []

    def keep(report: Report) -> None:
        after_first.append(flat_parameters(report.policy))

    with pytest.raises(NumericsError, match=f"{what} must be finite") as caught:
        agent.train(progress=False, callback=keep)
    assert "step 20 of episode 0 of environment 0" in caught.value.message
    assert len(after_first) == 1
    assert torch.equal(flat_parameters(agent.policy), after_first[0])
    assert agent.step == 32


def test_a_loss_that_overflows_moves_nothing() -> None:
    """Rewards of 1e30 are finite but their squared errors are not in float32: refused, unchanged."""
    ppo = learner(small_policy("discrete", dtype=torch.float32))
    rollout = random_rollout(ppo.policy, reward_mean=1e30)
    before = flat_parameters(ppo.policy)
    with pytest.raises(NumericsError, match="loss and its gradient"):
        ppo.improve(rollout, 0.0)
    assert torch.equal(flat_parameters(ppo.policy), before)
    assert ppo.engine.num_updates == 0


# --- metrics and state ----------------------------------------------------------------------------


def test_metrics_are_means_over_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, entropy, KL and clip fraction are means of what each minibatch reported."""
    ppo, rollout = setup("box")
    spy = Spy(ppo, monkeypatch)
    std = float(ppo.policy.log_std.detach().exp().mean())  # type: ignore[union-attr]
    metrics = ppo.improve(rollout, 0.0)
    means = torch.stack(spy.reports).mean(0).tolist()
    names = ("loss/total", "loss/policy", "loss/value", "policy/entropy")
    names += ("policy/approx_kl", "policy/clip_fraction")
    assert [metrics[name] for name in names] == pytest.approx(means[:6])
    assert metrics["rollout/reward_mean"] == pytest.approx(float(rollout.rewards.mean()))
    ended = rollout.terminated | rollout.truncated
    cut = (rollout.truncated & ~rollout.terminated).sum() / ended.sum()
    assert metrics["rollout/truncated_fraction"] == pytest.approx(float(cut))
    outside = float((rollout.actions.abs() > 1).double().mean())
    assert metrics["policy/action_saturation"] == pytest.approx(outside)
    assert metrics["policy/action_std"] != std  # that of the policy after the updates
    targets = torch.cat([batch.value_targets for batch in spy.minibatches[:4]])
    assert metrics["value/target_mean"] == pytest.approx(float(targets.mean()))
    assert metrics["value/target_std"] == pytest.approx(float(targets.std(correction=0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "reference"])
@pytest.mark.parametrize("kind", ["box", "discrete", "multi_discrete", "multi_binary"])
def test_the_adaptive_penalty_follows_the_exact_kl(kind: str, dtype: torch.dtype) -> None:
    """policy/kl is the mean over all rows of torch's KL(old || new); beta follows it, one later.

    The goal is set to half of what the first iteration does, then beta doubles; and to twice, then
    it halves.
    """
    for factor, change in ((0.5, 2.0), (1.2, 1.0), (2.0, 0.5)):
        goal = 1.0
        for _ in range(2):  # the first round finds the KL, the second is held against it
            ppo = learner(
                small_policy(kind, dtype=dtype), objective="kl_adaptive", kl_coef=0.7,
                adaptive_kl_target=goal, learning_rate=1e-2, num_epochs=3,
            )  # fmt: skip
            rollout = random_rollout(ppo.policy)
            obs = ppo.policy.normalize(rollout.obs).flatten(0, 1)
            old = ppo.policy(obs)[0].detach().double()
            metrics = ppo.improve(rollout, 0.0)
            new = ppo.policy(obs)[0].detach().double()
            exact = float(ppo.policy.distribution.kl(old, new).mean())
            assert metrics["policy/kl"] == pytest.approx(exact, rel=1e-3)
            assert metrics["policy/kl_coef"] == 0.7
            goal = factor * exact
        again = ppo.improve(random_rollout(ppo.policy), 0.0)
        assert again["policy/kl_coef"] == 0.7 * change


@pytest.mark.parametrize("objective", ["clip", "cpi", "pg", "dual_clip", "spo"])
def test_the_exact_kl_is_computed_where_it_is_asked_for(objective: str) -> None:
    """The other objectives spend nothing on it and log no column of it."""
    ppo, rollout = setup(objective=objective)
    assert not {"policy/kl", "policy/kl_coef"} & set(ppo.improve(rollout, 0.0))
    assert "kl_coef" not in ppo.state_dict()["counters"]


def test_a_fixed_penalty_stays() -> None:
    """kl_fixed logs the KL and keeps its beta, however far the policy moves."""
    ppo, rollout = setup(objective="kl_fixed", kl_coef=1e-3, learning_rate=0.1)
    for _ in range(3):
        metrics = ppo.improve(replace(rollout, log_probs=evaluated(ppo, rollout)), 0.0)
        assert metrics["policy/kl"] > 0.1
        assert metrics["policy/kl_coef"] == 1e-3


def evaluated(ppo: PPO, rollout: Rollout) -> Tensor:
    return ppo.policy.evaluate(rollout.obs, rollout.actions)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "reference"])
def test_rows_of_unfinished_episodes_move_no_policy(dtype: torch.dtype) -> None:
    """With total_return their actions may be any: the policy that comes out is the same.

    The entropy bonus is off and the value network apart, so that the objective alone moves it.
    """
    ends = []
    for other in (0, 1, 2):
        ppo = learner(
            small_policy("discrete", dtype=dtype), advantage="total_return", ent_coef=0.0,
            objective="pg", max_grad_norm=None,
        )  # fmt: skip
        rollout = random_rollout(ppo.policy)
        counted = ppo.judge(rollout, ppo.policy.normalize(rollout.obs)).counted
        assert counted is not None
        assert counted.any()
        assert not counted.all()
        chosen = torch.where(counted.reshape(16, 4, 1), rollout.actions, other)
        assert other == 0 or not torch.equal(chosen, rollout.actions)
        moved = replace(rollout, actions=chosen)
        ppo.improve(replace(moved, log_probs=evaluated(ppo, moved)), 0.0)
        ends.append(ppo.policy.state_dict())
    for name in ends[0]:
        if "critic" not in name:
            for end in ends[1:]:
                torch.testing.assert_close(end[name], ends[0][name], rtol=1e-6, atol=1e-7)


def test_a_rollout_without_a_whole_episode_teaches_values_alone() -> None:
    """The metrics say how much counts: nothing, of which an alarm tells."""
    ppo, rollout = setup(advantage="total_return", ent_coef=0.0)
    none = torch.zeros_like(rollout.terminated)
    cut = replace(
        rollout, terminated=none, truncated=none, final_obs=rollout.final_obs[:0],
        final_at=rollout.final_at[:0], episodes=(),
    )  # fmt: skip
    metrics = ppo.improve(cut, 0.0)
    assert metrics["rollout/complete_fraction"] == 0.0
    before = flat_parameters(ppo.policy)
    ppo.improve(replace(cut, log_probs=evaluated(ppo, cut)), 0.0)
    assert not torch.equal(flat_parameters(ppo.policy), before)  # the values go on being learnt


@pytest.mark.parametrize("objective", [{}, {"objective": "kl_adaptive"}], ids=["clip", "kl"])
def test_a_restored_algorithm_goes_on_the_same(objective: dict[str, Any]) -> None:
    """What `state_dict` gave, loaded into a fresh PPO, does the next iteration to the same bits."""
    settings = {"normalize_reward": True, "learning_rate": 1e-2, **objective}
    ppo, rollout = setup("box", **settings)
    fresh, _ = setup("box", **settings)
    ppo.iterate(OneRollout(rollout), 0.0)  # type: ignore[arg-type]
    state = ppo.state_dict()
    second = random_rollout(ppo.policy, seed=9)
    ppo.iterate(OneRollout(second), 0.5)  # type: ignore[arg-type]
    fresh.load_state_dict(state)
    # the state is a copy: the second iteration did not reach into it
    assert not torch.equal(flat_parameters(fresh.policy), flat_parameters(ppo.policy))
    fresh.iterate(OneRollout(second), 0.5)  # type: ignore[arg-type]
    found, expected = fresh.state_dict(), ppo.state_dict()
    for part, tensors in expected.items():
        for name, tensor in tensors.items():
            assert torch.equal(found[part][name], tensor), f"{part}.{name}"
