"""Laws of what looks through rollouts: the first number that is wrong is named, and its place."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from clipper.block_checks import BoundsWatch, check_finite
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import env_source
from clipper.errors import NumericsError
from clipper.spaces import ObservationLayout
from helpers import DictEnv, policy_for, random_rollout, small_policy
from libraries import NEEDS_ENGINE


def test_the_first_step_is_named_whatever_went_wrong_later() -> None:
    """A reward of row 5 comes before an observation of row 6, and the environment before the policy."""
    policy = small_policy("discrete", dtype=torch.float32)
    rollout = random_rollout(policy, end_rate=0.0)
    rollout.values[2, 0] = torch.nan
    rollout.obs[6, 1, 2] = torch.inf
    rollout.rewards[5, 3] = -torch.inf
    with pytest.raises(NumericsError) as caught:
        check_finite(rollout, policy, [0, 1, 2, 3], [10, 11, 12, 13], first_env=4)
    message = (
        "every reward must be finite, but is -inf (or too large for float32) in step 19 of episode 3 "
        "of environment 7."
    )
    assert caught.value.message == message
    rollout.rewards[5, 3] = 0.0
    with pytest.raises(
        NumericsError,
        match=r"observation .* inf \(or too large for float32\) in column 2 after step 17 of episode 1",
    ):
        check_finite(rollout, policy, [0, 1, 2, 3], [10, 11, 12, 13])
    rollout.obs[6, 1, 2] = 0.0
    with pytest.raises(NumericsError, match="every value must be finite, but is nan in step 13 of"):
        check_finite(rollout, policy, [0, 1, 2, 3], [10, 11, 12, 13])
    rollout.values[2, 0] = 0.0
    check_finite(rollout, policy, [0, 1, 2, 3], [10, 11, 12, 13])


class Stray(DictEnv):
    """A clock that goes on to 20, in a space that ends at 5."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict(
            {**self.observation_space.spaces, "clock": spaces.Box(0.0, 5.0, (1,))}
        )


@pytest.mark.parametrize("engine", ["reference", pytest.param("native", marks=NEEDS_ENGINE)])
def test_observations_outside_their_bounds_are_told_of_once(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Part, number, bounds, environment, episode and step of the first one; then no more."""
    policy = policy_for(Stray, engine)
    sampler = local_sampler(env_source(Stray), range(2), 3, "gymnasium")
    with caplog.at_level(logging.WARNING, "clipper"):
        for _ in range(3):
            sampler.collect(policy, 40)
    (record,) = caplog.records
    text = record.getMessage()
    # the first observation with a clock of 6 is acted on in step 7
    assert "column 0 of part 'clock' is 6, outside 0 to 5 (environment" in text
    assert ", step 7)" in text


@pytest.mark.parametrize("engine", ["reference", pytest.param("native", marks=NEEDS_ENGINE)])
def test_the_first_number_outside_is_found(engine: str) -> None:
    """As a search number by number says, for random blocks and bounds, on them and just beyond."""
    policy = policy_for("CartPole-v1", engine)
    rng = np.random.default_rng(0)
    for trial in range(200):
        obs = rng.integers(-4, 5, (6, 2, 5)).astype(np.float32)
        low = rng.choice([-np.inf, -4.0, -3.0], 5).astype(np.float32)
        high = rng.choice([np.inf, 4.0, 3.0], 5).astype(np.float32)
        if trial % 2:
            obs[rng.integers(6), rng.integers(2), 0] = np.nextafter(high[0], np.float32(np.inf))
        outside = [
            k for k, x in enumerate(obs.ravel().tolist()) if x < low[k % 5] or x > high[k % 5]
        ]
        expected = outside[0] if outside else None
        assert policy.first_outside(torch.from_numpy(obs), low, high) == expected


def test_bounds_of_every_space() -> None:
    """Only a Box has bounds to leave; those too large for float32 are none."""
    space = spaces.Dict(
        {
            "a": spaces.Discrete(3),
            "b": spaces.Box(np.array([-1.0, -1e300]), np.array([2.0, 1e300]), dtype=np.float64),
            "c": spaces.MultiBinary(1),
        }
    )
    low, high = ObservationLayout(space).bounds
    inf = np.inf
    assert low.tolist() == [-inf, -inf, -inf, -1.0, -inf, -inf]
    assert high.tolist() == [inf, inf, inf, 2.0, inf, inf]


def test_without_bounds_nothing_is_looked_at() -> None:
    """A space without bounds costs nothing."""

    class Never:
        def first_outside(self, *_: Any) -> int:
            raise AssertionError

    watch = BoundsWatch(ObservationLayout(spaces.Box(-np.inf, np.inf, (2,))))
    rollout = random_rollout(small_policy("discrete", obs_size=2, dtype=torch.float32))
    watch.look(rollout, Never(), 0)  # type: ignore[arg-type]
