"""Frames of an environment in, a GIF or MP4 file out.

Memory does not grow with the length: MP4 frames go to the encoder one by one, GIF frames to an
unnamed spool file until all their colours are known. H and W are a frame's height and width.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipper.errors import ClipperError, ConfigError, EnvironmentFault, FileError
from clipper.gif import Frame, GifEncoder


def check_video_path(path: str | Path) -> Path:
    """Returns the path if a video can be written there; makes its folder.

    Raises:
        ConfigError: The suffix is not `.gif` or `.mp4`, or the package for MP4 is missing.
        FileError: The folder cannot be made or written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ConfigError(
            f"a video's file name must end in .gif or .mp4, but is {target.name!r}.",
            hint=f"write {target.with_suffix('.gif') if target.name else 'episode.gif'}.",
        )
    if suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"writing MP4 needs the package av, but importing it failed: {error}.",
                hint=f'pip install "clipper-rl[video]", or write {target.with_suffix(".gif")}.',
            ) from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    if target.is_dir():
        raise FileError(f"{target} must be a file, but is a folder.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise FileError(f"{target} must be writable, but its folder is not.")
    return target


def draw_caption(frame: Frame, text: str) -> Frame:
    """Returns a copy of the frame with light text on a dark, half transparent strip, top left.

    Args:
        frame: Colours, uint8 [H, W, 3].
        text: One or more lines; a line too long for the frame is set smaller, then wrapped.

    Raises:
        EnvironmentFault: The frame is not uint8 of shape [H, W, 3].
    """
    _check_frame(frame)
    if not text.strip():
        return frame.copy()
    height, width = frame.shape[:2]
    size = min(max(10, round(min(height, width * 0.75) / 22)), 48)
    pad = max(2, size // 3)
    room = width - 2 * pad
    while size > 9 and _text_width(text, size) > room:
        size -= 1
    text = "\n".join(part for line in text.splitlines() for part in _wrap(line, size, room))
    canvas = ImageDraw.Draw(Image.new("L", (1, 1)))
    box = canvas.multiline_textbbox((pad, pad // 2), text, font=_font(size))
    right, bottom = min(width, int(box[2]) + pad + 1), min(height, int(box[3]) + pad)
    strip = (frame[:bottom, :right] * 0.35 + 0.65 * 24).astype(np.uint8)
    image = Image.fromarray(strip)
    draw = ImageDraw.Draw(image)
    draw.multiline_text((pad, pad // 2), text, font=_font(size), fill=(240, 240, 240))
    captioned = frame.copy()
    captioned[:bottom, :right] = np.asarray(image)
    return captioned


class VideoWriter:
    """A GIF or MP4 file that appears under its name when the `with` block ends without an error.

    A GIF keeps real time: of an environment with more than 33 frames a second it shows every
    second, third ... frame.

    Args:
        path: Ends in `.gif` or `.mp4`.
        fps: Frames a second of the environment, above 0.

    Raises:
        ConfigError: The suffix or fps is wrong, or the package for MP4 is missing.
        FileError: The folder cannot be written.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = check_video_path(path)
        if not (math.isfinite(fps) and 0 < fps <= 1e6):
            raise ConfigError(f"fps must be a number above 0 and at most 1e6, but is {fps!r}.")
        self._fps = fps
        self._temporary = self.path.with_name(f".{self.path.name}.tmp-{os.getpid()}")
        self._encoder: _Encoder | None = None  # it needs the size of the first frame
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        return self

    def add(self, frame: Frame) -> None:
        """Appends a frame.

        Args:
            frame: Colours, uint8 [H, W, 3], of the size of the first.

        Raises:
            EnvironmentFault: It is something else.
            FileError: The file cannot be written, for example because the disk is full.
        """
        _check_frame(frame)
        if self._encoder is not None and frame.shape != self._shape:
            raise EnvironmentFault(
                f"every frame must have the shape of the first, {self._shape}, "
                f"but one has {frame.shape}.",
                hint="let render() return pictures of one size.",
            )
        with self._file_errors():
            if self._encoder is None:
                self._shape = frame.shape
                make = GifEncoder if self.path.suffix.lower() == ".gif" else _Mp4Encoder
                self._encoder = make(self._temporary, self._shape, self._fps)
            self._encoder.add(frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._encoder is not None:
                self._encoder.abandon()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._encoder is None:
            raise ClipperError(f"{self.path} must show at least one frame, but none was added.")
        with self._file_errors():
            self._encoder.finish()
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)

    @contextlib.contextmanager
    def _file_errors(self) -> Iterator[None]:
        try:
            yield
        except _write_errors() as error:
            raise _unwritable(self.path, error) from error


class _Encoder(Protocol):
    """Writes a file: `add` frames, then `finish`; `abandon` closes what is open, at any time."""

    def __init__(self, file: Path, shape: tuple[int, ...], fps: float) -> None: ...
    def add(self, frame: Frame) -> None: ...
    def finish(self) -> None: ...
    def abandon(self) -> None: ...


class _Mp4Encoder:
    """H.264 (MPEG-4 where that is missing) that browsers play before it is loaded to the end."""

    def __init__(self, file: Path, shape: tuple[int, ...], fps: float) -> None:
        import av

        self._av = av
        self._pad = ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0))
        options = {"movflags": "faststart"}
        self._container = av.open(str(file.absolute()), "w", format="mp4", options=options)
        has_h264 = "libx264" in av.codecs_available
        rate = Fraction(fps).limit_denominator(1001)
        quality = {"crf": "20", "preset": "veryfast"} if has_h264 else {"qscale": "3"}
        self._stream: Any = self._container.add_stream(
            "libx264" if has_h264 else "mpeg4", rate, quality
        )
        self._stream.width = shape[1] + shape[1] % 2
        self._stream.height = shape[0] + shape[0] % 2
        self._stream.pix_fmt = "yuv420p"
        # the matrix that from_ndarray's RGB is converted with, said so that players use it too
        self._stream.codec_context.colorspace = 5  # BT.601
        self._stream.codec_context.color_range = 1  # limited

    def add(self, frame: Frame) -> None:
        even = np.pad(frame, self._pad, mode="edge")  # yuv420p halves both sides
        picture = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        with contextlib.suppress(*_write_errors()):
            self._container.close()


def _check_frame(frame: object) -> None:
    found = type(frame).__name__
    if isinstance(frame, np.ndarray):
        if frame.dtype == np.uint8 and frame.shape[2:] == (3,) and frame.size > 0:
            return
        found = f"{frame.dtype} of shape {list(frame.shape)}"
    raise EnvironmentFault(
        f"a frame must be uint8 of shape [H, W, 3], but is {found}.",
        hint="render() must return that when render_mode is 'rgb_array'.",
    )


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> float:
    return max((_font(size).getbbox(line)[2] for line in text.splitlines()), default=0)


def _wrap(line: str, size: int, room: float) -> list[str]:
    """Returns the line as lines no wider than the room; a word that is too wide is cut."""
    lines = [""]
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if _text_width(longer, size) <= room:
            lines[-1] = longer
            continue
        while len(word) > 1 and _text_width(word, size) > room:
            word = word[:-2] + "…"
        lines.append(word)
    return [found.rstrip() for found in lines if found.strip()]


def _write_errors() -> tuple[type[Exception], ...]:
    """Returns what writing a video raises; not all that av raises is an OSError."""
    av = sys.modules.get("av")
    return (OSError,) if av is None else (OSError, av.FFmpegError)


def _unwritable(path: Path, error: Exception) -> FileError:
    return FileError(f"{path} must be writable, but {getattr(error, 'strerror', '') or error}.")
