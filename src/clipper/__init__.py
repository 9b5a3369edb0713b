"""Clipper trains agents with Proximal Policy Optimization on Gymnasium environments.

The public names are imported when they are first used, so that `import clipper` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper.agents import A2C, ACER, CEM, PPO, TRPO, VPG
    from clipper.config_a2c import A2CConfig
    from clipper.config_acer import ACERConfig
    from clipper.config_ppo import PPOConfig
    from clipper.config_relatives import CEMConfig, TRPOConfig, VPGConfig
    from clipper.envs.check import check_env
    from clipper.envs.library import native_include
    from clipper.errors import ClipperError
    from clipper.evaluation import Evaluation
    from clipper.loading import load, resume
    from clipper.setting_values import Schedule
    from clipper.training_report import Outcome, Report

__version__ = "0.1.0"
__all__ = [
    "A2C",
    "ACER",
    "CEM",
    "PPO",
    "TRPO",
    "VPG",
    "A2CConfig",
    "ACERConfig",
    "CEMConfig",
    "ClipperError",
    "Evaluation",
    "Outcome",
    "PPOConfig",
    "Report",
    "Schedule",
    "TRPOConfig",
    "VPGConfig",
    "__version__",
    "check_env",
    "load",
    "native_include",
    "resume",
]

_HOMES = {
    "A2C": "clipper.agents",
    "ACER": "clipper.agents",
    "A2CConfig": "clipper.config_a2c",
    "ACERConfig": "clipper.config_acer",
    "CEM": "clipper.agents",
    "CEMConfig": "clipper.config_relatives",
    "PPO": "clipper.agents",
    "check_env": "clipper.envs.check",
    "TRPO": "clipper.agents",
    "TRPOConfig": "clipper.config_relatives",
    "VPG": "clipper.agents",
    "VPGConfig": "clipper.config_relatives",
    "load": "clipper.loading",
    "native_include": "clipper.envs.library",
    "resume": "clipper.loading",
    "PPOConfig": "clipper.config_ppo",
    "Schedule": "clipper.setting_values",
    "ClipperError": "clipper.errors",
    "Evaluation": "clipper.evaluation",
    "Outcome": "clipper.training_report",
    "Report": "clipper.training_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipper' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
