"""A fault of an environment in, the file that it can be seen again from out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.agent_meta import is_plain
from clipper.checkpoint import FORMAT, check_format, dump_json, parse_json, write_atomically
from clipper.errors import FileError
from clipper.faults import Fault

# larger files are not written by us
_MAX_BYTES = 256 << 20
_KEYS: Mapping[str, type] = {
    "format": int,
    "kind": str,
    "env": dict,
    "index": int,
    "episode": int,
    "seed": int,
    "step": int,
    "how": str,
    "report": str,
    "actions": list,
}


@dataclass(frozen=True, kw_only=True)
class SavedFault:
    """A fault as a file holds it.

    Attributes:
        env: Name, arguments and step limit of the environment, as in an agent file.
        index: Index of the environment in the run.
        episode: Index of its episode.
        seed: Seed of that episode's reset.
        step: The step it was at, from 1; 0 for the reset.
        how: What happened, in words.
        actions: Sampled actions since the reset, float64 [n, A].
    """

    env: Mapping[str, Any]
    index: int
    episode: int
    seed: int
    step: int
    how: str
    actions: NDArray[np.float64]


def write_fault(fault: Fault, env: Mapping[str, Any], folder: Path) -> Path:
    """Writes a fault into a folder and returns the file.

    Raises:
        FileError: The folder cannot be written.
    """
    file = folder / f"fault-{fault.env}-{fault.episode}.json"
    content = {
        "format": FORMAT,
        "kind": "fault",
        "env": dict(env),
        "index": fault.env,
        "episode": fault.episode,
        "seed": fault.seed,
        "step": fault.step,
        "how": fault.how,
        "report": fault.report,
        "actions": fault.actions.tolist(),
    }
    write_atomically(file, dump_json(content).encode())
    return file


def read_fault(path: Path) -> SavedFault:
    """Returns what a fault's file holds.

    Raises:
        FileError: It cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(f"{path} must be below 256 MiB, but is larger.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} must be a file that can be read, but {error}.") from None
    data = parse_json(text, str(path))
    check_format(data, str(path))
    if set(data) != set(_KEYS) or any(type(data[k]) is not kind for k, kind in _KEYS.items()):
        raise FileError(
            f"{path} must be the file of a fault, with {', '.join(_KEYS)} and nothing else."
        )
    env = data["env"]
    is_env = (
        set(env) == {"name", "kwargs", "max_episode_steps", "is_named"}
        and is_plain(env["name"])
        and isinstance(env["kwargs"], dict)
    )
    try:
        actions = np.array(data["actions"], dtype=np.float64)
    except (TypeError, ValueError):
        actions = np.zeros(1)
    if data["kind"] != "fault" or not is_env or (actions.size and actions.ndim != 2):
        raise FileError(f"{path} must be the file of a fault, but is not one.")
    kept = {k: data[k] for k in ("env", "index", "episode", "seed", "step", "how")}
    return SavedFault(actions=actions, **kept)
