"""What an agent is, apart from its weights: environment, preset, seed and settings."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper.config import Config
from clipper.envs.make import EnvSource
from clipper.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an agent is, apart from its weights; written into every file of it.

    Attributes:
        env: Name of the environment, its arguments, its step limit, and whether the name is enough.
        preset: Name of the preset the settings came from.
        seed: The run's seed.
        config: The settings.
        has_module: True if the network is a module of the user's.
        algorithm: Name of what trains it, as in `CONFIGS`.
    """

    env: Mapping[str, Any]
    preset: str
    seed: int
    config: Config
    has_module: bool
    algorithm: str = "ppo"


def describe_env(source: EnvSource) -> dict[str, Any]:
    """Returns what an agent file says of its environment, and names what it cannot hold."""
    kwargs, lost = {}, []
    for name, value in source.env_kwargs.items():
        try:
            kwargs[name] = _as_data(value)
        except ValueError:
            lost.append(name)
    lost += [f"wrapper {getattr(w, '__name__', type(w).__name__)}" for w in source.wrappers]
    found = {
        "name": source.name,
        "kwargs": kwargs,
        "max_episode_steps": source.max_episode_steps,
        "is_named": source.is_named,
    }
    return {**found, "lost": lost} if lost else found


def _as_data(value: Any) -> Any:
    """Returns an argument as JSON has it, numbers of numpy as Python's.

    Raises:
        ValueError: JSON has nothing that would come back as the same; a tuple comes back as a list.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_as_data(each) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _as_data(each) for key, each in value.items()}
    is_number = isinstance(value, int | float) and math.isfinite(value)
    if value is None or is_number or isinstance(value, str):
        return value
    raise ValueError


def check_seed(seed: Any) -> int:
    """Returns a run's seed if it is one.

    Raises:
        ConfigError: It is not a whole number from 0 to 2^63 - 1.
    """
    is_whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not is_whole or not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be a whole number from 0 to 2^63 - 1, but is {seed!r}.")
    # numpy's numbers are numbers too, but JSON and Philox take Python's
    return int(seed)
