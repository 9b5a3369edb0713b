"""Laws of drawing on a machine without a display."""

from __future__ import annotations

import os
import sys

import pytest

from clipper import headless
from clipper.headless import headless_hint, prepare_headless


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")  # restored afterwards, whatever the code sets
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")


def libraries(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    monkeypatch.setattr(
        headless.ctypes.util, "find_library", lambda name: name if name in installed else None
    )


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize(
    ("installed", "backend"),
    [(("EGL", "OSMesa"), "egl"), (("OSMesa",), "osmesa"), ((), None)],
)
def test_headless_drivers(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], backend: str | None
) -> None:
    """Without a display SDL draws into memory, MuJoCo with what is there, or a hint says what."""
    libraries(monkeypatch, *installed)
    prepare_headless()
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
    assert os.environ["SDL_AUDIODRIVER"] == "dummy"
    assert os.environ.get("MUJOCO_GL") == backend
    hint = headless_hint()
    assert (hint is None) == (backend is not None)


@pytest.mark.usefixtures("_no_settings")
def test_headless_leaves_a_display_and_the_users_settings_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is set stays set; where there is a display nothing is set."""
    libraries(monkeypatch, "EGL")
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    prepare_headless()
    assert (os.environ["SDL_VIDEODRIVER"], os.environ["MUJOCO_GL"]) == ("x11", "glfw")
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER", "MUJOCO_GL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    prepare_headless()
    assert "SDL_VIDEODRIVER" not in os.environ
    assert "MUJOCO_GL" not in os.environ
