"""Frames in, a GIF out: one palette for all of them, only what changed from frame to frame.

H and W are a frame's height and width. Pillow does the compression.
"""

from __future__ import annotations

import contextlib
import math
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image

Frame = NDArray[np.uint8]

# browsers play GIF frames shorter than 20 ms at 100 ms; 30 ms also halves the file of a 50 fps env
MIN_GIF_DELAY_SECONDS = 0.03
# 255 colours of a GIF's palette are for the picture, this index means: as in the frame before
_UNCHANGED = 255
# colours taken into the palette as they are; the rest of it is shared by all others
_EXACT_COLOURS = 64


class GifEncoder:
    """GIF with one palette for all frames, so that nothing that stands still can flicker.

    A pixel's colour, cut to 6 bits a channel, is its key; the palette is a function of key. The
    keys of all frames are spooled, compressed, until it is known how often each occurs.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], fps: float) -> None:
        self._fps = fps
        self._stride = max(1, math.ceil(fps * MIN_GIF_DELAY_SECONDS - 1e-9))
        self._file = open(file, "wb")  # noqa: SIM115 - closed in abandon
        self._spool = tempfile.TemporaryFile(dir=file.parent)  # noqa: SIM115
        self._num_added = 0
        self._kept: list[int] = []
        self._skipped: Frame | None = None
        self._keys: NDArray[np.uint32] = np.zeros(shape[:2], np.uint32)
        # per key: how many pixels turned to it, and the sums of their colours
        self._totals = np.zeros((4, 1 << 18))

    def add(self, frame: Frame) -> None:
        """Takes a frame; of fast films only every second or third is kept, and the very last."""
        is_due = self._num_added % self._stride == 0
        self._num_added += 1
        self._skipped = None if is_due else frame.copy()
        if is_due:
            self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        parts = (frame >> 2).astype(np.uint32)
        keys = np.bitwise_or.reduce(parts << np.array([12, 6, 0], np.uint32), axis=2)
        fresh = keys != self._keys if self._kept else np.ones(keys.shape, bool)
        found, colours = keys[fresh], frame[fresh]
        self._totals[0] += np.bincount(found, minlength=1 << 18)
        for channel in range(3):
            self._totals[channel + 1] += np.bincount(found, colours[:, channel], 1 << 18)
        _spool(self._spool, (keys ^ self._keys).tobytes())
        self._keys = keys
        self._kept.append(self._num_added - 1)

    def finish(self) -> None:
        """Writes the file."""
        if self._skipped is not None:
            # where the next kept frame would stand: the film is then that much longer
            self._num_added = self._kept[-1] + self._stride + 1
            self._keep(self._skipped)
            self._num_added += self._stride - 1
        palette, index_of_key = _choose_palette(self._totals)
        height, width = self._keys.shape
        self._file.write(_gif_header(width, height, palette))
        self._spool.seek(0)
        keys = np.zeros_like(self._keys)
        shown = np.full(keys.shape, _UNCHANGED, np.uint8)
        pending: tuple[Frame, tuple[int, int], int] | None = None
        for i in self._kept:
            keys ^= np.frombuffer(_unspool(self._spool), np.uint32).reshape(keys.shape)
            frame = index_of_key[keys]
            if pending is None or (frame != shown).any():
                self._write(pending, until=i)
                pending = (*_changes(frame, shown), i)
            shown = frame
        self._write(pending, until=self._num_added)
        self._file.write(b";")
        self._file.close()

    def _write(self, picture: tuple[Frame, tuple[int, int], int] | None, until: int) -> None:
        """Writes a picture shown from its own frame number until another."""
        if picture is None:
            return
        pixels, corner, since = picture
        delay = round(100 * until / self._fps) - round(100 * since / self._fps)
        blocks = GifImagePlugin.getdata(
            Image.fromarray(pixels),
            corner,
            duration=10 * min(max(delay, 2), 65535),  # ms
            transparency=_UNCHANGED,
            disposal=1,
        )
        self._file.write(b"".join(blocks))

    def abandon(self) -> None:
        """Closes what is open, at any time."""
        for file in (self._file, self._spool):
            with contextlib.suppress(OSError):  # closing writes what is buffered
                file.close()


def _choose_palette(totals: NDArray[np.float64]) -> tuple[Frame, NDArray[np.uint8]]:
    """Returns 255 colours [255, 3] for the keys that occur, and each key's index among them."""
    (used,) = np.nonzero(totals[0])
    counts = totals[0][used]
    colours = (totals[1:, used] / counts).T  # [K, 3]
    order = np.argsort(-counts, kind="stable")
    palette = np.zeros((_UNCHANGED, 3), np.uint8)
    if len(used) <= _UNCHANGED:
        palette[: len(used)] = np.round(colours)
    else:
        palette[:_EXACT_COLOURS] = np.round(colours[order[:_EXACT_COLOURS]])
        rest = order[_EXACT_COLOURS:]
        # the root keeps small things (a flag, a flame) from drowning in large ones
        repeats = np.ceil(np.sqrt(counts[rest] / counts[rest].min())).clip(max=100).astype(int)
        sample = np.repeat(np.round(colours[rest]).astype(np.uint8), repeats, axis=0)
        reduced = Image.fromarray(sample[None]).quantize(_UNCHANGED - _EXACT_COLOURS, kmeans=1)
        found = np.array(reduced.getpalette() or [], np.uint8).reshape(-1, 3)
        found = found[: _UNCHANGED - _EXACT_COLOURS]
        palette[_EXACT_COLOURS : _EXACT_COLOURS + len(found)] = found
    index_of_key = np.zeros(totals.shape[1], np.uint8)
    wide = palette.astype(np.float64)
    for part in np.array_split(np.arange(len(used)), 1 + len(used) // 4096):
        distance = ((colours[part, None] - wide) ** 2).sum(-1)  # [K, 255]
        index_of_key[used[part]] = distance.argmin(1)
    return palette, index_of_key


def _changes(frame: Frame, shown: Frame) -> tuple[Frame, tuple[int, int]]:
    """Returns the smallest box around what changed, the rest transparent, and its (x, y)."""
    changed = frame != shown
    rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    pixels = np.where(changed[box], frame[box], np.uint8(_UNCHANGED))
    return pixels, (int(columns[0]), int(rows[0]))


def _gif_header(width: int, height: int, palette: Frame) -> bytes:
    """Returns the start of a GIF that loops for ever, with a table of 256 colours."""
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0)
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    return screen + palette.tobytes() + bytes(3) + loop


def _spool(file: IO[bytes], data: bytes) -> None:
    packed = zlib.compress(data, 1)
    file.write(struct.pack("<Q", len(packed)) + packed)


def _unspool(file: IO[bytes]) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    return zlib.decompress(file.read(length))
