"""Laws of the classic tasks in C: they are Gymnasium's own, bit for bit."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from clipper.engine import kernels
from clipper.engine.classic import CLASSIC, classic_library
from clipper.envs.make import env_source
from clipper.errors import ConfigError

pytestmark = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))


@pytest.mark.parametrize("env_id", CLASSIC)
def test_they_are_gymnasiums(env_id: str) -> None:
    """Same spaces, limit, starts of a seed, and the same numbers over long random play.

    Random actions are held for a while: so Acrobot swings and MountainCar climbs further.
    """
    ours = env_source(str(classic_library(env_id))).make()
    theirs = gymnasium.make(env_id)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    generator = np.random.default_rng(1)
    steps = 0
    for episode in range(40):
        seed = int(generator.integers(2**31)) if episode else 0
        found, wanted = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        np.testing.assert_array_equal(found, wanted)
        done = False
        hold = 1 + episode % 10
        while not done:
            if steps % hold == 0:
                if isinstance(theirs.action_space, spaces.Discrete):
                    action = generator.integers(theirs.action_space.n)
                else:
                    action = generator.uniform(-2, 2, 1).astype(np.float32)
            found, wanted = ours.step(action), theirs.step(action)
            np.testing.assert_array_equal(found[0], wanted[0])
            assert found[1:4] == wanted[1:4]
            assert isinstance(found[2], bool)
            done = found[2] or found[3]
            steps += 1
    assert steps > 500


def test_others_have_none() -> None:
    """The message names those there are, and the way to a library."""
    with pytest.raises(ConfigError, match=r"Acrobot-v1, CartPole-v1.*but the environment is Lunar"):
        classic_library("LunarLander-v3")
