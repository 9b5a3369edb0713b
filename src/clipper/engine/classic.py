"""Gymnasium's classic tasks in C: their ids in, the shared libraries that hold them out."""

from __future__ import annotations

from pathlib import Path

from clipper.engine.kernels import ABSENCE
from clipper.errors import ConfigError

CLASSIC = {
    "Acrobot-v1": "acrobot",
    "CartPole-v1": "cartpole",
    "MountainCar-v0": "mountain_car",
    "Pendulum-v1": "pendulum",
}


def classic_library(env_id: str) -> Path:
    """Returns the library that steps as Gymnasium's environment of that id does, to the same bits.

    Raises:
        ConfigError: There is none.
    """
    if env_id not in CLASSIC:
        raise ConfigError(
            f"vectorization native needs a shared library or one of {', '.join(CLASSIC)}, "
            f"but the environment is {env_id}.",
            hint="docs/tutorials/own-game-in-c.md shows how a game of your own becomes a library.",
        )
    if ABSENCE is not None:
        raise ConfigError(f"vectorization native needs the native engine, but {ABSENCE}.")
    import clipper.engine._native as _native

    # the libraries lie beside the extension, which is not where the sources are when those are edited
    return Path(str(_native.__file__)).parent / "classic_tasks" / f"{CLASSIC[env_id]}.so"
