"""`clipper presets`: nothing or an environment in, tuned settings out."""

from __future__ import annotations

import argparse
import dataclasses

from clipper.config import ActorCriticConfig
from clipper.presets import GENERIC, PRESETS, Preset
from clipper.setting_values import show

HELP = """Lists the presets, or shows the settings that `clipper train ENV` would use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("env", nargs="?", metavar="ENV", help="environment id or name of a preset")


def run(args: argparse.Namespace) -> int:
    """Prints presets and returns the exit code."""
    if args.env is None:
        print("\n".join(_row(preset) for preset in (*PRESETS.values(), *GENERIC.values())))
        return 0
    preset = {**PRESETS, **GENERIC}.get(args.env) or _preset_for(args.env)
    config = preset.config()
    defaults = type(config)()
    print(f"preset {preset.name} (source: {preset.source}); * differs from the default")
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        mark = " " if value == getattr(defaults, spec.name) else "*"
        print(f"{mark} {spec.name:<22} {show(value)}")
    return 0


def _row(preset: Preset) -> str:
    config = preset.config()
    batch = f"{config.num_envs:>2}"
    if isinstance(config, ActorCriticConfig):
        batch += f" x {config.num_steps}"
    return f"{preset.name:<32} {config.total_timesteps:>10,} steps  {batch:<10} {preset.source}"


def _preset_for(name: str) -> Preset:
    from clipper.envs.make import env_source
    from clipper.envs.vector import spaces_of
    from clipper.presets import choose_preset

    obs_layout, action_layout, limit = spaces_of(env_source(name))
    images = obs_layout.kind_of_images
    return choose_preset(None, name, action_layout.is_continuous, limit, images=images)
