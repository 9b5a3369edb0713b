"""What a run folder's `config.json` must hold, and that it is of the run that its checkpoints are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipper.errors import FileError

_NONE = type(None)
_NEEDED: Mapping[str, tuple[type, ...]] = {
    "algorithm": (str,),
    "config": (dict,),
    "engine": (str,),
    "env": (str,),
    "env_is_named": (bool,),
    "env_kwargs": (dict,),
    "format": (int,),
    "max_episode_steps": (int, _NONE),
    "module": (str, _NONE),
    "name": (str,),
    "preset": (str, _NONE),
    "seed": (int,),
    "transforms": (list,),
    "versions": (dict,),
}
# those of the first days do not have them
_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "checkpoints": (dict,),
    "command": (list,),
    "git": (dict, _NONE),
    "platform": (str,),
    "resumed": (list,),
    "started": (str,),
    "stepping": (dict,),
}
_NAMES = {
    str: "text",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
}


def check_config(data: Mapping[str, Any], where: str) -> None:
    """Raises unless these are the parts of a `config.json`, each of its type.

    Raises:
        FileError: One is missing, unknown or of another type.
    """
    known = {**_NEEDED, **_OPTIONAL}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise FileError(f"{where} must hold what Clipper writes there, but has {unknown[0]!r:.60}.")
    missing = sorted(set(_NEEDED) - set(data))
    if missing:
        raise FileError(f"{where} must have {missing[0]!r}, but has not.")
    for name, value in data.items():
        if type(value) not in known[name]:
            wanted = " or ".join(_NAMES.get(kind, "null") for kind in known[name])
            raise FileError(f"{where}: {name} must be {wanted}, but is {value!r:.60}.")


MAY_CHANGE = ("total_timesteps", "engine", "on_nonfinite", "eval_every")
"""Settings that a run may go on with others of."""


def check_same_run(config: Mapping[str, Any], meta: Mapping[str, Any], where: str) -> None:
    """Raises unless `config.json` and a checkpoint are of one run.

    Args:
        config: What `config.json` holds.
        meta: Metadata of the agent in the checkpoint.
        where: The run folder, for messages.

    Raises:
        FileError: Algorithm, seed, environment or a setting differ.
    """
    pairs = (
        ("algorithm", meta["algorithm"]),
        ("seed", meta["seed"]),
        ("env", meta["env"]["name"]),
    )
    for name, found in pairs:
        if found != config[name]:
            raise FileError(
                f"{where} must hold one run, but its config.json has the {name} {config[name]!r:.80} "
                f"and its checkpoint {found!r:.80}.",
                hint="one of the two was put there from another run, or edited.",
            )
    learned = meta["config"]
    for name in sorted(set(learned) & set(config["config"]) - set(MAY_CHANGE)):
        if config["config"][name] != learned[name]:
            raise FileError(
                f"{where} must hold one run, but its config.json has {name} "
                f"{config['config'][name]!r:.80} and its checkpoint {learned[name]!r:.80}.",
                hint=f"a run goes on with its own settings: put {learned[name]!r:.80} back. `clipper "
                "train ... --init-from` begins another one with its weights.",
            )
