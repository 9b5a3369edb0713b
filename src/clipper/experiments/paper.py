"""The studies of the PPO paper (Schulman et al. 2017, arXiv 1707.06347) as lists of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipper.experiments.runs import RunSpec
from clipper.presets import MUJOCO_TASKS

NUM_SEEDS = 3
"""Seeds of every setting on every task, section 6.1."""

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


def table1_runs(
    tasks: Sequence[str] = MUJOCO_TASKS,
    num_seeds: int = NUM_SEEDS,
    total_timesteps: int | None = None,
) -> list[RunSpec]:
    """Returns the runs of Table 1: 11 settings x 7 tasks x 3 seeds, all settings on a seed first.

    Args:
        tasks: Environments with a `paper/...` preset.
        num_seeds: Seeds 0, 1, ... of every setting on every task.
        total_timesteps: Steps of each run, or None for the paper's million.
    """
    shared: dict[str, Any] = {"eval_every": 0}
    if total_timesteps is not None:
        shared["total_timesteps"] = total_timesteps
    return [
        RunSpec(
            setting=name, env=task, seed=seed, preset=f"paper/{task}", settings={**shared, **values}
        )
        for seed in range(num_seeds)
        for task in tasks
        for name, values in TABLE1.items()
    ]
