"""The metadata of an agent file in, the same out if it is all that it must be; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from clipper.configs import CONFIGS
from clipper.errors import FileError

_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "format": int,
    "kind": str,
    "algorithm": str,
    "env": dict,
    "preset": str,
    "seed": int,
    "config": dict,
    "module": str,
    "step": int,
    "exact": bool,
    "observation_space": dict,
    "action_space": dict,
    "versions": dict,
}
# which engine computed, why the run is not exact, how the best agent was scored: files of the first
# days have none of them
_OPTIONAL_KEYS = {"engine", "inexact", "score"}
_MOST_CHARACTERS = 500
_ENV_KEYS = {"name", "kwargs", "max_episode_steps", "is_named"}


def check_meta(meta: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the metadata of an agent file if it is complete and has nothing else.

    Raises:
        FileError: A key is missing, unknown, or of the wrong type.
    """
    if meta.get("kind") != "agent":
        raise FileError(
            f"{where} must be an agent file, but its kind is {_shown(meta.get('kind'))}."
        )
    for key, kind in _KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise FileError(
                f"{where} must have {key!r} in its metadata, but has {_shown(meta.get(key))}."
            )
    unknown = set(meta) - set(_KEYS) - _OPTIONAL_KEYS
    if unknown:
        raise FileError(f"{where} must have no other metadata, but has {_shown(sorted(unknown))}.")
    check_env_meta(meta["env"], where)
    for key, is_good in (
        ("algorithm", meta["algorithm"] in CONFIGS),
        ("preset", is_plain(meta["preset"])),
        ("engine", is_plain(meta.get("engine", "reference"))),
        ("inexact", _is_reason(meta.get("inexact"), meta["exact"])),
        ("versions", all(is_plain(text) for pair in meta["versions"].items() for text in pair)),
        ("module", meta["module"] in ("mlp", "cnn", "user")),
        ("seed", type(meta["seed"]) is int and 0 <= meta["seed"] < 2**63),
        ("step", type(meta["step"]) is int and 0 <= meta["step"] < 2**63),
        ("score", type(meta.get("score")) in (float, int, type(None))),
    ):
        if not is_good:
            raise FileError(f"{where} must have a known {key}, but has {_shown(meta[key])}.")
    return meta


def check_env_meta(env: Mapping[str, Any], where: str) -> None:
    """Raises unless a file describes an environment as it must.

    Raises:
        FileError: A key is missing, unknown, or of the wrong type.
    """
    limit = env.get("max_episode_steps")
    if (
        set(env) - {"lost"} != _ENV_KEYS
        or not is_plain(env["name"])
        or not isinstance(env["kwargs"], dict)
        or not isinstance(env["is_named"], bool)
        or not _are_names(env.get("lost", []))
        or not (limit is None or (type(limit) is int and 1 <= limit < 2**63))
    ):
        raise FileError(f"{where} must describe its environment by {sorted(_ENV_KEYS)}.")


def _are_names(found: Any) -> bool:
    """True for a list of short texts."""
    return isinstance(found, list) and len(found) <= 1000 and all(map(is_plain, found))


def _shown(value: Any) -> str:
    """Returns a value as Python writes it, cut where it is too long for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_reason(reason: Any, is_exact: bool) -> bool:
    """Returns True for no reason, or a plain one of a run that is not exact."""
    return reason is None or (is_plain(reason) and not is_exact)


def is_plain(text: Any) -> TypeGuard[str]:
    """Returns True for a short text that a terminal shows as it is, without control characters."""
    return isinstance(text, str) and text.isprintable() and len(text) <= _MOST_CHARACTERS


def made_plain(text: str) -> str:
    """Returns a text as one line that `is_plain`, cut where it is too long."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 3] + "..."
