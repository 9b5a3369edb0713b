"""A fault of an environment in, the file that it can be seen again from out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.agent_meta import check_env_meta
from clipper.checkpoint import FORMAT, check_format, dump_json, read_json, write_atomically
from clipper.errors import FileError
from clipper.faults import Fault

# actions that would make a file larger are left out; parsed it takes ten times the memory
_MAX_BYTES = 16 << 20
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
    # JSON has no NaN; an action that is none is the last one, and nobody can play it
    good = np.isfinite(fault.actions).all(axis=1)
    actions = fault.actions if good.all() else fault.actions[: int(good.argmin())]
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
        "actions": actions.tolist(),
    }
    text = dump_json(content).encode()
    if len(text) > _MAX_BYTES:
        text = dump_json({**content, "actions": []}).encode()
    write_atomically(file, text)
    return file


def read_fault(path: Path) -> SavedFault:
    """Returns what a fault's file holds.

    Raises:
        FileError: It cannot be read, or is something else.
    """
    data = read_json(path, _MAX_BYTES)
    check_format(data, str(path))
    if set(data) != set(_KEYS) or any(type(data[k]) is not kind for k, kind in _KEYS.items()):
        raise FileError(
            f"{path} must be the file of a fault, with {', '.join(_KEYS)} and nothing else."
        )
    check_env_meta(data["env"], str(path))
    numbers = ("index", "episode", "seed", "step")
    if data["kind"] != "fault" or not all(0 <= data[name] < 2**63 for name in numbers):
        raise FileError(f"{path} must be the file of a fault, but is not one.")
    kept = {k: data[k] for k in ("env", "index", "episode", "seed", "step", "how")}
    return SavedFault(actions=_actions(data["actions"], path), **kept)


def _actions(rows: list[Any], path: Path) -> NDArray[np.float64]:
    """Returns rows of numbers as float64 [n, A]."""
    size = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    is_good = all(
        isinstance(row, list)
        and len(row) == size
        and all(type(number) in (int, float) for number in row)
        for row in rows
    )
    try:
        if is_good and (size or not rows):
            return np.array(rows, dtype=np.float64).reshape(len(rows), size)
    except OverflowError:
        pass
    raise FileError(f"{path} must have actions of equally many numbers, but has others.")


def check_actions(actions: NDArray[np.float64], layout: ActionLayout, where: str) -> None:
    """Raises unless actions of a file are such as an environment takes.

    Args:
        actions: Sampled actions, float64 [n, A].
        layout: How the environment's actions are sampled.
        where: The file's name, for the message.

    Raises:
        FileError: They have another size, or are none of the space's.
    """
    is_good = actions.shape[1] == layout.size
    if is_good and not layout.is_continuous:
        categories = np.array(layout.num_categories or (2,) * layout.size)
        is_good = bool(((actions >= 0) & (actions < categories) & (actions % 1 == 0)).all())
    if not is_good:
        raise FileError(f"{where} must have actions that the environment takes, but has others.")
