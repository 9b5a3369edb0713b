"""Laws of libraries as Gymnasium vector environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from clipper.engine.library_vector import LibraryVectorEnv
from clipper.envs.library import LibraryEnv
from clipper.errors import ConfigError, EnvironmentFault
from clipper.randomness import EpisodeSeeds
from libraries import NEEDS_ENGINE, walk

pytestmark = NEEDS_ENGINE


@pytest.mark.parametrize("macros", [(), ("BOX",)])
def test_many_are_as_one_by_one(macros: tuple[str, ...]) -> None:
    """Each does what a single one does with the episode's seed; endings come in the same step."""
    many = LibraryVectorEnv(walk(*macros), 3, max_episode_steps=12)
    many.action_space.seed(1)
    ones = [LibraryEnv(walk(*macros)) for _ in range(3)]
    seeds, episodes, clocks = EpisodeSeeds(7), [0, 0, 0], [0, 0, 0]
    obs, _ = many.reset(seed=7)
    expected = [one.reset(seed=seeds.of(i, 0))[0] for i, one in enumerate(ones)]
    endings = 0
    for _ in range(100):
        assert many.observation_space.contains(obs)
        np.testing.assert_array_equal(obs, np.stack(expected))
        actions = many.action_space.sample()
        obs, rewards, terminated, truncated, infos = many.step(actions)
        for i, one in enumerate(ones):
            clocks[i] += 1
            expected[i], reward, is_terminated, is_truncated, _ = one.step(actions[i])
            assert rewards[i] == np.float32(reward)
            assert terminated[i] == is_terminated
            assert truncated[i] == (is_truncated or clocks[i] == 12)
            if is_terminated or truncated[i]:
                assert infos["_final_obs"][i]
                np.testing.assert_array_equal(infos["final_obs"][i], expected[i])
                episodes[i], clocks[i] = episodes[i] + 1, 0
                expected[i] = one.reset(seed=seeds.of(i, episodes[i]))[0]
                endings += 1
    assert endings > 10
    many.close()


def test_nothing_is_stepped_that_was_not_reset() -> None:
    """A library's step may rely on its reset; an action between two categories is none."""
    env = LibraryVectorEnv(walk(), 3)
    with pytest.raises(gymnasium.error.ResetNeeded, match="environment 0 must be reset"):
        env.step(np.zeros((3, 2), np.int64))
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(gymnasium.error.ResetNeeded, match="environment 1 must be reset"):
        env.step(np.zeros((3, 2), np.int64))
    env.reset(options={"reset_mask": np.array([False, True, False])})
    env.step(np.zeros((3, 2), np.int64))
    with pytest.raises(EnvironmentFault, match="must be of shape"):
        env.step(np.zeros(3, np.int64))
    with pytest.raises(EnvironmentFault, match="must belong to"):
        env.step(np.full((3, 2), 0.5))
    env.step(np.ones((3, 2)))
    env.close()


def test_what_goes_wrong_is_told() -> None:
    """A step that fails, an environment that cannot be created."""
    env = LibraryVectorEnv(walk("FAIL_AT=1"), 2)
    env.reset(seed=1)
    with pytest.raises(EnvironmentFault, match=r"the floor is missing at \d \(environment 0\)"):
        env.step(env.action_space.sample())
    with pytest.raises(EnvironmentFault, match="refused"):
        LibraryVectorEnv(walk(), 2, refuse=1)


@pytest.mark.parametrize(
    "seed",
    [-1, 2**64, 1.0, "1", "12", [1], [1, 2, 3], [1, -1], [1, 0.5], [[1], [2, 3]], np.array(0.5)],
)
def test_a_seed_that_is_none(seed: Any) -> None:
    """Neither a whole number nor one for each environment."""
    env = LibraryVectorEnv(walk(), 2)
    with pytest.raises(ConfigError, match="seed must be"):
        env.reset(seed=seed)


def played(env: LibraryVectorEnv, seed: Any) -> NDArray[Any]:
    """Returns the observations of 40 steps in 2 environments, [41, 2, ...], of several episodes."""
    env.action_space.seed(0)
    found = [env.reset(seed=seed)[0]]
    found += [env.step(env.action_space.sample())[0] for _ in range(40)]
    return np.stack(found)


def test_whole_numbers_of_any_kind_are_seeds() -> None:
    """As Gymnasium has it: numpy's too, and one for each environment."""
    env = LibraryVectorEnv(walk("BOX"), 2, max_episode_steps=12)
    first, second = played(env, 3), played(env, 4)
    assert not np.array_equal(first, second)
    for seed in (
        np.int64(3),
        np.uint64(3),
        np.array(3),
        [3, 3],
        (3, np.int32(3)),
        np.array([3, 3]),
    ):
        np.testing.assert_array_equal(played(env, seed), first)
    mixed = played(env, [3, 4])
    np.testing.assert_array_equal(mixed[:, 0], first[:, 0])
    np.testing.assert_array_equal(mixed[:, 1], second[:, 1])
    np.testing.assert_array_equal(played(LibraryVectorEnv(walk("BOX"), 2, 12), [3, 4]), mixed)


def test_who_is_given_no_seed_goes_on() -> None:
    """With the next episode of the seed it had, beside one that begins anew."""
    one, other = (LibraryVectorEnv(walk("BOX"), 2) for _ in range(2))
    first, _ = one.reset(seed=3)
    other.reset(seed=3)
    seen, _ = one.reset(seed=[3, None])
    going_on, _ = other.reset()
    np.testing.assert_array_equal(seen[0], first[0])
    np.testing.assert_array_equal(seen[1], going_on[1])
    assert not np.array_equal(seen[1], first[1])


@pytest.mark.parametrize("seed", [None, 5, [5, 6, 7]])
def test_a_mask_names_who_begins_anew(seed: Any) -> None:
    """As in Gymnasium: the others' episodes go on as if nothing had happened."""
    mask = np.array([False, True, False])
    masked, other = (LibraryVectorEnv(walk("BOX"), 3) for _ in range(2))
    masked.action_space.seed(2)
    rounds = [masked.action_space.sample() for _ in range(8)]
    for env in (masked, other):
        env.reset(seed=3)
        for actions in rounds[:4]:
            before = env.step(actions)[0]
    seen, _ = masked.reset(seed=seed, options={"reset_mask": mask})
    np.testing.assert_array_equal(seen[~mask], before[~mask])
    expected, _ = other.reset(seed=seed)
    np.testing.assert_array_equal(seen[1], expected[1])
    assert not np.array_equal(seen[1], before[1])
    for actions in rounds[4:]:
        seen, rewards, *_ = masked.step(actions)
        expected, expected_rewards, *_ = other.step(actions)
        np.testing.assert_array_equal(seen[1], expected[1])
        assert rewards[1] == expected_rewards[1]


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.array([True]), np.zeros(2, dtype=bool), None]
)
def test_a_mask_that_is_none(mask: Any) -> None:
    """One bool for each environment, and at least one of them true."""
    env = LibraryVectorEnv(walk(), 2)
    env.reset(seed=1)
    with pytest.raises(ConfigError, match="reset_mask must be"):
        env.reset(options={"reset_mask": mask})
