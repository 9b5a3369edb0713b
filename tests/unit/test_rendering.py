"""Frames in, files out: what a player sees, how long it lasts, and what is left after a fault."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipper.errors import ClipperError, ConfigError, EnvironmentFault, FileError
from clipper.rendering import (
    VideoWriter,
    check_video_path,
    draw_caption,
)

SKY, BALL = (20, 60, 140), (250, 200, 30)


def ball(i: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A 6 x 6 ball that moves 3 pixels a frame over a flat sky, from the left again and again."""
    frame = np.full((height, width, 3), SKY, np.uint8)
    x = 3 * i % 72
    frame[20:26, x : x + 6] = BALL
    return frame


def write(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.add(frame)
    return path


def gif_frames(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """The pictures a GIF player shows, and for how many milliseconds each."""
    pictures, delays = [], []
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.info["loop"] == 0  # for ever
        for i in range(image.n_frames):
            image.seek(i)
            pictures.append(np.asarray(image.convert("RGB")))
            delays.append(image.info["duration"])
    return pictures, delays


def mp4_frames(path: Path) -> list[np.ndarray]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_gif_shows_the_frames_exactly_when_their_colours_are_few(tmp_path: Path) -> None:
    """With at most 255 colours every frame comes back to the bit."""
    frames = [ball(i) for i in range(20)]
    pictures, delays = gif_frames(write(tmp_path / "a.gif", frames, fps=10))
    assert len(pictures) == 20
    np.testing.assert_array_equal(pictures, frames)
    assert delays == [100] * 20


@pytest.mark.parametrize(
    ("fps", "num_frames", "pictures", "first", "total"),
    [
        # 50 fps: every second frame, 40 ms each: 25 last 1 s, and the skipped last frame follows
        (50, 50, 26, 40, 1040),
        # 60 fps: every second frame at 33.3 ms: 12 last 0.4 s, and the last frame follows
        (60, 24, 13, 30, 430),
        # 50 fps and an odd number: the last frame is one of those kept; 26 last 1.02 s
        (50, 51, 26, 40, 1020),
        # 30 fps: every frame; the sum is again right
        (30, 24, 24, 30, 800),
        # 4 fps: every frame, a quarter of a second each
        (4, 8, 8, 250, 2000),
    ],
)
def test_gif_keeps_real_time(
    tmp_path: Path, fps: float, num_frames: int, pictures: int, first: int, total: int
) -> None:
    """A GIF keeps real time, shows the last frame, and no picture is shorter than browsers honour."""
    found, delays = gif_frames(write(tmp_path / "a.gif", [ball(i) for i in range(num_frames)], fps))
    assert (
        found[-1] == gif_frames(write(tmp_path / "b.gif", [ball(num_frames - 1)], fps))[0][0]
    ).all()
    assert len(found) == pictures
    assert sum(delays) == total
    assert delays[0] == first
    assert min(delays[:-1]) >= 30
    assert delays[-1] >= 20


def test_gif_merges_frames_that_are_the_same(tmp_path: Path) -> None:
    """A picture that stands is stored once and shown for the whole time."""
    frames = [ball(0)] * 5 + [ball(1)] * 3
    pictures, delays = gif_frames(write(tmp_path / "a.gif", frames, fps=10))
    assert len(pictures) == 2
    assert delays == [500, 300]


def test_gif_of_one_frame(tmp_path: Path) -> None:
    """One frame makes a GIF of one picture."""
    pictures, _ = gif_frames(write(tmp_path / "a.gif", [ball(0)], fps=10))
    np.testing.assert_array_equal(pictures, [ball(0)])


def test_gif_with_many_colours_is_close_and_does_not_flicker(tmp_path: Path) -> None:
    """Of thousands of colours the picture stays close, and what stands still has one colour."""
    ramp = np.linspace(0, 255, 240).astype(np.uint8)
    still = np.zeros((60, 240, 3), np.uint8)
    still[..., 0], still[..., 1], still[..., 2] = ramp, ramp[::-1], ramp[60:120, None]
    frames = []
    for i in range(12):
        frame = still.copy()
        frame[5:15, 10 * i : 10 * i + 10] = (255, 20 * i, 0)
        frames.append(frame)
    pictures, _ = gif_frames(write(tmp_path / "a.gif", frames, fps=10))
    error = np.abs(np.array(pictures, np.int16) - np.array(frames, np.int16))
    assert error.mean() < 6
    assert error.max() < 60
    standing = np.array(pictures)[:, 20:]
    assert (standing == standing[0]).all()


def test_gif_keeps_small_things_in_their_colour(tmp_path: Path) -> None:
    """Four red pixels survive in a picture with far more than 255 other colours."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(6):
        frame = np.zeros((100, 100, 3), np.uint8)
        frame[..., 1:] = rng.integers(100, 256, (100, 100, 2))
        frame[50:52, 50:52] = (255, 0, 0)
        frames.append(frame)
    pictures, _ = gif_frames(write(tmp_path / "a.gif", frames, fps=10))
    red, green, blue = pictures[3][50, 50].astype(int)
    assert red > 200
    assert green < 60
    assert blue < 60


def test_gif_of_a_moving_thing_on_a_still_background_is_small(tmp_path: Path) -> None:
    """Only what moves is stored: 100 frames of 600 x 400 with a 6 x 6 ball take under 60 kB."""
    rng = np.random.default_rng(0)
    background = np.repeat(rng.integers(0, 256, (400, 75, 1), np.uint8), 8, axis=1)
    background = np.repeat(background, 3, axis=2) & 0b11000000  # 4 greys
    frames = []
    for i in range(100):
        frame = background.copy()
        frame[20:26, 3 * i : 3 * i + 6] = BALL
        frames.append(frame)
    one = write(tmp_path / "one.gif", frames[:1], fps=25).stat().st_size
    many = write(tmp_path / "many.gif", frames, fps=25).stat().st_size
    # 99 frames of some 12 x 6 pixels, header included, are not 300 bytes each
    assert many < one + 99 * 300


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Ten times the frames need no more Python and numpy memory."""
    import tracemalloc

    def peak(count: int) -> int:
        tracemalloc.start()
        with VideoWriter(tmp_path / "a.gif", 10) as video:
            for i in range(count):
                video.add(np.full((200, 200, 3), i % 256, np.uint8))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # imports
    assert peak(200) < peak(20) + 1_000_000  # a frame is 120 kB, 180 of them 21 MB


@pytest.mark.parametrize(("height", "width"), [(60, 80), (61, 81)])
def test_mp4_shows_every_frame(tmp_path: Path, height: int, width: int) -> None:
    """Every frame comes back in roughly its colours; odd sides are padded by one pixel."""
    frames = [ball(i, height, width) for i in range(20)]
    pictures = mp4_frames(write(tmp_path / "a.mp4", frames, fps=50))
    assert len(pictures) == 20
    assert pictures[0].shape == (60 + height % 2 * 2, 80 + width % 2 * 2, 3)
    for picture, frame in zip(pictures, frames, strict=True):
        error = np.abs(picture[:height, :width].astype(int) - frame)
        assert error.mean() < 6
    i = 10
    np.testing.assert_allclose(
        pictures[i][22:24, 3 * i + 2 : 3 * i + 4].mean((0, 1)), BALL, atol=30
    )


@pytest.mark.parametrize("fps", [4.0, 12.5, 29.97, 50.0])
def test_mp4_keeps_real_time(tmp_path: Path, fps: float) -> None:
    """An MP4 lasts num_frames / fps and can start to play before it is loaded."""
    av = pytest.importorskip("av")
    path = write(tmp_path / "a.mp4", [ball(i) for i in range(16)], fps)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(16 / fps, abs=0.02)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((60, 80, 3), np.float32),
        np.zeros((60, 80), np.uint8),
        np.zeros((60, 80, 4), np.uint8),
        np.zeros((0, 80, 3), np.uint8),
        None,
        [ball(0)],
    ],
)
def test_what_is_no_frame_is_refused(tmp_path: Path, suffix: str, frame: object) -> None:
    """A frame is uint8 [H, W, 3]; anything else is an error that says what it was."""
    path = tmp_path / f"a.{suffix}"
    with pytest.raises(EnvironmentFault, match=r"uint8 of shape \[H, W, 3\], but is"):
        write(path, [frame], fps=10)  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    """All frames have the size of the first."""
    with pytest.raises(EnvironmentFault, match=r"\(60, 80, 3\), but one has \(60, 82, 3\)"):
        write(tmp_path / "a.gif", [ball(0), ball(0, width=82)], fps=10)


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_video_without_frames_is_an_error(tmp_path: Path, suffix: str) -> None:
    """Nothing added makes no file."""
    with (
        pytest.raises(ClipperError, match="at least one frame"),
        VideoWriter(tmp_path / f"a.{suffix}", 10),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_must_be_a_positive_number(tmp_path: Path, fps: float) -> None:
    """fps is checked before a frame is drawn."""
    with pytest.raises(ConfigError, match="fps must be"):
        VideoWriter(tmp_path / "a.gif", fps)


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_midway_leaves_the_old_file(
    tmp_path: Path, suffix: str, fault: type[BaseException]
) -> None:
    """Until the block ends well the old file stands, and nothing else is left beside it."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")

    def play() -> Iterator[np.ndarray]:
        yield ball(0)
        raise fault

    with pytest.raises(fault):
        write(path, play(), fps=10)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize("limit", [100, 20_000])
def test_a_full_disk_is_a_file_error(tmp_path: Path, suffix: str, limit: int) -> None:
    """When writing fails the error names file and cause, and the old file stands."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    code = f"""
        import resource
        import numpy as np
        from clipper.errors import FileError
        from clipper.rendering import VideoWriter
        rng = np.random.default_rng(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
        try:
            with VideoWriter({str(path)!r}, 10) as video:
                for _ in range(20):
                    video.add(rng.integers(0, 256, (100, 100, 3), np.uint8))
        except FileError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path} must be writable, but File too large.\n"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_check_video_path_makes_the_folder(tmp_path: Path) -> None:
    """A path that can be written is returned, and its folder is there."""
    path = tmp_path / "new" / "deeper" / "Episode.GIF"
    assert check_video_path(str(path)) == path
    assert path.parent.is_dir()


def test_check_video_path_wants_a_known_suffix(tmp_path: Path) -> None:
    """Another suffix is refused, and the hint writes a right one."""
    with pytest.raises(ConfigError, match=r"must end in \.gif or \.mp4") as error:
        check_video_path(tmp_path / "a.avi")
    assert error.value.hint is not None
    assert str(tmp_path / "a.gif") in error.value.hint
    with pytest.raises(ConfigError):
        check_video_path("")


def test_check_video_path_says_what_mp4_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package av, MP4 is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="needs the package av") as error:
        check_video_path(tmp_path / "a.mp4")
    assert 'pip install "clipper-rl[video]"' in str(error.value)
    check_video_path(tmp_path / "a.gif")


def test_check_video_path_wants_a_folder_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the place of the folder, a folder in the place of the file, no right to write."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="must be writable, but"):
        check_video_path(tmp_path / "file" / "a.gif")
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(FileError, match="but is a folder"):
        check_video_path(tmp_path / "folder.gif")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    with pytest.raises(FileError, match="but its folder is not"):
        check_video_path(tmp_path / "a.gif")


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (84, 84), (210, 160), (400, 600), (1080, 1920)]
)
def test_caption_is_light_on_dark_top_left(height: int, width: int) -> None:
    """Light letters stand on a dark strip that takes a small part of any frame."""
    frame = np.full((height, width, 3), 200, np.uint8)
    captioned = draw_caption(frame, "return 123.4")
    assert captioned.shape == frame.shape
    assert captioned.dtype == np.uint8
    assert (frame == 200).all()
    rows, columns = np.nonzero((captioned != 200).any(2))
    assert rows.min() == 0
    assert columns.min() == 0
    assert rows.max() < height * 0.35
    strip = captioned[: rows.max() + 1, : columns.max() + 1].astype(int).mean(2)
    assert (strip < 110).mean() > 0.5  # the strip
    assert 0.02 < (strip > 180).mean() < 0.4  # the letters
    assert (strip[:, -len(strip) :] > 150).any()  # they reach its right end


def test_caption_too_long_for_the_frame_is_wrapped() -> None:
    """A long caption gets more lines, not letters outside the frame."""
    frame = np.full((64, 64, 3), 200, np.uint8)

    def rows(text: str) -> int:
        return int((draw_caption(frame, text) != 200).any((1, 2)).sum())

    assert rows("episode 12 return -123.4") > rows("return 1")
    assert rows("a" * 100) < 64  # one word is cut
    assert rows("two\nlines") > rows("one")


def test_caption_of_nothing_changes_nothing() -> None:
    """No text, no strip; a frame of one pixel is no trouble."""
    frame = ball(3)
    np.testing.assert_array_equal(draw_caption(frame, " "), frame)
    assert draw_caption(np.zeros((1, 1, 3), np.uint8), "return 1").shape == (1, 1, 3)


def test_rendering_imports_neither_torch_nor_gymnasium() -> None:
    """The module stands alone, and av waits until an MP4 is written."""
    code = (
        "import sys, clipper.rendering; "
        "print([m for m in ('torch', 'gymnasium', 'av', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
