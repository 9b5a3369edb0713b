"""Laws of the check that what a run needs fits into the machine."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import clipper
from clipper.action_layout import ActionLayout
from clipper.config import Config
from clipper.config_acer import ACERConfig
from clipper.config_ppo import PPOConfig
from clipper.errors import ConfigError
from clipper.memory_need import check_memory
from clipper.spaces import ObservationLayout

OBS = ObservationLayout(gymnasium.spaces.Box(-1, 1, (10,), np.float32))
ACTION = ActionLayout(gymnasium.spaces.Box(-1, 1, (3,), np.float32))
# 10 + 3 numbers and a reward of 4 bytes, and two flags
ROW = 4 * 14 + 2


def needs(config: Config, available: float) -> bool:
    """Returns whether it is refused with so many bytes."""
    try:
        check_memory(config, OBS, ACTION, available)
    except ConfigError:
        return True
    return False


@pytest.mark.parametrize(
    ("config", "need"),
    [
        (PPOConfig(num_steps=1000, num_envs=4), 4000 * ROW),
        (PPOConfig(num_steps=1, num_envs=1000, minibatch_size=1000), 1000 * 1024),
        # weights and biases between two layers, and what the first has at least; Adam's vectors too
        (PPOConfig(hidden_sizes=(500, 400)), 16 * (501 * 400 + 500)),
        (PPOConfig(value_hidden_sizes=(500, 400)), 16 * (501 * 400 + 500)),
        (ACERConfig(num_envs=4, replay_capacity=10_000, total_timesteps=10**6), 40_000 * ROW),
        # it is never full
        (ACERConfig(num_envs=4, replay_capacity=10_000, total_timesteps=20_000), 20_000 * ROW),
    ],
)
def test_the_largest_part_counts(config: Any, need: int) -> None:
    """Counted by hand: one byte less than it is refused, as much is not."""
    assert needs(config, need - 1)
    assert not needs(config, need)


def test_it_is_told_what_to_lower() -> None:
    """Before a folder or an environment is made."""
    with pytest.raises(ConfigError, match=r"num_steps 1000000000 and num_envs 8 need") as caught:
        clipper.PPO("CartPole-v1", preset="none", num_steps=10**9, num_envs=8)
    assert caught.value.hint == "lower num_steps or num_envs."
