"""The settings of every algorithm, by its name; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping

from clipper.config import Config, PPOConfig
from clipper.config_a2c import A2CConfig
from clipper.config_acer import ACERConfig

CONFIGS: Mapping[str, type[Config]] = {
    "ppo": PPOConfig,
    "a2c": A2CConfig,
    "acer": ACERConfig,
}
"""A line for every algorithm."""
