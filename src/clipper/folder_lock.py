"""A run folder in, the lock that one process at a time has on it out; or whose it is, in words.

The lock is the system's, on the file `lock`. It ends with its process; what stands in the file is for
people.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from pathlib import Path

from clipper.errors import FileError, FolderTaken
from clipper.files import read_plain, write_all

try:
    import fcntl
except ImportError:  # Windows has no such locks; the folder is then not guarded
    fcntl = None  # type: ignore[assignment]

UNLOCKED = (
    "there are no locks on this file system: nothing keeps another process from writing here too"
)
# what stands in the lock; a host's name has at most 253 characters
_OWNER = re.compile(rb"([0-9]{1,20})(?: ([A-Za-z0-9._-]{1,253}))?\n?")
_MOST_BYTES = 300
# what the system says where another process has the lock
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
# and where the file system has no locks at all, as Lustre unless it is mounted with them
_WITHOUT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def lock_file(descriptor: int, folder: Path, *, is_shared: bool = False) -> bool | None:
    """Takes the lock of an open file; False if another process has it, None where there are no locks.

    Args:
        descriptor: The file.
        folder: What it guards, for the message.
        is_shared: Take one that others may have too, to see whether anybody has it alone.

    Raises:
        FileError: There are locks, but this one cannot be had now, for another reason.
    """
    try:
        if fcntl is not None:
            how = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _WITHOUT:
            return None
        raise FileError(
            f"{folder} must be where a file can be locked, but {error.strerror or error}.",
            hint="on a network drive its lock service must run; write runs to a local disk and copy "
            "them when they have ended.",
        ) from error
    return True


def sign(descriptor: int) -> None:
    """Writes into a lock whose it is: the process and, for network drives, the machine."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        write_all(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())


def check_free(path: Path) -> None:
    """Raises if another process is writing a run folder; a lock of a dead one does not count.

    Raises:
        FolderTaken: It is.
        FileError: The lock cannot be looked at.
    """
    try:
        lock = open(path / "lock", "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    with lock:
        if lock_file(lock.fileno(), path, is_shared=True) is False:
            raise taken(path)


def taken(path: Path) -> FolderTaken:
    """Returns the error of a folder that another process writes, which its lock names."""
    whose = ""
    with contextlib.suppress(FileError):
        # the first locks had the number alone
        if found := _OWNER.fullmatch(read_plain(path / "lock", _MOST_BYTES, start=_MOST_BYTES)):
            number, host = (part and part.decode() for part in found.groups())
            if number == str(os.getpid()) and host in (None, socket.gethostname()):
                return FolderTaken(
                    f"{path} must not be in use, but an agent of this very process is writing it.",
                    hint="call close() on that agent first.",
                )
            whose = f" (its number is {number}{f' on {host}' if host else ''})"
    return FolderTaken(
        f"{path} must not be in use, but another process is writing it{whose}.",
        hint="wait until it has ended, or stop it.",
    )
