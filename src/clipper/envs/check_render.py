"""An environment's render modes in, which of them do not draw out."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from typing import Any

import numpy as np

from clipper.envs.check_subject import Instance, Subject, describe_error
from clipper.envs.names import Env
from clipper.headless import headless_hint

# those that need no window
_TRIED = ("rgb_array", "ansi")


def render_modes(env: Env) -> list[str] | None:
    """Returns the modes that the metadata lists, or None if it lists none in a way to be read."""
    modes = getattr(env, "metadata", None) or {}
    found = modes.get("render_modes", []) if isinstance(modes, dict) else None
    return [str(mode) for mode in found] if isinstance(found, (list, tuple, set)) else None


def look_at_render(subject: Subject, instance: Instance) -> None:
    """Tells whether the render modes of the metadata draw what they promise.

    Args:
        subject: The environment.
        instance: One that was made without a render mode.
    """
    env = instance.env
    modes = render_modes(env)
    chosen = getattr(env, "render_mode", None)
    if modes is None or (chosen is not None and chosen not in modes):
        listed = "is not a dict with a list" if modes is None else f"has {modes}"
        subject.tell(
            "render_undeclared",
            f"metadata['render_modes'] must list the render modes, but {listed} and render_mode is "
            f"{chosen!r}",
            'write metadata = {"render_modes": ["rgb_array"], "render_fps": 30} in the class.',
            again=subject.program("print(env.metadata, env.render_mode)"),
            render_mode=chosen,
        )
        return
    tried = [mode for mode in _TRIED if mode in modes]
    if tried and not _takes_mode(subject):
        subject.skip("render modes", "what makes the environment takes no render_mode")
        return
    for mode in tried:
        if mode == "rgb_array" and "mujoco" in sys.modules and (hint := headless_hint()):
            # it would end the process
            subject.skip("render modes", hint)
            continue
        found = _drawn(subject, mode)
        if found is not None:
            subject.tell(
                "render_fails",
                f"render_mode {mode!r} of the metadata must give {_PROMISES[mode]}, but {found}",
                "return the frame from render, and take render_mode in __init__ "
                "(self.render_mode = render_mode); or take the mode out of metadata['render_modes']. "
                "Training does not need it, clipper render does.",
                again=_program(subject, mode),
                part=mode,
            )


def _takes_mode(subject: Subject) -> bool:
    """Returns True if environments can be asked for with a render mode.

    A function that takes none is how the user makes them; a class that takes none is a defect.
    """
    maker = subject.source.maker
    if maker is None or isinstance(maker, type):
        return not subject.is_single
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in parameters)


_PROMISES = {"rgb_array": "a uint8 array [H, W, 3]", "ansi": "a str"}


def _drawn(subject: Subject, mode: str) -> str | None:
    """Returns what is wrong with the picture of a mode, or None."""
    subject.note(f"rendering with render_mode {mode!r}")
    env: Env | None = None
    try:
        env = subject.source.make(render_mode=mode)
        subject.coverage.instances += 1
        env.reset(seed=subject.seed_of(0))
        frame = env.render()
        if mode == "rgb_array" and _fault_of(frame) is None:
            env.step(env.action_space.sample())
            frame = env.render()
        if getattr(env, "render_mode", mode) != mode:
            return f"the environment made with it has render_mode {env.render_mode!r}"
    except (Exception, SystemExit) as error:
        return describe_error(error)[0]
    finally:
        if env is not None and not subject.is_single:
            with contextlib.suppress(Exception):
                env.close()
    if mode == "ansi":
        return None if isinstance(frame, str) else f"gave {_shown(frame)}"
    return _fault_of(frame)


def _fault_of(frame: Any) -> str | None:
    is_image = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3
    if is_image and frame.dtype == np.uint8 and frame.size:
        return None
    return f"gave {_shown(frame)}"


def _shown(frame: Any) -> str:
    if isinstance(frame, np.ndarray):
        return f"a {frame.dtype} array of shape {frame.shape}"
    return "None" if frame is None else f"a {type(frame).__name__}"


def _program(subject: Subject, mode: str) -> str:
    kwargs = {**subject.source.env_kwargs, "render_mode": mode}
    lines = dataclasses.replace(subject.source, env_kwargs=kwargs).as_code()
    return "\n".join([*lines, "env.reset(seed=0)", "print(env.render())"])
