"""Laws of libraries as Gymnasium vector environments."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_what_goes_wrong_is_told() -> None:
    """A step that fails, a seed that is a list, an environment that cannot be created."""
    env = LibraryVectorEnv(walk("FAIL_AT=1"), 2)
    env.reset(seed=1)
    with pytest.raises(EnvironmentFault, match=r"the floor is missing at \d \(environment 0\)"):
        env.step(env.action_space.sample())
    with pytest.raises(ConfigError, match="seed must be one whole number"):
        env.reset(seed=[1, 2])
    with pytest.raises(EnvironmentFault, match="refused"):
        LibraryVectorEnv(walk(), 2, refuse=1)
