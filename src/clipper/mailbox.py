"""Bytes from one process in, the same bytes in another out; safe to be interrupted anywhere.

The content lies in a shared file without a name, and a numbered note of sixteen bytes goes through
a pipe, which is written and read in one piece or not at all. Whoever was interrupted while waiting
asks anew under the next number, and notes of older numbers are passed over. Two slots take turns,
so that a message is not overwritten before the next one but one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

_NOTE = struct.Struct("<QQ")
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_SLOT = 1 << 36  # the files are sparse


class Mailbox:
    """One direction between two processes.

    Args:
        file: Descriptor of the file with the contents.
        pipe: Descriptor of this process's end of the pipe.
    """

    def __init__(self, file: int, pipe: int) -> None:
        self.file = file
        self.pipe = pipe

    def write(self, number: int, content: bytes) -> None:
        """Leaves a message.

        Args:
            number: Above that of the last message.
            content: What is to be read.

        Raises:
            OSError: Nobody is left to read it, or memory ran out.
        """
        at = number % 2 * _SLOT
        rest = memoryview(content)
        while rest:
            count = os.pwrite(self.file, rest, at)
            rest, at = rest[count:], at + count
        os.write(self.pipe, _NOTE.pack(number, len(content)))

    def wait(self, seconds: float) -> bool:
        """Returns True as soon as there is a message or the other process has ended, else False."""
        return bool(readable([self.pipe], seconds))

    def read(self, number: int = 0) -> tuple[int, bytes]:
        """Waits for a message of that number or a later one, and returns its number and content.

        Raises:
            EOFError: The other process has ended.
        """
        found = -1
        while found < number:
            note = os.read(self.pipe, _NOTE.size)
            if not note:
                raise EOFError
            found, length = _NOTE.unpack(note)
        at, parts = found % 2 * _SLOT, []
        while length:
            parts.append(os.pread(self.file, length, at))
            length, at = length - len(parts[-1]), at + len(parts[-1])
        return found, b"".join(parts)

    def close(self) -> None:
        """Closes both descriptors; the other process's reading ends."""
        for descriptor in (self.file, self.pipe):
            os.close(descriptor)


def mailbox() -> tuple[Mailbox, Mailbox]:
    """Returns the two ends of a new mailbox: to write and to read; neither is inherited."""
    reading, writing = os.pipe()
    file = unnamed_file()
    return Mailbox(file, writing), Mailbox(os.dup(file), reading)


def readable(descriptors: Sequence[int], seconds: float | None) -> list[int]:
    """Returns those of which there is something to read, or whose other end was closed.

    Waits so long for the first; None for as long as it takes. `select` knows none from 1024 on.
    """
    if not hasattr(select, "poll"):
        return list(select.select(descriptors, [], [], seconds)[0])
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [ready for ready, _ in poll.poll(None if seconds is None else 1000.0 * seconds)]


def unnamed_file() -> int:
    """Returns the descriptor of a new file in memory, or without a name on the disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clipper")
    with tempfile.TemporaryFile() as named:  # macOS
        return os.dup(named.fileno())


def end_with(parent: int, is_of_main_thread: bool = False) -> None:
    """Ends this process soon after its parent has ended, whatever it is doing then.

    On Linux the system does it at once, also in a call that keeps Python from running its threads.

    Args:
        parent: Number of the parent process.
        is_of_main_thread: True if the parent's main thread started this process: the system looks at
            the end of that thread.
    """
    if sys.platform == "linux" and is_of_main_thread:
        with contextlib.suppress(OSError, AttributeError):  # no such call: the thread does it alone
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
