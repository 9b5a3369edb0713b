"""The studies of the PPO paper (Schulman et al. 2017, arXiv 1707.06347) as lists of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipper.experiments.runs import RunSpec
from clipper.presets import MUJOCO_TASKS

NUM_SEEDS = 3
"""Seeds of every setting on every task, section 6.1."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of a study is run.

    Attributes:
        tasks: Environments with a `paper/...` preset.
        num_seeds: Seeds 0, 1, ... of every setting on every task.
        total_timesteps: Steps of each run, or None for the paper's million.
        about: In words, for the command line.
    """

    tasks: Sequence[str]
    num_seeds: int
    total_timesteps: int | None
    about: str


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        tasks=("InvertedPendulum-v5", "Hopper-v5"),
        num_seeds=1,
        total_timesteps=4096,
        about="2 tasks, 1 seed, 4,096 steps: does it run?",
    ),
    "small": Scale(
        tasks=("InvertedPendulum-v5", "Reacher-v5", "HalfCheetah-v5"),
        num_seeds=NUM_SEEDS,
        total_timesteps=None,
        about="3 tasks, 3 seeds, 1 M steps",
    ),
    "full": Scale(
        tasks=MUJOCO_TASKS,
        num_seeds=NUM_SEEDS,
        total_timesteps=None,
        about="7 tasks, 3 seeds, 1 M steps: the paper's study",
    ),
}

TABLE1: Mapping[str, Mapping[str, Any]] = {
    "no clipping or penalty": {"objective": "cpi"},
    "clip 0.1": {"objective": "clip", "clip_range": 0.1},
    "clip 0.2": {"objective": "clip", "clip_range": 0.2},
    "clip 0.3": {"objective": "clip", "clip_range": 0.3},
    **{
        f"adaptive KL {target:g}": {"objective": "kl_adaptive", "adaptive_kl_target": target}
        for target in (0.003, 0.01, 0.03)
    },
    **{
        f"fixed KL {coef:g}": {"objective": "kl_fixed", "kl_coef": coef}
        for coef in (0.3, 1.0, 3.0, 10.0)
    },
}
"""The eleven settings of Table 1."""

TABLE1_BEST = "clip 0.2"
"""The setting that the paper chose by Table 1."""

RAW: Mapping[str, Mapping[str, Any]] = {
    "clip 0.2, not normalised": {
        **TABLE1[TABLE1_BEST],
        "normalize_obs": False,
        "normalize_reward": False,
    }
}
"""The other choice for one row: the paper does not say whether observations are normalised."""


def table1_runs(
    tasks: Sequence[str] = MUJOCO_TASKS,
    num_seeds: int = NUM_SEEDS,
    total_timesteps: int | None = None,
    *,
    has_raw: bool = False,
) -> list[RunSpec]:
    """Returns the runs of Table 1: 11 settings x 7 tasks x 3 seeds, all settings on a seed first.

    Args:
        tasks: Environments with a `paper/...` preset.
        num_seeds: Seeds 0, 1, ... of every setting on every task.
        total_timesteps: Steps of each run, or None for the paper's million.
        has_raw: With one setting more, `RAW`.
    """
    shared: dict[str, Any] = {"eval_every": 0}
    if total_timesteps is not None:
        shared["total_timesteps"] = total_timesteps
    settings = {**TABLE1, **(RAW if has_raw else {})}
    return [
        RunSpec(
            setting=name, env=task, seed=seed, preset=f"paper/{task}", settings={**shared, **values}
        )
        for seed in range(num_seeds)
        for task in tasks
        for name, values in settings.items()
    ]
