"""Runs of every algorithm that are killed at random instants and go on: the bits of straight ones.

Tasks, algorithms, engines, samplers and settings are combined so that every possible pair of them
occurs. Compared is all that a run leaves but times: parameters, optimiser, normalisers, memory,
environments, counters, best agent, every row of metrics and episodes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from facts import note
from killed_runs import train_killed, train_straight
from run_folders import differences

AXES: dict[str, Sequence[str]] = {
    "task": (
        "CartPole-v1",
        "LunarLander-v3",
        "BipedalWalker-v3",
        "Pendulum-v1",
        "HalfCheetah-v5",
        "DictEnv",
    ),
    "algorithm": ("ppo", "a2c", "a2c trust region", "acer", "vpg", "trpo", "cem"),
    "engine": ("native", "reference"),
    "sampler": ("local", "workers"),
    "settings": ("plain", "normalised"),
}
DISCRETE = ("CartPole-v1", "LunarLander-v3", "DictEnv")
Cell = tuple[str, ...]

COMMON: dict[str, Any] = {
    "preset": "none",
    "seed": 3,
    "num_envs": 3,
    "hidden_sizes": (8,),
    "max_episode_steps": 50,
    "eval_episodes": 1,
}
ROLLOUTS = {"num_steps": 24, "minibatch_size": 36, "num_value_epochs": 2}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {
        "num_steps": 24,
        "minibatch_size": 24,
        "num_epochs": 2,
        "learning_rate": "linear:1e-2:0",
        "clip_range": "linear:0.3:0.1",
    },
    "a2c": {"num_steps": 8, "rollouts_per_iteration": 3, "learning_rate": "linear:1e-2:0"},
    "a2c trust region": {
        "num_steps": 8,
        "rollouts_per_iteration": 3,
        "trust_region": True,
        "trust_region_delta": 0.01,
    },
    # the memory is full after six rollouts
    "acer": {"num_steps": 12, "replay_capacity": 6 * 12, "replay_start": 36},
    "vpg": {**ROLLOUTS, "value_learning_rate": "linear:1e-2:0"},
    "trpo": ROLLOUTS,
    "cem": {"population_size": 5},
}
NUM_ITERATIONS = 24


def is_possible(cell: Cell) -> bool:
    """ACER is for Discrete actions."""
    return cell[1] != "acer" or cell[0] in DISCRETE


CELLS = [cell for cell in itertools.product(*AXES.values()) if is_possible(cell)]


def pairs_of(cell: Cell) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    """Returns the pairs of values, each with its axis, that a cell has."""
    return set(itertools.combinations(enumerate(cell), 2))


def pairwise() -> list[Cell]:
    """Returns cells that together have every pair of values that any cell has, greedily few."""
    missing = set().union(*map(pairs_of, CELLS))
    chosen: list[Cell] = []
    while missing:
        best = max(CELLS, key=lambda cell: len(pairs_of(cell) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen


def settings_of(cell: Cell) -> dict[str, Any]:
    """Returns the settings of a run of some twenty iterations."""
    task, name, engine, sampler, settings = cell
    found = {**COMMON, **ALGORITHMS[name], "env": task, "algorithm": name.partition(" ")[0]}
    rows = 72 if name != "cem" else 5 * 50
    if name == "acer":
        rows = 36
    found["total_timesteps"] = NUM_ITERATIONS * rows
    found["eval_every"] = 5 * rows
    found["engine"] = "auto" if engine == "native" else engine
    if sampler == "workers":
        found["workers"] = 2
    found["normalize_obs"] = settings == "normalised"
    if name != "cem":
        found["normalize_reward"] = settings == "normalised"
    if name == "ppo" and settings == "normalised":
        found |= {"objective": "kl_adaptive", "adaptive_kl_target": 0.003}
    return found


# one of every sampler, engine and kind of settings; the others take minutes
QUICK: list[Cell] = [
    ("CartPole-v1", "ppo", "native", "local", "plain"),
    ("DictEnv", "acer", "reference", "local", "normalised"),
    ("Pendulum-v1", "ppo", "native", "workers", "normalised"),
]
SLOW = [cell for cell in pairwise() if cell not in QUICK]
MATRIX = [*QUICK, *(pytest.param(cell, marks=pytest.mark.slow) for cell in SLOW)]


def test_every_pair_occurs() -> None:
    """Whatever two of a task, an algorithm, an engine, a sampler and settings: some run has both."""
    have = set().union(*map(pairs_of, [*QUICK, *SLOW]))
    assert have == set().union(*map(pairs_of, CELLS))
    assert len(SLOW) < 60


@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: ", ".join(cell))
def test_killed_and_resumed_is_the_straight_run(cell: Cell, tmp_path: Path) -> None:
    """Killed twice by SIGKILL, at random instants, a run ends as the one that nothing befell."""
    settings = settings_of(cell)
    num_iterations = train_straight(tmp_path / "straight", settings)
    assert num_iterations >= 10
    killed = train_killed(tmp_path / "killed", settings, num_iterations, 2, seed=CELLS.index(cell))
    assert differences(tmp_path / "killed", tmp_path / "straight") == [], killed
    note("matrix", kills=len(killed))


KILLS = int(os.environ.get("CLIPPER_KILLS", "60"))
LONG: dict[str, Mapping[str, Any]] = {
    "ppo": settings_of(("CartPole-v1", "ppo", "native", "local", "normalised")),
    "trpo": settings_of(("Pendulum-v1", "trpo", "native", "local", "normalised")),
    "acer": settings_of(("DictEnv", "acer", "native", "local", "normalised")),
}


@pytest.mark.parametrize(
    ("name", "num_kills"),
    [
        ("ppo", 4),
        *(pytest.param(name, KILLS // 3, marks=pytest.mark.slow) for name in LONG),
    ],
)
def test_any_number_of_kills(name: str, num_kills: int, tmp_path: Path) -> None:
    """One run killed again and again, while it is resumed, learns, saves or writes its rows.

    The slow ones take CLIPPER_KILLS kills together, 60 unless told.
    """
    length = 6 * max(num_kills, 10)
    settings = dict(LONG[name])
    settings["total_timesteps"] = settings["total_timesteps"] // NUM_ITERATIONS * length
    num_iterations = train_straight(tmp_path / "straight", settings)
    killed = train_killed(tmp_path / "killed", settings, num_iterations, num_kills, seed=num_kills)
    assert len(killed) == num_kills
    assert differences(tmp_path / "killed", tmp_path / "straight") == [], killed
    note("kills", kills=len(killed))
