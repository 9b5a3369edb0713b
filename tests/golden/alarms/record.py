"""Writes the metrics of healthy runs that tests/unit/test_alarms.py looks through, beside itself.

Presets of these tasks, to their own end (HalfCheetah to a third of it), four digits of the
metrics that the rules look at:

    python tests/golden/alarms/record.py [NAME ...]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from clipper.agents import AGENTS
from clipper.alarm_facts import KEPT
from clipper.training_report import Report

# file, algorithm, environment, seed and what differs from the preset
RUNS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "cartpole-ppo": ("ppo", "CartPole-v1", 1, {}),
    "cartpole-a2c": ("a2c", "CartPole-v1", 1, {}),
    "cartpole-acer": ("acer", "CartPole-v1", 1, {}),
    "cartpole-vpg": ("vpg", "CartPole-v1", 1, {}),
    "cartpole-trpo": ("trpo", "CartPole-v1", 1, {}),
    "cartpole-cem": ("cem", "CartPole-v1", 1, {}),
    "pendulum-ppo": ("ppo", "Pendulum-v1", 1, {}),
    "lunarlander-ppo": ("ppo", "LunarLander-v3", 1, {}),
    # explores with wide noise, most of it outside the bounds
    "mountaincarcontinuous-ppo": ("ppo", "MountainCarContinuous-v0", 1, {}),
    "halfcheetah-ppo": ("ppo", "HalfCheetah-v5", 1, {"total_timesteps": 300_000}),
}


def record(name: str) -> None:
    """Trains and writes NAME.csv."""
    algorithm, env, seed, settings = RUNS[name]
    rows: list[dict[str, str]] = []

    def keep(report: Report) -> None:
        found = {k: f"{report.metrics[k]:.4g}" for k in KEPT if k in report.metrics}
        rows.append({"step": str(report.step), "progress": f"{report.progress:.4g}", **found})

    AGENTS[algorithm](env, seed=seed, **settings).train(progress=False, callback=keep)
    with open(Path(__file__).with_name(f"{name}.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "progress", *KEPT], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    for name in sys.argv[1:] or RUNS:
        record(name)
