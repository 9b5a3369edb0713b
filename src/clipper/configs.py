"""The settings of every algorithm, by its name; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping

from clipper.config import Config
from clipper.config_a2c import A2CConfig
from clipper.config_acer import ACERConfig
from clipper.config_ppo import PPOConfig
from clipper.config_relatives import CEMConfig, TRPOConfig, VPGConfig

CONFIGS: Mapping[str, type[Config]] = {
    "ppo": PPOConfig,
    "a2c": A2CConfig,
    "acer": ACERConfig,
    "vpg": VPGConfig,
    "trpo": TRPOConfig,
    "cem": CEMConfig,
}
"""A line for every algorithm."""
