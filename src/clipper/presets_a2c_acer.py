"""Tuned settings of A2C and ACER per environment id, as data; `clipper.presets` makes them presets.

Sources as there; [C] is Clipper's own tuning on seeds from 1000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, Mapping[str, Any], str]

_PLAIN = {"normalize_obs": False, "normalize_reward": False}
_CONTINUOUS = {"ent_coef": 0.0, "normalize_obs": True, "normalize_reward": True}
_MUJOCO = {
    "total_timesteps": 1_000_000,
    "num_envs": 16,
    "num_steps": 5,
    "learning_rate": "linear:2e-3:0",
    **_CONTINUOUS,
}

A2C_PRESETS: tuple[Row, ...] = (
    (
        "CartPole-v1",
        {
            "total_timesteps": 200_000,
            "num_envs": 8,
            "num_steps": 5,
            "learning_rate": "linear:2e-3:0",
            "ent_coef": 0.0,
            **_PLAIN,
        },
        "[Z] with a larger, annealed step size and two fifths of the steps [C]",
    ),
    *(
        (
            task,
            {**_MUJOCO, **({"gamma": 0.9999} if task == "Swimmer-v5" else {})},
            "[Z] with 16 environments and a larger, annealed step size [C]",
        )
        for task in (
            "HalfCheetah-v5",
            "Hopper-v5",
            "InvertedDoublePendulum-v5",
            "InvertedPendulum-v5",
            "Reacher-v5",
            "Swimmer-v5",
            "Walker2d-v5",
        )
    ),
)

ACER_PRESETS: tuple[Row, ...] = (
    (
        "CartPole-v1",
        {
            "total_timesteps": 100_000,
            "num_envs": 8,
            "num_steps": 20,
            "learning_rate": "linear:2e-3:0",
            "gamma": 0.98,
            "ent_coef": 0.001,
            "replay_capacity": 5_000,
            "replay_start": 2_000,
            **_PLAIN,
        },
        "[C]",
    ),
)
