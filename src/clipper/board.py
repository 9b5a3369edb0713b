"""Blocks that one process fills in, the same memory read by another out, whatever became of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.mailbox import unnamed_file

# what follows it is mapped by itself: pages of some processors are larger
_HEADER = max(4096, mmap.ALLOCATIONGRANULARITY)
_SIZE = 1 << 36  # the file is sparse


class Board:
    """Arrays in a shared file without a name.

    Args:
        file: Descriptor of the file, or None for a new one.

    Attributes:
        file: Its descriptor.
        position: The row and the environment that are being filled, int64 [2]; -1 before the first,
            how many rows there are and -1 after the last.
        place: Where who plays without rows is, int64 [5]: the environment, its episode, the seed and
            the step of this (0 for the reset), and how often it moved on.
    """

    def __init__(self, file: int | None = None) -> None:
        if file is None:
            file = unnamed_file()
            os.ftruncate(file, _SIZE)
        self.file = file
        self._maps = [mmap.mmap(file, _HEADER)]
        self.position: NDArray[np.int64] = np.frombuffer(self._maps[0], np.int64, 2)
        self.place: NDArray[np.int64] = np.frombuffer(self._maps[0], np.int64, 5, 64)
        self._shapes: list[tuple[tuple[int, ...], Any]] = []
        self._arrays: tuple[NDArray[Any], ...] = ()

    def arrays(self, shapes: Sequence[tuple[tuple[int, ...], Any]]) -> tuple[NDArray[Any], ...]:
        """Returns arrays of these shapes and types, one after the other in the file."""
        if list(shapes) != self._shapes:
            sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes]
            padded = [-(-size // 64) * 64 for size in sizes]
            view = mmap.mmap(self.file, max(sum(padded), 1), offset=_HEADER)
            found, at = [], 0
            for (shape, kind), size in zip(shapes, padded, strict=True):
                count = int(np.prod(shape))
                found.append(np.frombuffer(view, kind, count, at).reshape(shape))
                at += size
            self._maps[1:] = [view]
            self._shapes, self._arrays = list(shapes), tuple(found)
        return self._arrays

    def close(self) -> None:
        """Closes the file; arrays that are still used keep their memory."""
        os.close(self.file)
