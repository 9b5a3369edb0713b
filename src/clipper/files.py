"""Bytes and JSON values in, whole files on the disk out, and back by readers that trust nothing.

Every call that changes the disk is one of `os` and stands here, in `checkpoint` or `run_folder`, so
that a test can let each of them fail.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipper.errors import FileError

FORMAT = 1
"""Number of the format of every file of JSON; a file of tensors has its own."""

# a text of so many bytes takes at most 100 MB when it is parsed; ours have a few thousand
MAX_JSON_BYTES = 4 << 20
# a line of a table has some ten bytes for each of at most some hundred columns
MAX_LINE_BYTES = 1 << 20
# an empty list takes two characters and 64 bytes; ours have more in them
_CHARACTERS_PER_PART = 32
# the largest whole number that is a finite float too has so many; in a text all digits are looked at
# as if they were 0, which takes a hundredth of the time of looking at each number
_MOST_DIGITS = 309
_AS_ZEROS = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
# absent on Windows
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def dump_json(data: Any) -> str:
    """Returns canonical JSON: sorted keys, no NaN, exact floats.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return json.dumps(data, sort_keys=True, allow_nan=False, ensure_ascii=False)


def parse_json(text: str, where: str, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Returns the object a strict JSON text holds.

    Args:
        text: What was read.
        where: The file's name, for the message.
        most: Characters it may have; what it is parsed into takes up to 25 times the memory.

    Raises:
        FileError: It is too long, is not an object, repeats a key, or has a NaN or infinity, or a
            whole number that is infinite as a float.
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

    def whole(digits: str) -> int:
        num_digits = len(digits.removeprefix("-"))
        if num_digits > _MOST_DIGITS or not is_number(number := int(digits)):
            raise ValueError(f"a number of {num_digits:,} digits is too large")
        return number

    num_parts = text.count("[") + text.count("{")
    if len(text) > most or num_parts > most // _CHARACTERS_PER_PART:
        raise FileError(f"{where} must have at most {most:,} characters of JSON, but has more.")
    try:
        data = json.loads(
            text,
            object_pairs_hook=once,
            parse_constant=refuse,
            parse_float=finite,
            parse_int=whole if _has_long_number(text) else None,
        )
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where} must hold strict JSON, but {error}.") from None
    if not isinstance(data, dict):
        raise FileError(f"{where} must hold a JSON object, but holds {type(data).__name__}.")
    return data


def _has_long_number(text: str) -> bool:
    """Returns True if a text has as many digits in a row, in a number or elsewhere, as are too many."""
    zeros = text.encode("utf-8", "surrogatepass").translate(_AS_ZEROS)
    return b"0" * _MOST_DIGITS in zeros


def is_number(value: Any) -> bool:
    """Returns True for a finite number; a whole one may have no more digits than a float can hold."""
    # compared and not converted: a whole number beyond that is an error of its own
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_count(value: Any) -> bool:
    """Returns True for a whole number from 0 to 2^63 - 1."""
    return type(value) is int and 0 <= value < 2**63


def write_atomically(path: Path, content: bytes, *, is_named_at_once: bool = True) -> None:
    """Writes a file so that a reader sees the old or the new content, never a part.

    Args:
        path: Where.
        content: All of it, which is on the disk when it takes the place of the old.
        is_named_at_once: False if a power cut may bring the old content back for some seconds, which
            saves half of the waiting.

    Raises:
        FileError: The folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced({temporary: content})
        os.replace(temporary, path)
        if is_named_at_once:
            sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        with contextlib.suppress(OSError, ValueError):
            os.unlink(temporary)
        raise FileError(file_error(path, error)) from error


def write_synced(contents: Mapping[Path, bytes]) -> None:
    """Writes files and waits until all are on the disk; a link in the place of one is not followed.

    Waiting once all are written takes two thirds of the time of waiting for each.

    Raises:
        OSError: One cannot be written; parts of them may be there.
    """
    write(contents, os.fsync)


def write(contents: Mapping[Path, bytes], then: Callable[[int], object] | None = None) -> None:
    """Writes files; a link in the place of one is not followed.

    Args:
        contents: What to write where.
        then: Called with the descriptor of each once all are written.

    Raises:
        OSError: One cannot be written; parts of them may be there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINKS | _BINARY
    descriptors = []
    try:
        for path, content in contents.items():
            descriptors.append(os.open(path, flags, 0o666))
            write_all(descriptors[-1], content)
        if then is not None:
            for descriptor in descriptors:
                then(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of some bytes, however many the system takes at a time.

    Raises:
        OSError: The system refused; a part may be written.
    """
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk.

    Raises:
        OSError: The system refused.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path, most: int, *, start: int | None = None) -> bytes:
    """Returns the bytes of a plain file; anything else is refused without waiting for it.

    Args:
        path: The file; whoever reads what lies in a folder has looked at the folder for links.
        most: Bytes it may have.
        start: Read no more than so many bytes from the start; the file may then be of any size.

    Raises:
        FileError: It is missing, no plain file, or too large; with an `OSError` as its cause if the
            disk could not be read, which may pass.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise FileError(f"{path} must be a file, but there is none.") from None
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileError(f"{path} must be a plain file, but is {_kind(found.st_mode)}.")
        if start is None and found.st_size > most:
            raise FileError(f"{path} must have at most {most:,} bytes, but has {found.st_size:,}.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most if start is None else start)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    finally:
        os.close(descriptor)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yields the lines of a plain file with their ends, one in memory at a time.

    A table may have any number of lines, but none that is longer than a table's ever are: a file
    that claims to be enormous has no line ends.

    Raises:
        FileError: As `read_plain`, or a line is too long.
    """
    read_plain(path, 0, start=0)  # no pipe or device, which would wait
    try:
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    raise FileError(
                        f"{path} must have lines of less than {MAX_LINE_BYTES:,} bytes, "
                        "but has a longer one."
                    )
                yield line
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error


def read_json(path: Path, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Returns the object that a file of strict JSON holds.

    Raises:
        FileError: As `read_plain` and `parse_json`, or it is not UTF-8.
    """
    content = read_plain(path, most)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise FileError(f"{path} must be text, but is not UTF-8.") from None
    return parse_json(text, str(path), most)


def refuse_links(folder: Path) -> None:
    """Raises if a folder holds anything but plain files and folders: a link, a pipe, a device.

    Writing or reading through a link would leave the folder, and a pipe would wait for ever.

    Raises:
        FileError: It does; with an `OSError` as its cause if it cannot be looked at.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError(f"{folder} must be readable, but {error.strerror or error}.") from error
    for name, mode in found:
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FileError(
                f"{folder} must hold plain files and folders alone, but {name!r} is {_kind(mode)}.",
                hint="put the file itself in its place.",
            )


def _kind(mode: int) -> str:
    """Returns what a file is, in words."""
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def file_error(path: Path, error: Exception) -> str:
    """Returns the sentence that says a file could not be written and why."""
    return f"{path} must be writable, but {getattr(error, 'strerror', None) or error}."
