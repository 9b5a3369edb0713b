"""An environment and the settings in, how many worker processes pay out: measured in 0.1 s."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from clipper.config import Config
from clipper.cores import num_cores
from clipper.engine.native_envs import NativeEnvs, step_envs
from clipper.envs.make import EnvSource
from clipper.envs.vector import VectorEnv
from clipper.randomness import EpisodeSeeds

# what a worker costs: the seconds its start takes
_START_SECONDS = 3.0
_MEASURE_SECONDS = 0.1
# with what it takes to make and to reset an environment; if that is more, it is stepped once
_MOST_SECONDS = 0.2
# steps that are played at once
_MOST_ROWS = 64


def choose_workers(
    source: EnvSource, config: Config, vectorization: str = "gymnasium"
) -> tuple[int, str]:
    """Returns how many workers pay, and why in words.

    Args:
        source: Where the environments come from.
        config: The settings: how many environments, how many steps.
        vectorization: See `clipper.engine.native_envs.is_native`.
    """
    cores = num_cores()
    most = min(cores, config.num_envs) - 1
    if source.instance is not None:
        return 0, "env is an instance"
    if most < 1:
        return 0, "one core" if cores == 1 else "one environment"
    seconds = _step_seconds(source, vectorization)
    saved = seconds * config.total_timesteps * most / (most + 1)
    found = f"a step takes {_microseconds(seconds)} us, so {most} would save about {saved:.0f} s"
    return (most if saved > _START_SECONDS else 0), found


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-5 else f"{seconds * 1e6:.0f}"


def _step_seconds(source: EnvSource, vectorization: str) -> float:
    """Returns what a step of one environment takes, with random actions and the loop of a run.

    It is told within `_MOST_SECONDS`, or as soon as an environment is made, reset and stepped once.
    """
    started = time.perf_counter()
    envs = step_envs(source, 1, EpisodeSeeds(0), 0, vectorization)
    try:
        play = _player(envs)
        envs.reset()
        begun = time.perf_counter()
        most = min(_MEASURE_SECONDS, started + _MOST_SECONDS - begun)
        count = size = 0
        while True:
            count += play(max(1, size))
            elapsed = time.perf_counter() - begun
            if elapsed >= most:
                return elapsed / count
            # twice as many as until now, but no more than there is time for
            size = min(2 * count, _MOST_ROWS, int((most - elapsed) * count / elapsed))
    finally:
        envs.close()


def _player(envs: VectorEnv | NativeEnvs) -> Callable[[int], int]:
    """Returns what plays up to so many steps in one environment as a run does, and says how many.

    The actions are drawn before, as those of a run are where it is not the environment's time.
    """
    layout = envs.action_layout
    shape = (_MOST_ROWS, 1, layout.size)
    generator = np.random.default_rng(0)
    if layout.is_continuous:
        actions = generator.uniform(-1.0, 1.0, shape).astype(layout.dtype)
    else:
        high = np.array(layout.num_categories or [2] * layout.size)
        actions = generator.integers(0, high, shape).astype(layout.dtype)
    if isinstance(envs, NativeEnvs):
        return lambda size: envs.advance(0, actions[:size, 0])
    obs = np.empty((_MOST_ROWS, 1, envs.obs_layout.size), dtype=envs.obs_layout.row_type)
    rewards = np.empty((_MOST_ROWS, 1), dtype=np.float32)
    terminated, truncated = np.zeros((2, _MOST_ROWS, 1), dtype=np.bool_)

    def play(size: int) -> int:
        terminated[:] = truncated[:] = False
        rows = slice(size)
        columns = (rewards[rows], terminated[rows], truncated[rows])
        envs.collect(lambda t: None, obs[rows], actions[rows], *columns)
        return size

    return play
