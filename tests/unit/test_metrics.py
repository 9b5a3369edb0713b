"""Laws of the metrics: each that is written is described, and the reference lists it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from clipper.agents import AGENTS
from clipper.alarms import RULES
from clipper.metrics import DESCRIPTIONS, mean_and_std
from helpers import DictEnv

NAMES = Path(__file__).parents[2] / "docs" / "reference" / "names.md"


def emitted(algorithm: str, env: Any, **settings: Any) -> set[str]:
    """Returns the names of all metrics of a short run."""
    found: set[str] = set()
    if algorithm != "cem":
        settings |= {"num_steps": 64, "normalize_reward": True}
    agent = AGENTS[algorithm](
        env, preset="none", num_envs=2, total_timesteps=1024, eval_every=512, eval_episodes=1,
        max_episode_steps=20, **settings,
    )  # fmt: skip
    agent.train(progress=False, callback=lambda report: found.update(report.metrics) or True)
    return found


RUNS: list[tuple[str, Any, dict[str, Any]]] = [
    # with the KL penalty, and from whole episodes
    ("ppo", "Pendulum-v1", {"objective": "kl_adaptive"}),
    ("ppo", DictEnv, {"advantage": "total_return"}),
    ("a2c", "CartPole-v1", {"trust_region": True, "rollouts_per_iteration": 2}),
    ("acer", "CartPole-v1", {"replay_start": 0}),
    ("vpg", "Pendulum-v1", {}),
    ("trpo", "CartPole-v1", {}),
    ("cem", "CartPole-v1", {"population_size": 4}),
]
# what a run logs where something went wrong; see tests/faults and tests/unit/test_alarms.py
FAULTS = {"rollout/env_faults", "rollout/dropped_episodes"}
FAULTS |= {f"alarm/{rule.__name__.removesuffix('_alarm')}" for rule in RULES}


def test_every_metric_is_described_and_every_description_is_of_one() -> None:
    """Runs of all algorithms, discrete and continuous, write all that is described, nothing else."""
    assert {algorithm for algorithm, _, _ in RUNS} == set(AGENTS)
    found = FAULTS.union(*(emitted(name, env, **settings) for name, env, settings in RUNS))
    assert {name for name in found if not name.startswith("info/")} == set(DESCRIPTIONS)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e160, 1e307])
def test_mean_and_deviation_of_numbers_of_any_size(size: float) -> None:
    """Of 3, 5, 7 and 9 the mean is 6 and the deviation sqrt((9 + 1 + 1 + 9) / 3), times any factor.

    Sums and squares of the largest are beyond what a float holds.
    """
    mean, std = mean_and_std([3.0 * size, 5.0 * size, 7.0 * size, 9.0 * size])
    assert mean == pytest.approx(6.0 * size, rel=1e-12)
    assert std == pytest.approx(math.sqrt(20.0 / 3.0) * size, rel=1e-12)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_reference_lists_every_metric(name: str) -> None:
    """`docs/reference/names.md` has a row that begins with it, with its unit if it has one."""
    rows = [line for line in NAMES.read_text(encoding="utf-8").splitlines() if f"`{name}`" in line]
    table = [row.split("|")[2].strip() for row in rows if row.startswith("| `")]
    assert table
    unit, text = DESCRIPTIONS[name]
    assert text
    assert not unit or any(unit in re.split(r"[ ,]+", cell) for cell in table)
