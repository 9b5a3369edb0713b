"""Running statistics against numpy on all rows at once, and when they may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import clipper
from clipper.policies.normalize import ObservationNormalizer, RewardScaler, RunningMoments
from clipper.rollout import Rollout
from clipper.spaces import ObservationLayout
from clipper.training_report import Report
from helpers import DictEnv, learner, random_rollout, small_policy

# T of each rollout that is merged, one after the other
block_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=5)


def draw_blocks(lengths: list[int], num_envs: int, seed: int, *columns: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    # far from 0, where a sum of squares minus a square of sums would lose its digits
    return [rng.normal(1e4, 0.1, size=(length, num_envs, *columns)) for length in lengths]


@given(lengths=block_lengths, num_envs=st.integers(1, 4), seed=st.integers(0, 1000))
def test_moments_are_those_of_all_rows(lengths: list[int], num_envs: int, seed: int) -> None:
    """Count, mean and population variance after any number of blocks are numpy's on all of them."""
    blocks = draw_blocks(lengths, num_envs, seed, 3)
    running = RunningMoments((3,))
    for block in blocks:
        running.merge_block(block)
    rows = np.concatenate([block.reshape(-1, 3) for block in blocks])
    assert running.count == len(rows)
    np.testing.assert_allclose(running.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(running.variance, rows.var(axis=0), rtol=1e-6, atol=1e-12)


def test_moments_before_any_row() -> None:
    """Mean 0 and variance 1: the first rollout is neither shifted nor scaled."""
    running = RunningMoments((2,))
    assert running.count == 0
    assert running.mean.tolist() == [0.0, 0.0]
    assert running.variance.tolist() == [1.0, 1.0]


def test_moments_do_not_depend_on_how_envs_are_split() -> None:
    """Merging environments 0 and 1, then 2 and 3 gives the bits of merging all four at once."""
    (block,) = draw_blocks([50], 4, 0, 3)
    whole, parts = RunningMoments((3,)), RunningMoments((3,))
    whole.merge_block(block)
    parts.merge_block(block[:, :2])
    parts.merge_block(block[:, 2:])
    assert whole.state().tobytes() == parts.state().tobytes()


def test_moments_are_saved_to_the_bit() -> None:
    """`load` of `state` goes on as the one that was saved."""
    first, second = draw_blocks([7, 9], 2, 1, 3)
    running = RunningMoments((3,))
    running.merge_block(first)
    copy = RunningMoments((3,)).load(running.state())
    for moments in (running, copy):
        moments.merge_block(second)
    assert running.state().tobytes() == copy.state().tobytes()


# --- observations ---------------------------------------------------------------------------------


@given(lengths=block_lengths, seed=st.integers(0, 1000))
def test_observations_are_standardised_and_clipped(lengths: list[int], seed: int) -> None:
    """clip((x - mean) / sqrt(var + 1e-8), -10, 10) with numpy's mean and variance of all rows."""
    rng = np.random.default_rng(seed)
    blocks = [rng.normal([0.0, 50.0, -3.0], [1.0, 7.0, 1e-3], (n, 2, 3)) for n in lengths]
    normalizer = ObservationNormalizer(np.array([True, True, True]))
    for block in blocks:
        normalizer.merge_block(block.astype(np.float32))
    rows = np.concatenate(blocks).astype(np.float32).astype(np.float64).reshape(-1, 3)
    new = np.concatenate([rows[:5], 1e6 + rows[:5], -1e6 + rows[:5]]).astype(np.float32)
    expected = np.clip((new - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-8), -10, 10)
    # mean and scale are rounded to float32: 50 x 2^-24 / 7, or 3 x 2^-24 / 1e-3 = 2e-4
    np.testing.assert_allclose(normalizer(torch.from_numpy(new)), expected, rtol=1e-3, atol=1e-3)


def test_the_first_rollout_is_seen_as_it_is() -> None:
    """Before the first merge mean is 0 and deviation 1; the clip at 10 holds already."""
    normalizer = ObservationNormalizer(np.array([True, False]))
    found = normalizer(torch.tensor([[3.0, 1.0], [-50.0, -50.0]]))
    assert found.tolist() == [[3.0, 1.0], [-10.0, -50.0]]


def test_a_constant_column_becomes_zero() -> None:
    """A measurement that never changes has variance 0: it is centred, not divided by 0."""
    normalizer = ObservationNormalizer(np.array([True]))
    normalizer.merge_block(np.full((10, 2, 1), 7.0, dtype=np.float32))
    assert normalizer(torch.tensor([[7.0]])).tolist() == [[0.0]]


def test_one_hot_numbers_and_bits_pass_unchanged() -> None:
    """Of a nested observation only the Box columns are normalised, whatever was merged."""
    space = DictEnv().observation_space
    layout = ObservationLayout(space)
    columns = layout.box_columns
    # clock (1 number), body: 2 numbers and 2 bits, where: 7 one-hot numbers
    assert columns.sum() == 3
    assert len(columns) == 12
    obs = np.zeros((40, 2, layout.size), dtype=np.float32)
    space.seed(0)
    for row in obs.reshape(-1, layout.size):
        layout.write(space.sample(), row)
    normalizer = ObservationNormalizer(columns)
    normalizer.merge_block(obs)
    found = normalizer(torch.from_numpy(obs)).numpy()
    assert np.array_equal(found[..., ~columns], obs[..., ~columns])
    flat = found[..., columns].reshape(-1, 3)
    np.testing.assert_allclose(flat.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(flat.std(axis=0), 1.0, atol=1e-4)


def test_the_normaliser_travels_in_the_state_dict() -> None:
    """Weights loaded into a fresh policy bring the statistics, and go on merging the same."""
    policy, fresh = (small_policy("box", normalize_obs=True, seed=s) for s in (0, 1))
    first, second = (np.random.default_rng(s).normal(5, 2, (30, 2, 3)) for s in (0, 1))
    policy.merge_observations(torch.from_numpy(first))
    fresh.load_state(policy.state_dict())
    obs = torch.from_numpy(second)
    assert torch.equal(policy.normalize(obs), fresh.normalize(obs))
    for each in (policy, fresh):
        each.merge_observations(obs)
    assert torch.equal(policy.normalize(obs), fresh.normalize(obs))


# --- when they change -----------------------------------------------------------------------------


class FrozenCheck:
    """A sampler that hands out rollouts and remembers how an observation looked meanwhile."""

    def __init__(self, rollouts: list[Rollout]) -> None:
        self.rollouts = rollouts
        self.probe = torch.tensor([[1.0, 2.0, 3.0]])
        self.seen: list[list[float]] = []

    def collect(self, policy: Any, num_steps: int) -> Rollout:
        self.seen.append(policy.normalize(self.probe).reshape(-1).tolist())
        return self.rollouts.pop(0)


def test_statistics_are_frozen_until_the_update_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The update sees observations as the rollout did; what was learnt of them counts afterwards."""
    policy = small_policy("box", normalize_obs=True)
    ppo = learner(policy, num_epochs=3, learning_rate=1e-3)
    sampler = FrozenCheck([random_rollout(policy, seed=0, obs_mean=5.0)])
    during: list[list[float]] = []
    loss = ppo.loss

    def spy(*args: Any) -> Any:
        during.append(policy.normalize(sampler.probe).reshape(-1).tolist())
        return loss(*args)

    monkeypatch.setattr(ppo, "loss", spy)
    rollout = sampler.rollouts[0]
    ppo.iterate(sampler, 0.0)  # type: ignore[arg-type]
    assert sampler.seen == [[1.0, 2.0, 3.0]]
    assert during == [[1.0, 2.0, 3.0]] * len(during)
    assert len(during) == 12
    # afterwards: of the rollout's 64 rows, once
    rows = rollout.obs.double().reshape(-1, 3).numpy()
    expected = (np.array([1.0, 2.0, 3.0]) - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-8)
    np.testing.assert_allclose(policy.normalize(sampler.probe)[0], expected, rtol=1e-5)
    assert policy.normalizer is not None
    assert float(policy.normalizer.moments[0]) == 64


def test_evaluation_does_not_change_the_statistics() -> None:
    """Playing, examining and acting leave count, mean and variance alone; training adds its rows."""
    agent = clipper.PPO(
        "Pendulum-v1", preset="none", num_steps=32, num_envs=2, minibatch_size=32, eval_every=64,
        eval_episodes=1, total_timesteps=128, normalize_obs=True,
    )  # fmt: skip
    counts: list[float] = []

    def count(report: Report) -> None:
        assert report.policy.normalizer is not None
        counts.append(float(report.policy.normalizer.moments[0]))

    agent.train(progress=False, callback=count)
    # periodic evaluations of 200 steps each were made in between
    assert counts == [64.0, 128.0]
    before = agent.policy.state_dict()["normalizer.moments"].clone()
    agent.evaluate(episodes=1)
    agent.act(np.zeros(3, dtype=np.float32), deterministic=False)
    assert torch.equal(agent.policy.state_dict()["normalizer.moments"], before)


# --- rewards --------------------------------------------------------------------------------------


def define_returns(
    rewards: NDArray[Any], done: NDArray[np.bool_], gamma: float
) -> NDArray[np.float64]:
    """G_t by definition: the sum of gamma^(t-s) r_s over the steps s <= t of the same episode."""
    T, N = rewards.shape
    found = np.zeros((T, N))
    for i in range(N):
        for t in range(T):
            for s in range(t, -1, -1):
                if s < t and done[s, i]:
                    break
                found[t, i] += gamma ** (t - s) * rewards[s, i]
    return found


@given(
    lengths=block_lengths,
    num_envs=st.integers(1, 3),
    seed=st.integers(0, 1000),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
def test_reward_scale_is_the_deviation_of_the_discounted_return(
    lengths: list[int], num_envs: int, seed: int, gamma: float
) -> None:
    """G_t = gamma G_{t-1} (1 - done_{t-1}) + r_t goes on across rollouts; the scale is its std.

    The oracle sums each return from its first reward, over all blocks joined into one.
    """
    rng = np.random.default_rng(seed)
    rewards = [rng.normal(3.0, 2.0, (n, num_envs)).astype(np.float32) for n in lengths]
    done = [rng.random((n, num_envs)) < 0.2 for n in lengths]
    scaler = RewardScaler(num_envs, gamma)
    for block, ends in zip(rewards, done, strict=True):
        scaler.merge_block(block, ends)
    joined = np.concatenate(rewards).astype(np.float64)
    returns = define_returns(joined, np.concatenate(done), gamma)
    scale = np.sqrt(returns.var() + 1e-8)
    assert scaler.scale == pytest.approx(scale, rel=1e-9)
    # scaled and clipped, never centred: the sign of a reward stays
    found = scaler(torch.from_numpy(joined)).numpy()
    np.testing.assert_allclose(found, np.clip(joined / scale, -10, 10), rtol=1e-9)
    assert np.array_equal(np.sign(found), np.sign(joined))


def test_rewards_are_clipped_at_ten_deviations() -> None:
    """One reward of 1000 among zeros: Var[G] = 1000^2 (1/400 - 1/400^2), so it is 20 deviations."""
    rewards = np.zeros((400, 1), dtype=np.float32)
    rewards[7] = -1000.0
    scaler = RewardScaler(1, gamma=0.0)
    scaler.merge_block(rewards, np.zeros((400, 1), dtype=bool))
    assert scaler.scale == pytest.approx(1000 * (1 / 400 - 1 / 400**2) ** 0.5)
    assert scaler(torch.from_numpy(rewards)).min() == -10.0


def test_the_very_first_rollout_is_scaled() -> None:
    """Statistics take in a rollout before it is scaled, so that none is learnt from in raw units."""
    policy = small_policy("box")
    ppo = learner(policy, normalize_reward=True, num_epochs=1, gamma=0.9, learning_rate=0.0)
    rollout = random_rollout(policy, reward_mean=500.0)
    metrics = ppo.improve(rollout, 0.0)
    done = (rollout.terminated | rollout.truncated).numpy()
    returns = define_returns(rollout.rewards.double().numpy(), done, 0.9)
    assert metrics["value/reward_scale"] == pytest.approx(np.sqrt(returns.var() + 1e-8))
    # the logged reward stays raw
    assert metrics["rollout/reward_mean"] == pytest.approx(500.0, abs=1.0)


def test_reward_scaling_is_saved_with_its_open_returns() -> None:
    """A restored scaler carries the episode that is under way into the next rollout."""
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=(5, 2)).astype(np.float32) for _ in range(2)]
    running = np.zeros((5, 2), dtype=bool)
    scaler, restored = RewardScaler(2, 0.9), RewardScaler(2, 0.9)
    scaler.merge_block(rewards[0], running)
    restored.load_state_dict(scaler.state_dict())
    for each in (scaler, restored):
        each.merge_block(rewards[1], running)
    assert scaler.scale == restored.scale
    # the saved state is a copy: going on did not change it
    assert scaler.state_dict()["moments"][0] == 20


def test_a_space_without_measurements_has_no_normaliser() -> None:
    """There is nothing to normalise in one-hot numbers: the policy keeps no statistics."""
    layout = ObservationLayout(spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))))
    assert not layout.box_columns.any()
    agent = clipper.PPO("FrozenLake-v1", normalize_obs=True)
    assert agent.policy.normalizer is None


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_statistics_stay_exact_in_a_policy_of_any_type(kind: torch.dtype) -> None:
    """Parameters in another type leave count, mean and deviations in float64."""
    policy = small_policy("box", normalize_obs=True)
    obs = torch.from_numpy(np.random.default_rng(0).normal(1e4, 0.1, (30, 2, 3)))
    policy.merge_observations(obs)
    assert policy.normalizer is not None
    before = policy.normalizer.moments.clone()
    policy.to(kind)
    assert policy.normalizer.mean.dtype == kind
    assert torch.equal(policy.normalizer.moments, before)
    assert policy.normalizer.moments.dtype == torch.float64
