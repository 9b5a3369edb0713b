"""What an agent is, apart from its weights: environment, preset, seed and settings."""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """Returns what an agent file says of its environment."""
    return {
        "name": source.name,
        "kwargs": dict(source.env_kwargs) if _is_json(source.env_kwargs) else {},
        "max_episode_steps": source.max_episode_steps,
        "is_named": source.is_named,
    }


def _is_json(values: Mapping[str, Any]) -> bool:
    """True for arguments that can be written; those of a callable may be anything."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


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
