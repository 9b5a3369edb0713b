"""Tuned settings of VPG, TRPO and CEM per environment id, as data; `clipper.presets` makes them presets.

Sources as there, and [B] OpenAI's baselines for TRPO (MuJoCo), [H] the implementation that the PPO
paper names for its figure 3; [C] is Clipper's own tuning on seeds from 1000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, Mapping[str, Any], str]

_PLAIN = {"normalize_obs": False, "normalize_reward": False}
_SCALED = {"normalize_obs": True, "normalize_reward": True}
_PENDULUM = {
    "total_timesteps": 200_000,
    "num_envs": 4,
    "gamma": 0.9,
    "gae_lambda": 0.95,
    "normalize_obs": False,
    "normalize_reward": True,
}
_MUJOCO = {"total_timesteps": 1_000_000, "num_envs": 8, "num_steps": 256, **_SCALED}
_TASKS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)


def _far_sighted(task: str) -> dict[str, float]:
    """Returns the discount that Swimmer needs; with 0.99 it does not look beyond one stroke."""
    return {"gamma": 0.9999} if task == "Swimmer-v5" else {}


VPG_PRESETS: tuple[Row, ...] = (
    (
        "CartPole-v1",
        {
            "total_timesteps": 100_000,
            "num_envs": 8,
            "num_steps": 128,
            "gamma": 0.98,
            "ent_coef": 0.0,
            **_PLAIN,
        },
        "[H] with shorter rollouts [C]",
    ),
    (
        "reinforce/CartPole-v1",
        {
            "total_timesteps": 200_000,
            "num_envs": 1,
            "num_steps": 500,
            "one_episode": True,
            "advantage": "reward_to_go_baseline",
            "normalize_advantage": "none",
            "adaptive_kl_target": None,
            "learning_rate": 3e-3,
            "gamma": 0.98,
            "ent_coef": 0.0,
            "normalize_obs": True,
            "normalize_reward": False,
        },
        "[C]",
    ),
    (
        "Pendulum-v1",
        {**_PENDULUM, "num_steps": 256, "adaptive_kl_target": 0.01, "ent_coef": 0.0},
        "[H] with gamma of [Z], longer steps [C]",
    ),
    *((task, {**_MUJOCO, "ent_coef": 0.0, **_far_sighted(task)}, "[H], [37]") for task in _TASKS),
)

TRPO_PRESETS: tuple[Row, ...] = (
    (
        "CartPole-v1",
        {"total_timesteps": 100_000, "num_envs": 8, "num_steps": 128, "gamma": 0.98, **_PLAIN},
        "[B] with gamma of [Z]",
    ),
    ("Pendulum-v1", {**_PENDULUM, "num_steps": 512}, "[B] with gamma and lambda of [Z]"),
    *((task, {**_MUJOCO, **_far_sighted(task)}, "[B], [37]") for task in _TASKS),
)

CEM_PRESETS: tuple[Row, ...] = (
    (
        "CartPole-v1",
        {"total_timesteps": 100_000, "population_size": 40, "hidden_sizes": (16,)},
        "[C]",
    ),
    *(
        (
            task,
            {
                "total_timesteps": 1_000_000,
                "population_size": 20,
                "elite_fraction": 0.2,
                "initial_std": 0.1,
                "extra_std": "linear:0.05:0",
                "normalize_obs": True,
            },
            "[C]",
        )
        for task in _TASKS
    ),
)
