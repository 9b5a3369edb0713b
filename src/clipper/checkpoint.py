"""All that a run needs to go on in, a folder of files that are data out, and back; no code runs.

A checkpoint is a folder of members with a manifest of their SHA-256 sums, written beside its final
name and renamed when it is complete on disk. Readers take complete ones alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from clipper.errors import ConfigError, FileError, FormatError
from clipper.files import (
    FORMAT,
    MAX_JSON_BYTES,
    dump_json,
    file_error,
    parse_json,
    read_json,
    read_plain,
    refuse_links,
    sync_folder,
    write,
    write_atomically,
    write_synced,
)
from clipper.tensor_files import (
    TENSOR_FORMAT,
    Arrays,
    check_format,
    file_sha256,
    parameters_sha256,
    prefixed,
    read_head,
    read_tensors,
    tensor_bytes,
    with_sum,
    without_prefix,
    write_tensors,
)
from clipper.tensor_limits import check_size, most_agent_bytes, most_training_bytes, num_bytes

# the readers and writers of all formats are found here
__all__ = [
    "FORMAT",
    "TENSOR_FORMAT",
    "Arrays",
    "Checkpoint",
    "CheckpointRules",
    "check_format",
    "checkpoints_in",
    "dump_json",
    "parameters_sha256",
    "parse_json",
    "prefixed",
    "read_checkpoint",
    "read_json",
    "read_tensors",
    "refuse_links",
    "without_prefix",
    "write_atomically",
    "write_checkpoint",
    "write_tensors",
]

# those by time are so many times rarer than they are long, a percent of a run at most; but a save
# that took long once does not leave a run without them for hours
_SHARE, _LONGEST_WAIT = 100, 600.0
_MANIFEST = "manifest.json"
_MEMBERS = ("agent.safetensors", "state.json", "training.safetensors")
_NAME = re.compile(r"step-([0-9]{12,19})")
# members whose sums are made before a newer format is believed: a second at most
_MOST_SUMMED_BYTES = 256 * 2**20
# compared with it, a whole number too large for a float is no error of Python's
_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes:
        step: Transitions done.
        agent: Tensors of the agent file.
        agent_meta: Metadata of the agent file.
        training: Tensors of the optimiser, the environments and the reward scaling.
        state: Counters and recent episodes, as JSON values.
    """

    step: int
    agent: Arrays
    agent_meta: Mapping[str, Any]
    training: Arrays
    state: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CheckpointRules:
    """When a run writes checkpoints, beside the first and the last, and how many it keeps.

    Attributes:
        checkpoint_every: One after the iteration that passes each multiple of so many steps, or 0.
        checkpoint_minutes: One when the last is older than so many minutes of wall time, and than 100
            times what it took to write (but ten minutes are enough), or 0.
        keep: So many of them stay; an older one goes when a newer one is complete.
    """

    checkpoint_every: int = 0
    checkpoint_minutes: float = 0.5
    keep: int = 2

    def replaced(self, **given: float | None) -> Self:
        """Returns checked rules with those that are given in the place of these; None is not given.

        Raises:
            ConfigError: A number is out of its range.
        """
        return self.from_json({**asdict(self), **{k: v for k, v in given.items() if v is not None}})

    def is_due(
        self, since_step: int, step: int, since_seconds: float, save_seconds: float = 0.0
    ) -> bool:
        """Returns whether a checkpoint is to be written after an iteration.

        Args:
            since_step: Step of the last one.
            step: Step now.
            since_seconds: Wall time since the last one.
            save_seconds: How much of it was spent in writing it.
        """
        every, seconds = self.checkpoint_every, 60.0 * self.checkpoint_minutes
        by_step = every > 0 and step // every > since_step // every
        wait = max(seconds, min(_SHARE * save_seconds, _LONGEST_WAIT))
        return by_step or (seconds > 0 and wait < since_seconds)

    def to_json(self) -> dict[str, Any]:
        """Returns the rules as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Returns the checked rules that `to_json` wrote.

        Raises:
            ConfigError: A name is unknown, or a number is wrong.
        """
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"checkpoints must have no other rules, but have {unknown[:5]}.")
        rules = cls(**data)
        for name, least, is_whole in (
            ("checkpoint_every", 0, True),
            ("checkpoint_minutes", 0, False),
            ("keep", 1, True),
        ):
            value = getattr(rules, name)
            is_kind = isinstance(value, int if is_whole else (int, float))
            if not (is_kind and not isinstance(value, bool) and least <= value <= _LARGEST):
                raise ConfigError(
                    f"{name} must be a {'whole ' * is_whole}number from {least}, but is {value!r}."
                )
        return rules


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes a checkpoint as `folder/step-N` and removes all but the last `keep`.

    That of step 0 is not waited for: a power cut could take nothing that was learnt.

    Raises:
        FileError: The disk is full or the folder cannot be written; older checkpoints are intact.
    """
    final = folder / f"step-{checkpoint.step:012d}"
    temporary = folder / f"{final.name}.tmp-{os.getpid()}"
    members = {
        "agent.safetensors": tensor_bytes(
            checkpoint.agent, with_sum(checkpoint.agent, checkpoint.agent_meta)
        ),
        "training.safetensors": tensor_bytes(checkpoint.training, {"format": FORMAT}),
        "state.json": dump_json({"format": FORMAT, **checkpoint.state}).encode(),
    }
    manifest = {
        "format": FORMAT,
        "step": checkpoint.step,
        # of what was to be written: what the disk made of it is found when it is read
        "members": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        members[_MANIFEST] = dump_json({**manifest, "sum": _sum(manifest)}).encode()
        contents = {temporary / name: content for name, content in members.items()}
        if checkpoint.step:
            write_synced(contents)
            sync_folder(temporary)
        else:
            write(contents)
        if final.exists():
            # never overwritten: the same step was saved before, by this run or its earlier part
            os.rename(final, folder / f"{final.name}.old-{os.getpid()}")
        os.rename(temporary, final)
        if checkpoint.step:
            sync_folder(folder)
    except OSError as error:
        _put_back(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise FileError(file_error(final, error)) from error
    with contextlib.suppress(OSError):  # what cannot be removed now is removed the next time
        _remove_old(folder, keep)
    return final


def read_checkpoint(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Returns the newest complete checkpoint of a folder, and what was wrong with newer ones.

    A damaged checkpoint is renamed `step-N.bad` and the one before it is read.

    Raises:
        FormatError: The newest is of another format.
        FileError: There is no complete checkpoint, or the disk cannot be read.
    """
    problems: list[str] = []
    refuse_links(folder)
    _put_back(folder)
    for path in sorted(checkpoints_in(folder), reverse=True):
        try:
            return _read_one(path), problems
        except FormatError:
            raise
        except FileError as error:
            if isinstance(error.__cause__, OSError) and path.is_dir():
                raise  # the disk, not the checkpoint: trying again may help
            problems.append(f"{path.name}: {error.message}")
            with contextlib.suppress(OSError):
                os.rename(path, path.with_name(f"{path.name}.bad"))
    raise FileError(
        f"{folder} must hold a complete checkpoint, but has none"
        + (f" ({'; '.join(problems)})." if problems else "."),
        hint=_instead_of_resuming(folder.parent, has_problems=bool(problems)),
    )


def _instead_of_resuming(run: Path, *, has_problems: bool) -> str:
    """Returns what can be done with a run that has no checkpoint."""
    if (run / "agent.safetensors").is_file():
        return (
            f"its last agent is there: `clipper train ENV --init-from {run}` begins a run with it."
        )
    if has_problems:
        return "start the run anew with `clipper train` and another --name."
    return (
        "start the run anew with `clipper train` and another --name, or remove this folder: it was "
        "stopped before its first one."
    )


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoint folders that were renamed to their final name, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())


def _read_one(path: Path) -> Checkpoint:
    refuse_links(path)
    step = int(path.name[5:])
    manifest = read_json(path / _MANIFEST)
    # before the format: one bit tells a newer one from this one; the first manifests had no sum
    expected = manifest.pop("sum", None)
    if expected is not None and expected != _sum(manifest):
        raise FileError(f"{path / _MANIFEST} must have the sum that it says, but differs.")
    check_format(manifest, str(path / _MANIFEST))
    members = manifest.get("members")
    if not isinstance(members, dict) or set(members) != set(_MEMBERS):
        raise FileError(f"{path / _MANIFEST} must name the members {list(_MEMBERS)}.")
    if set(manifest) - {"format", "members", "step"} or manifest.get("step", step) != step:
        raise FileError(f"{path / _MANIFEST} must be that of step {step}, but is not.")
    try:
        most = _check_sizes(path, step)
    except FormatError:
        # one bit tells a newer format from this one; what nobody would wait for is believed
        _check_sums(path, members, _MOST_SUMMED_BYTES)
        raise
    _check_sums(path, members)
    agent, agent_meta = read_tensors(path / "agent.safetensors")
    training, training_meta = read_tensors(path / "training.safetensors", most)
    if set(training_meta) != {"format"}:
        raise FileError(f"{path / 'training.safetensors'} must have no metadata but its format.")
    state = read_json(path / "state.json")
    check_format(state, str(path / "state.json"))
    return Checkpoint(step, agent, agent_meta, training, state)


def _check_sizes(path: Path, step: int) -> int:
    """Returns how many bytes a checkpoint's tensors beside the agent may have.

    Raises:
        FileError: A member has more than it may; nothing but their starts was read.
    """
    agent, state, training = (path / name for name in _MEMBERS)
    meta, table = read_head(agent)
    check_size(table, most_agent_bytes(meta, table), str(agent))
    most = most_training_bytes(meta, table, num_bytes(table, str(agent)), step)
    check_size(read_head(training)[1], most, str(training))
    read_plain(state, MAX_JSON_BYTES)
    return most


def _check_sums(path: Path, sums: Mapping[str, Any], most: float = math.inf) -> None:
    """Raises if a member of at most so many bytes has not the SHA-256 that the manifest says.

    Raises:
        FileError: It has another, or is missing.
    """
    for name, expected in sums.items():
        member = path / name
        is_file = member.is_file()
        if is_file and member.stat().st_size > most:
            continue
        if not is_file or file_sha256(member) != expected:
            raise FileError(f"{member} must have the SHA-256 of the manifest, but differs.")


def _sum(manifest: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a manifest without its own."""
    return hashlib.sha256(dump_json(manifest).encode()).hexdigest()


def _put_back(folder: Path) -> None:
    """Gives a checkpoint its name back if the writer ended just before replacing it."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("step-*.old-*")):
            final = path.with_name(path.name.partition(".old-")[0])
            if not final.exists():
                os.rename(path, final)


def _remove_old(folder: Path, keep: int) -> None:
    """Removes what is not kept; renamed first, so that a part of one never has a checkpoint's name.

    Raises:
        OSError: The folder cannot be read, or a name not be changed.
    """
    for path in folder.iterdir():
        if any(mark in path.name for mark in (".old-", ".tmp-", ".gone-")):
            shutil.rmtree(path, ignore_errors=True)
    for path in checkpoints_in(folder)[:-keep]:
        gone = path.with_name(f"{path.name}.gone-{os.getpid()}")
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
