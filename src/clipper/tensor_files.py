"""Arrays and metadata in, one safetensors file out, and back by a strict reader; no code runs.

The file has one metadata key, which holds one canonical JSON text: the number of its format, since
format 2 the SHA-256 of all the rest, and what the writer says of the tensors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipper import __version__
from clipper.errors import FileError, FormatError
from clipper.files import FORMAT, dump_json, parse_json, read_plain, write_atomically
from clipper.tensor_limits import check_size, most_agent_bytes, num_bytes

Arrays = dict[str, NDArray[Any]]
TENSOR_FORMAT = 2
_KEY = "clipper"
_SUM = "sha256"
# the table of tensors and the metadata; ours have some ten thousand bytes
_MAX_HEADER_BYTES = 8 << 20


def write_tensors(path: Path, arrays: Arrays, meta: Mapping[str, Any]) -> None:
    """Writes arrays and metadata as one safetensors file, atomically.

    Raises:
        FileError: The file cannot be written.
    """
    content = tensor_bytes(arrays, with_sum(arrays, meta))
    write_atomically(path, content, is_named_at_once=False)


def with_sum(arrays: Arrays, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata with the SHA-256 of itself and the arrays, which the reader checks."""
    return {**meta, _SUM: _content_sha256(arrays, meta)}


def tensor_bytes(arrays: Arrays, meta: Mapping[str, Any]) -> bytes:
    """Returns the content of the safetensors file that holds arrays and metadata."""
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(tensors, metadata={_KEY: dump_json(meta)})


def read_tensors(path: Path, most: int | None = None) -> tuple[Arrays, dict[str, Any]]:
    """Returns the arrays and the metadata that `write_tensors` wrote.

    Args:
        path: The file.
        most: Bytes that all arrays may have; None for what an agent of its metadata may.

    Raises:
        FormatError: Its format is a newer one.
        FileError: It is missing, a folder, damaged, too large, or not one of Clipper's files.
    """
    meta, table = read_head(path)
    check_size(table, most_agent_bytes(meta, table) if most is None else most, str(path))
    expected = meta.pop(_SUM, None)
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise _no_tensors(path, str(error)) from None
    except MemoryError:
        raise FileError(f"{path} must fit into memory, but is too large.") from None
    # the first format had no sum
    if (expected is not None or meta["format"] > 1) and expected != _content_sha256(arrays, meta):
        raise FileError(
            f"{path} must have the SHA-256 that its metadata says, but differs.",
            hint="it was changed or damaged after it was written; take another copy.",
        )
    return arrays, meta


def read_head(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the metadata of a file and its table of tensors, which are strict JSON and nothing else.

    The tensors are not read, and may have any size.

    Raises:
        FormatError: Its format is a newer one.
        FileError: It is missing, a folder, or not one of Clipper's files.
    """
    if os.path.isdir(path):
        raise FileError(
            f"{path} must be a file, but is a folder.",
            hint="give the agent.safetensors in it, or a run folder where one is meant.",
        )
    start = read_plain(path, 8, start=8)
    size = int.from_bytes(start, "little")
    if len(start) < 8 or size > _MAX_HEADER_BYTES:
        raise _no_tensors(path, "its header is cut off, or too large")
    header = read_plain(path, 8 + size, start=8 + size)[8:]
    try:
        if len(header) < size:
            raise FileError("its header is cut off")
        table = parse_json(header.decode(), "its header", _MAX_HEADER_BYTES)
    except (FileError, UnicodeDecodeError) as error:
        raise _no_tensors(path, str(error)) from None
    meta = table.pop("__metadata__", {})
    if not isinstance(meta, dict) or not isinstance(meta.get(_KEY), str):
        raise FileError(f"{path} must be written by Clipper, but its metadata has no {_KEY!r} key.")
    if len(meta) > 1:
        raise FileError(f"{path} must have no metadata but {_KEY!r}, but has {sorted(meta)[:5]}.")
    data = parse_json(meta[_KEY], str(path))
    check_format(data, str(path), TENSOR_FORMAT)
    try:
        size_on_disk = path.stat().st_size
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    if 8 + size + num_bytes(table, str(path)) != size_on_disk:
        raise _no_tensors(path, "it is not as long as its header says")
    return data, table


def _no_tensors(path: Path, found: str) -> FileError:
    hint = "agents are kept in files that end in .safetensors; give one, or a run folder."
    if path.suffix in (".zip", ".pt", ".pth", ".pkl") or _starts_as_archive(path):
        hint = "Clipper reads no pickles or archives of other libraries: they can execute code."
    return FileError(
        f"{path} must be a safetensors file, but cannot be read as one ({found}).", hint=hint
    )


def _starts_as_archive(path: Path) -> bool:
    """True if a file begins as a zip archive or a pickle does."""
    try:
        start = read_plain(path, 2, start=2)
    except FileError:
        return False
    return start[:1] == b"\x80" or start == b"PK"


def check_format(data: Mapping[str, Any], where: str, newest: int = FORMAT) -> None:
    """Raises unless the format number is one that this version reads, 1 to `newest`.

    Raises:
        FormatError: It is newer.
        FileError: It is not a format at all.
    """
    found = data.get("format")
    if type(found) is not int or not 1 <= found <= newest:
        is_newer = type(found) is int and found > newest
        known = f"the format {newest}" if newest == 1 else f"a format from 1 to {newest}"
        raise (FormatError if is_newer else FileError)(
            f"{where} must have {known}, but has {found!r:.40}{_writer(data)}.",
            hint=f"this is Clipper {__version__}, and it may be written by a newer one: "
            "pip install -U clipper-rl",
        )


def _content_sha256(arrays: Arrays, meta: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of metadata and tensors: names, types, shapes and bytes, in name order."""
    digest = hashlib.sha256(dump_json(meta).encode())
    _add_tensors(digest, arrays, sorted(arrays))
    return digest.hexdigest()


def _add_tensors(digest: hashlib._Hash, arrays: Arrays, names: Iterable[str]) -> None:
    for name in names:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(array.reshape(-1).data)


def _writer(data: Mapping[str, Any]) -> str:
    """Returns which version of Clipper a file says it was written by, in words; it may not say."""
    versions = data.get("versions")
    version = versions.get("clipper-rl") if isinstance(versions, dict) else None
    is_plain = isinstance(version, str) and version.isprintable() and len(version) < 50
    return f", which Clipper {version} wrote" if is_plain else ""


def parameters_sha256(arrays: Arrays) -> str:
    """Returns the SHA-256 of the policy's tensors: names, types, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    _add_tensors(digest, arrays, (name for name in sorted(arrays) if name.startswith("policy.")))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Returns the arrays with `prefix.` before each name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Returns the arrays whose names begin with `prefix.`, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
