"""All that a run needs to go on in, files that are data out, and back; no code runs on reading.

Two formats. An *agent file* is one safetensors file: tensors and one metadata key with one
canonical JSON text. A *checkpoint* is a folder of such files with a manifest of SHA-256 sums,
written beside its final name and renamed when it is complete on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipper.errors import FileError, FormatError

Arrays = dict[str, NDArray[Any]]
FORMAT = 1
_KEY = "clipper"
_MANIFEST = "manifest.json"


def dump_json(data: Any) -> str:
    """Returns canonical JSON: sorted keys, no NaN, exact floats.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return json.dumps(data, sort_keys=True, allow_nan=False, ensure_ascii=False)


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Returns the object a strict JSON text holds.

    Args:
        text: What was read.
        where: The file's name, for the message.

    Raises:
        FileError: It is not an object, repeats a key, or has a NaN or infinity.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a number")

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    try:
        data = json.loads(text, object_pairs_hook=once, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where} must hold strict JSON, but {error}.") from None
    if not isinstance(data, dict):
        raise FileError(f"{where} must hold a JSON object, but holds {type(data).__name__}.")
    return data


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old or the new content, never a part.

    Raises:
        FileError: The folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FileError(f"{path} must be writable, but {error.strerror or error}.") from error


def write_tensors(path: Path, arrays: Arrays, meta: Mapping[str, Any]) -> None:
    """Writes arrays and metadata as one safetensors file, atomically.

    Raises:
        FileError: The file cannot be written.
    """
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, save(tensors, metadata={_KEY: dump_json(meta)}))


def read_tensors(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Returns the arrays and the metadata that `write_tensors` wrote.

    Raises:
        FileError: It is missing, a folder, damaged, or not one of Clipper's files.
    """
    if path.is_dir():
        raise FileError(
            f"{path} must be a file, but is a folder.",
            hint="give the agent.safetensors in it, or a run folder where one is meant.",
        )
    if not path.exists():
        raise FileError(f"{path} must be a file, but there is none.")
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        hint = "agents are kept in files that end in .safetensors; give one, or a run folder."
        if path.suffix in (".zip", ".pt", ".pth", ".pkl") or _starts_as_archive(path):
            hint = "Clipper reads no pickles or archives of other libraries: they can execute code."
        raise FileError(
            f"{path} must be a safetensors file, but cannot be read as one ({error}).", hint=hint
        ) from None
    if _KEY not in meta:
        raise FileError(f"{path} must be written by Clipper, but its metadata has no {_KEY!r} key.")
    data = parse_json(meta[_KEY], str(path))
    check_format(data, str(path))
    return arrays, data


def _starts_as_archive(path: Path) -> bool:
    """True if a file begins as a zip archive or a pickle does."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return start[:1] == b"\x80" or start == b"PK"


def check_format(data: Mapping[str, Any], where: str) -> None:
    """Raises unless the format number is one that this version reads.

    Raises:
        FormatError: It is newer.
        FileError: It is not a format at all.
    """
    found = data.get("format")
    if found != FORMAT or isinstance(found, bool):
        is_newer = isinstance(found, int) and found > FORMAT
        raise (FormatError if is_newer else FileError)(
            f"{where} must have the format {FORMAT}, but has {found!r}.",
            hint="it may be written by a newer version of Clipper: pip install -U clipper-rl",
        )


def parameters_sha256(arrays: Arrays) -> str:
    """Returns the SHA-256 of the policy's tensors: names, types, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name.startswith("policy."):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


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


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes a checkpoint as `folder/step-N` and removes all but the last `keep`.

    Raises:
        FileError: The disk is full or the folder cannot be written; older checkpoints are intact.
    """
    final = folder / f"step-{checkpoint.step:012d}"
    temporary = folder / f"{final.name}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_tensors(temporary / "agent.safetensors", checkpoint.agent, checkpoint.agent_meta)
        write_tensors(temporary / "training.safetensors", checkpoint.training, {"format": FORMAT})
        state = {"format": FORMAT, **checkpoint.state}
        write_atomically(temporary / "state.json", dump_json(state).encode())
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        manifest = {"format": FORMAT, "members": sums}
        write_atomically(temporary / _MANIFEST, dump_json(manifest).encode())
        _sync_folder(temporary)
        if final.exists():
            # never overwritten: the same step was saved before, by this run or its earlier part
            os.rename(final, folder / f"{final.name}.old-{os.getpid()}")
        os.rename(temporary, final)
        _sync_folder(folder)
    except OSError as error:  # FileError is one
        _put_back(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        # a member's own error names the temporary folder, which is nobody's business
        cause = error.__cause__ if isinstance(error, FileError) else error
        reason = getattr(cause, "strerror", None) or cause or error
        raise FileError(f"{final} must be writable, but {reason}.") from error
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
        hint="start the run anew with `clipper train` and another --name.",
    )


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoint folders that were renamed to their final name, oldest first."""
    if not folder.is_dir():
        return []
    names = [p for p in folder.iterdir() if p.name.startswith("step-") and p.name[5:].isdigit()]
    return sorted(p for p in names if p.is_dir())


def _read_one(path: Path) -> Checkpoint:
    manifest = parse_json(_read_text(path / _MANIFEST), str(path / _MANIFEST))
    check_format(manifest, str(path / _MANIFEST))
    members = manifest.get("members")
    wanted = {"agent.safetensors", "training.safetensors", "state.json"}
    if not isinstance(members, dict) or set(members) != wanted:
        raise FileError(f"{path / _MANIFEST} must name the members {sorted(wanted)}.")
    for name, expected in members.items():
        if not (path / name).is_file() or _sha256(path / name) != expected:
            raise FileError(f"{path / name} must have the SHA-256 of the manifest, but differs.")
    agent, agent_meta = read_tensors(path / "agent.safetensors")
    training, _ = read_tensors(path / "training.safetensors")
    state = parse_json(_read_text(path / "state.json"), str(path / "state.json"))
    check_format(state, str(path / "state.json"))
    return Checkpoint(int(path.name[5:]), agent, agent_meta, training, state)


def _put_back(folder: Path) -> None:
    """Gives a checkpoint its name back if the writer ended just before replacing it."""
    for path in folder.glob("step-*.old-*"):
        final = path.with_name(path.name.partition(".old-")[0])
        if not final.exists():
            with contextlib.suppress(OSError):
                os.rename(path, final)


def _remove_old(folder: Path, keep: int) -> None:
    stale = checkpoints_in(folder)[:-keep]
    pattern = (".old-", ".tmp-")
    stale += [p for p in folder.iterdir() if any(mark in p.name for mark in pattern)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError) as error:
        raise FileError(f"{path} must be readable text, but {error}.") from None
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Returns the arrays with `prefix.` before each name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Returns the arrays whose names begin with `prefix.`, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
