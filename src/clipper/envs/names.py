"""The name of an environment in; what makes it out, or the names that were perhaps meant."""

from __future__ import annotations

import copy
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from clipper.configs import CONFIGS
from clipper.envs.atari import is_atari, is_raw, make_game, register_games
from clipper.envs.library import LibraryEnv, is_library, load_library
from clipper.envs.raised import brief, where_raised
from clipper.errors import EnvironmentFault, EnvironmentUnknown, nearest
from clipper.presets import GENERIC, PRESETS, nearest_id

Env = gymnasium.Env[Any, Any]


def resolve(name: str) -> EnvSpec | Callable[..., Env]:
    """Returns the registered spec, or the callable that `module:Name` or a library's file names."""
    if is_library(name):
        limit = load_library(name).max_episode_steps
        return lambda **kwargs: limited(LibraryEnv(name, **kwargs), limit)
    module_name, _, attribute = name.rpartition(":")
    module = _import(module_name, name) if module_name else None
    if module is None and is_atari(name):
        register_games(name)
    spec = _find_spec(attribute, name, module is None)
    if spec is not None:
        return spec
    found = getattr(module, attribute, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    known = [
        k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, gymnasium.Env)
    ]
    raise EnvironmentUnknown(
        f"{module_name} must register an environment {attribute!r} or hold a callable of that name, "
        "but does neither.",
        hint=nearest(attribute, known, prefix=f"{module_name}:")
        or ("it holds " + ", ".join(f"{module_name}:{k}" for k in known[:6]) if known else None),
    )


def make_named(name: str, kwargs: dict[str, Any], max_episode_steps: int | None) -> Env:
    """Returns a fresh environment of a name, without Gymnasium's own checkers."""
    found = resolve(name)
    if not isinstance(found, EnvSpec):
        return limited(found(**kwargs), max_episode_steps)
    spec = copy.deepcopy(found)
    # the checkers cost 5 to 10 % of a step; Clipper makes their checks on whole blocks
    spec.order_enforce = False
    spec.disable_env_checker = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if is_atari(spec.id) and not is_raw(kwargs):
            return make_game(spec, kwargs, max_episode_steps)
        return gymnasium.make(spec, max_episode_steps=max_episode_steps, **kwargs)


def limited(env: Env, max_episode_steps: int | None) -> Env:
    """Returns the environment with this limit in place of those it carries."""
    if max_episode_steps is None:
        return env
    while isinstance(env, TimeLimit):
        env = env.env
    outer = env
    while isinstance(outer, gymnasium.Wrapper):
        while isinstance(outer.env, TimeLimit):
            outer.env = outer.env.env
        outer = outer.env
    return TimeLimit(env, max_episode_steps)


def imports_what_it_names(name: str) -> bool:
    """Returns True if making an environment of that name imports a module that a file could name.

    Those are `module:EnvId` and the doors to the old gym, whose argument `env_id` is such a name; a
    shared library runs code as well.
    """
    return ":" in name or name.startswith("GymV") or is_library(name)


def needs_trust(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Returns True if an environment that a file describes is made only for who trusts the file.

    Making it would import what the file names, or it has arguments that may name other files, as
    MuJoCo's `xml_file` does.
    """
    return imports_what_it_names(name) or any(_may_name_a_file(value) for value in kwargs.values())


def _may_name_a_file(value: Any) -> bool:
    """True if a JSON value has a text in it that could lead to a file of the user's."""
    if isinstance(value, str):
        # a dot at the beginning: MuJoCo's tasks then look in the working directory
        return value.startswith(".") or any(mark in value for mark in "/\\~:")
    if isinstance(value, Mapping):
        return any(_may_name_a_file(inner) for pair in value.items() for inner in pair)
    return isinstance(value, (list, tuple)) and any(_may_name_a_file(inner) for inner in value)


def _import(module_name: str, name: str) -> Any:
    if is_library(module_name):
        raise EnvironmentUnknown(
            f"{name} must be a library's file alone, but names something in it.",
            hint=f"write {module_name}: a library holds one environment.",
        )
    if "/" in module_name or module_name.endswith(".py"):
        raise EnvironmentUnknown(
            f"{name} must name a module as `import` does, but names a file.",
            hint=_how_to_import(module_name, name.rpartition(":")[2]),
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[0] == error.name.split(".")[0]:
            raise EnvironmentUnknown(
                f"{name} must name a Python module, but {module_name!r} cannot be found.",
                hint=f"run from the folder that holds {module_name.split('.')[0]}.py, or install it.",
            ) from None
        raise EnvironmentFault(
            f"{module_name} must be importable, but it needs {error.name!r}, which is not installed."
        ) from error
    except (Exception, SystemExit) as error:
        raise EnvironmentFault(
            f"{module_name} must be importable, but {brief(error)}.", hint=where_raised(error)
        ) from error


def _how_to_import(file: str, attribute: str) -> str:
    """Returns how an environment in a file is named; the folder that holds it is where to run."""
    path = Path(file.removesuffix(".py"))
    inside = path.parts
    if path.is_absolute() or ".." in inside:
        return f"run in {path.parent}, and write {path.name}:{attribute}."
    return f"write {'.'.join(inside)}:{attribute}."


def _find_spec(env_id: str, name: str, is_required: bool) -> EnvSpec | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.spec(env_id)
    except gymnasium.error.Error:
        if is_required:
            raise unknown_name(name) from None
        return None


def unknown_name(env_id: str) -> EnvironmentUnknown:
    """Returns the error that says that there is no such environment, and which was perhaps meant."""
    known = [k for k in gymnasium.registry if not k.startswith(("phys2d/", "tabular/", "GymV"))]
    base, _, version = env_id.rpartition("-v")
    base = base if version.isdecimal() else env_id
    versions = sorted(
        (k for k in known if base and re.fullmatch(re.escape(base) + r"-v\d+", k, re.IGNORECASE)),
        key=lambda k: int(k.rpartition("-v")[2]),
    )
    found = "is unknown to Gymnasium"
    if versions and versions[-1].lower() == env_id.lower():
        hint = f"did you mean {versions[-1]}?"
    elif versions and version.isdecimal() and int(version) < int(versions[-1].rpartition("-v")[2]):
        found, hint = "is an old version that Gymnasium no longer ships", f"use {versions[-1]}."
    elif versions:
        found, hint = "is not the name of a version", f"use {versions[-1]}."
    elif game := re.fullmatch(r"(\w+?)(NoFrameskip|Deterministic)-v\d", env_id):
        hint = f"the game is ALE/{game[1]}-v5, which Clipper preprocesses itself."
    elif env_id.partition("/")[0] in ("paper", "generic", *CONFIGS):
        preset = {**PRESETS, **GENERIC}.get(env_id)
        found = "is a preset" if preset is not None else "looks like a preset"
        other = nearest_id(env_id, [*PRESETS, *GENERIC])
        hint = other or "`clipper presets` lists them."
        if preset is not None:
            algorithm = "" if preset.algorithm == "ppo" else f"--algo {preset.algorithm} "
            hint = f"name the environment, and give it {algorithm}--preset {env_id}."
    elif env_id.endswith(".py") or os.path.isfile(f"{env_id}.py"):
        found = "names a file, or a module alone"
        hint = _how_to_import(env_id, "NAME")
        hint = f"{hint.removesuffix('.')}, with the name of its class or function."
    elif re.search(r"\.(so|dylib)\.[0-9.]+$", env_id):
        hint = "a library's file ends in .so (.dylib): copy or link it to such a name."
    else:
        hint = nearest_id(env_id, known) or "for an environment of your own write module:EnvId."
    return EnvironmentUnknown(f"{env_id!r} must name an environment, but {found}.", hint=hint)
