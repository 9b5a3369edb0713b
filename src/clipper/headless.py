"""A machine without a display in, drivers that draw on it out."""

from __future__ import annotations

import ctypes.util
import os
import sys


def prepare_headless() -> None:
    """Chooses drivers that draw without a display; call it before an environment is rendered.

    Nothing changes where there is a display, or what the user has set. On a headless Linux, SDL
    (classic control, Box2D) draws into memory and MuJoCo through EGL or OSMesa, whichever is
    installed; see `headless_hint`.
    """
    if not _is_headless():
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    # gymnasium reads it when it first renders, so this helps even after mujoco was imported
    backend = _offscreen_backend()
    if backend is not None:
        os.environ.setdefault("MUJOCO_GL", backend)


def headless_hint() -> str | None:
    """Returns what to install for MuJoCo to draw on this machine, or None if nothing is missing."""
    if not _is_headless() or "MUJOCO_GL" in os.environ or _offscreen_backend() is not None:
        return None
    return "MuJoCo draws without a display through EGL or OSMesa: apt-get install libegl1."


def _is_headless() -> bool:
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform.startswith("linux") and not any(os.environ.get(d) for d in displays)


def _offscreen_backend() -> str | None:
    """Returns the value of MUJOCO_GL that works without a display, if its library is installed."""
    for library, backend in (("EGL", "egl"), ("OSMesa", "osmesa")):
        if ctypes.util.find_library(library) is not None:
            return backend
    return None
