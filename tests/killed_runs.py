"""Runs in processes of their own that are killed at random instants and go on from their folders.

The processes are forked from a server that has imported torch, so that one starts within
milliseconds. They know nothing of each other but the run folder.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import clipper
from clipper.agent import Agent
from clipper.agents import AGENTS
from clipper.checkpoint import checkpoints_in
from helpers import DictEnv

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "clipper.loading",
        "gymnasium.envs.box2d",
        "gymnasium.envs.mujoco",
        *(f"clipper.algorithms.{name}" for name in AGENTS),
    ]
)
# after every iteration, or every 50 ms
OFTEN = ({"checkpoint_every": 1}, {"checkpoint_every": 1}, {"checkpoint_minutes": 0.05 / 60})
ENVS = {"DictEnv": DictEnv}
# longer than any of these runs takes, killed or not
_PATIENCE_SECONDS = 200.0


# a curve takes longer to draw than such a run
no_curve = patch("clipper.run_keeper.plot_run", lambda *_: None)


def agent_for(settings: Mapping[str, Any], **how: Any) -> Agent:
    """Returns a new agent; `algorithm` and `env` are among its settings."""
    given = {**settings, **how}
    env = given.pop("env")
    return AGENTS[given.pop("algorithm")](ENVS.get(env, env), **given)


@no_curve
def train(folder: Path, settings: Mapping[str, Any], checkpoints: Mapping[str, Any]) -> None:
    """Begins a run or goes on with it, to its end; runs in a process of its own."""
    torch.set_num_threads(1)
    if checkpoints_in(folder / "checkpoints"):
        how = {"env": ENVS.get(settings["env"]), "workers": settings.get("workers", 0)}
        agent = clipper.resume(folder, **how)
        agent.train(progress=False, **checkpoints)
    else:
        # killed before its first checkpoint, at step 0
        shutil.rmtree(folder, ignore_errors=True)
        agent = agent_for(settings)
        agent.train(progress=False, run_dir=folder, **checkpoints)
    agent.close()


@no_curve
def train_straight(folder: Path, settings: Mapping[str, Any]) -> int:
    """Trains a run at one go, in this process, and returns its iterations."""
    agent = agent_for(settings)
    agent.train(progress=False, run_dir=folder)
    agent.close()
    return num_rows(folder)


def num_rows(folder: Path) -> int:
    """Returns the iterations whose rows stand in a run's `metrics.csv`."""
    try:
        return max((folder / "metrics.csv").read_bytes().count(b"\n") - 1, 0)
    except FileNotFoundError:
        return 0


def train_killed(
    folder: Path,
    settings: Mapping[str, Any],
    num_iterations: int,
    num_kills: int,
    seed: int,
) -> list[int]:
    """Trains a run to its end in processes of which all but the last are killed by SIGKILL.

    A fifth of the kills comes at any instant of the first tenth of a second, while the run is being
    resumed; the others within 20 ms after a random iteration of those that are left has written its
    row: while it saves, collects or learns.

    Args:
        folder: The run's.
        settings: Of the run.
        num_iterations: How many it has in all.
        num_kills: How many processes to kill.
        seed: Of the instants.

    Returns:
        Iterations that had been written at each kill.
    """
    rng = random.Random(seed)
    written: list[int] = []
    while len(written) < num_kills:
        process = _start(folder, settings, rng.choice(OFTEN))
        if rng.random() < 0.2:
            process.join(rng.uniform(0.0, 0.1))
        else:
            left = num_iterations - num_rows(folder)
            some = max(1, left // (num_kills - len(written) + 1))
            _wait_for_rows(process, folder, num_rows(folder) + rng.randint(1, some))
            process.join(rng.uniform(0.0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"seed {seed}, {written}: not killed in time"
        written.append(num_rows(folder))
    process = _start(folder, settings, {})
    process.join(_PATIENCE_SECONDS)
    assert process.exitcode == 0, f"seed {seed}, {written}: it did not go on to its end"
    return written


def _start(
    folder: Path, settings: Mapping[str, Any], checkpoints: Mapping[str, Any]
) -> ForkServerProcess:
    process = _SERVER.Process(target=train, args=(folder, settings, checkpoints), daemon=True)
    process.start()
    return process


def _wait_for_rows(process: ForkServerProcess, folder: Path, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while num_rows(folder) < count and process.is_alive():
        assert time.monotonic() < deadline, f"{num_rows(folder)} rows, not {count}"
        time.sleep(0.001)
