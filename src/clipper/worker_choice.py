"""An environment and the settings in, how many worker processes pay out: measured in 0.1 s."""

from __future__ import annotations

import os
import time

import numpy as np

from clipper.config import Config
from clipper.engine.native_envs import step_envs
from clipper.envs.make import EnvSource
from clipper.randomness import EpisodeSeeds

# what a worker costs: the seconds its start takes
_START_SECONDS = 3.0
_MEASURE_SECONDS = 0.1


def choose_workers(
    source: EnvSource, config: Config, vectorization: str = "gymnasium"
) -> tuple[int, str]:
    """Returns how many workers pay, and why in words.

    Args:
        source: Where the environments come from.
        config: The settings: how many environments, how many steps.
        vectorization: See `clipper.engine.native_envs.is_native`.
    """
    cores = _num_cores()
    most = min(cores, config.num_envs) - 1
    if source.instance is not None:
        return 0, "env is an instance"
    if most < 1:
        return 0, "one core" if cores == 1 else "one environment"
    seconds = _step_seconds(source, vectorization)
    saved = seconds * config.total_timesteps * most / (most + 1)
    found = f"a step takes {seconds * 1e6:.0f} us, so {most} would save about {saved:.0f} s"
    return (most if saved > _START_SECONDS else 0), found


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _step_seconds(source: EnvSource, vectorization: str) -> float:
    """Returns what a step of one environment takes, with random actions."""
    envs = step_envs(source, 1, EpisodeSeeds(0), 0, vectorization)
    try:
        layout = envs.action_layout
        size = (1, layout.size)
        generator = np.random.default_rng(0)
        high = np.array(layout.num_categories or [2] * layout.size)
        rewards, flags = np.empty(1, dtype=np.float32), np.zeros((2, 1), dtype=np.bool_)
        envs.reset()
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _MEASURE_SECONDS:
            if layout.is_continuous:
                actions = generator.uniform(-1.0, 1.0, size).astype(layout.dtype)
            else:
                actions = generator.integers(0, high, size).astype(layout.dtype)
            flags[:] = False
            envs.step(actions, rewards, flags[0], flags[1])
            count += 1
        return elapsed / count
    finally:
        envs.close()
