"""An instance in, what its spaces, extreme actions and pictures do wrong out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from clipper.action_layout import ActionLayout
from clipper.envs.check_parts import breaches, parts_of
from clipper.envs.check_subject import (
    Instance,
    Subject,
    Unplayable,
    describe_error,
)
from clipper.errors import SpaceError
from clipper.spaces import ObservationLayout

_MOST_ACTIONS = 64
_REPEATS = 3


def look_at_support(subject: Subject, instance: Instance) -> None:
    """Tells whether Clipper learns from these spaces, and what is odd about their bounds."""
    env = instance.env
    for kind, layout, space in (
        ("observation", ObservationLayout, env.observation_space),
        ("action", ActionLayout, env.action_space),
    ):
        try:
            layout(space)
        except SpaceError as error:
            subject.tell(
                "space_not_supported",
                error.message,
                error.hint or "wrap the environment so that its space is one of those.",
                part=kind,
                space=str(space),
            )
    if isinstance(env.action_space, spaces.Box):
        _bounds(subject, env.action_space)


def _bounds(subject: Subject, space: spaces.Box) -> None:
    low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
    if low.size == 0:
        return
    unbounded = ~(np.isfinite(low) & np.isfinite(high))
    if unbounded.any():
        at = int(np.flatnonzero(unbounded)[0])
        subject.tell(
            "action_bounds",
            f"every number of an action should have bounds, but number {at} goes from {low[at]:g} to "
            f"{high[at]:g}",
            "set low and high in action_space. Without them Clipper hands out what it samples, at first "
            "from a normal distribution around 0 with standard deviation 1.",
            low=low,
            high=high,
        )
        return
    scale, centre = (high - low) / 2, (high + low) / 2
    is_wide, is_aside = scale > 10, np.abs(centre) > 0.1 * scale
    if (is_wide | is_aside).any():
        at = int(np.flatnonzero(is_wide | is_aside)[0])
        subject.tell(
            "action_bounds",
            f"number {at} of an action goes from {low[at]:g} to {high[at]:g}, "
            + ("far from -1 to 1" if is_wide[at] else "not the same to both sides of 0"),
            f"nothing for Clipper, which scales [-1, 1] to the bounds; an untrained agent then acts "
            f"around {centre[at]:g}. Other libraries do not scale: Box(-1, 1), scaled in step, is right "
            "for all.",
            low=low,
            high=high,
        )


def look_at_changes(subject: Subject, instance: Instance, before: tuple[Any, Any]) -> None:
    """Tells whether a space changed while the environment was played, or differs in a new one."""
    env = instance.env
    for kind, old, now in zip(
        ("observation_space", "action_space"),
        before,
        (env.observation_space, env.action_space),
        strict=True,
    ):
        if old != now:
            subject.tell(
                "space_changes",
                f"{kind} must stay as it is after __init__, but was {old} and is {now} after play",
                "set the spaces once, in __init__; let the largest case decide their size.",
                part=kind,
            )


def look_at_second(subject: Subject, instance: Instance, before: tuple[Any, Any]) -> bool:
    """Tells whether a second instance can be made beside the first, and has the same spaces.

    Returns:
        True if there can be two.
    """
    try:
        other = subject.make("making a second instance beside the first")
    except (Exception, SystemExit) as error:
        found, hint = describe_error(error)
        subject.tell(
            "second_instance",
            f"a second instance must be possible in the same process, but {found.rstrip('.')}",
            "one environment in each process: --num-envs N --workers N-1 --eval-every 0"
            + (f" ({hint.rstrip('.')})." if hint else "."),
            again=subject.program(*subject.make_again()),
        )
        return False
    for kind, old, now in zip(
        ("observation_space", "action_space"),
        before,
        (other.env.observation_space, other.env.action_space),
        strict=True,
    ):
        if old != now:
            subject.tell(
                "spaces_differ",
                f"all instances must have the same {kind}, but one has {old} and another {now}",
                "let the spaces follow from the arguments alone, not from a random number or a counter.",
                part=kind,
            )
    _close(subject, other)
    return True


def look_at_close(subject: Subject, instance: Instance) -> bool:
    """Closes the instance and makes another; tells what fails, and returns True if it can be made."""
    _close(subject, instance)
    try:
        again = subject.make("making the environment again after close")
        again.begin(subject.seed_of(0))
    except (Exception, SystemExit) as error:
        subject.tell(
            "reopen_fails",
            f"after close a new instance must work, but {describe_error(error)[0]}",
            "let close undo what __init__ did: disconnect from servers, free ports, end processes.",
            again=subject.program("env.close()") + "\n" + subject.program("env.reset()"),
        )
        return False
    _close(subject, again)
    return True


def _close(subject: Subject, instance: Instance) -> None:
    try:
        instance.close()
    except (Exception, SystemExit) as error:
        subject.tell(
            "close_fails",
            f"close must not raise, but {describe_error(error)[0]}",
            "let close work whether or not reset or render was called. Clipper goes on, but what was "
            "to be closed may stay open.",
            again=subject.program("env.close()"),
        )


def look_at_extremes(subject: Subject) -> None:
    """Tells whether a step fails for an action at the edge of the space."""
    instance = subject.make("making an instance for extreme actions")
    try:
        _Extremes(subject, instance).run()
    except (Exception, SystemExit) as error:
        raise Unplayable(describe_error(error)[0]) from error
    finally:
        with contextlib.suppress(Exception):
            instance.close()


class _Extremes:
    """Plays extreme actions, each a few times, and remembers those since the last reset."""

    def __init__(self, subject: Subject, instance: Instance) -> None:
        self._subject = subject
        self._instance = instance
        self._parts = list(parts_of(instance.env.observation_space))
        self._seed = subject.seed_of(0)
        self._actions: list[Any] = []

    def run(self) -> None:
        """Plays them until one fails."""
        is_over = True
        for action in extreme_actions(self._instance.env.action_space):
            for _ in range(_REPEATS):
                if is_over:
                    self._instance.begin(self._seed)
                    self._actions.clear()
                is_over = self._step(action)
                if self._subject.was_told("step_raises", "step_result"):
                    return

    def _step(self, action: Any) -> bool:
        """Takes a step; returns True if the episode is over or the step fails."""
        self._actions.append(action)
        step = len(self._actions)
        where = f"action {str(action.tolist())[:60]}, step {step}, seed {self._seed}"
        evidence = {"action": action, "step": step, "seed": self._seed}
        try:
            obs, _, terminated, truncated, _ = self._instance.step(copy.deepcopy(action))
        except (Exception, SystemExit) as error:
            self._subject.tell_fault("step", error, where, self._program(), **evidence)
            return True
        for breach in breaches(obs, self._parts):
            self._subject.tell(
                breach.name,
                f"{breach.law}, but {breach.found} ({where})",
                breach.mend,
                severity=breach.severity,
                again=self._program(),
                part=breach.part,
                **evidence,
            )
        return bool(terminated) or bool(truncated)

    def _program(self) -> str:
        played = [action.tolist() for action in self._actions]
        return self._subject.program(
            "import numpy as np",
            f"env.reset(seed={self._seed})",
            f"for action in {played}:",
            f"    step = env.step(np.array(action, np.{self._actions[0].dtype})[()])",
            "print(step)",
        )


def extreme_actions(space: spaces.Space[Any]) -> Iterator[Any]:
    """Yields legal actions at the edges of a space, at most 64."""
    if isinstance(space, spaces.Discrete):
        most = min(int(space.n), _MOST_ACTIONS)
        chosen = np.unique(np.linspace(0, int(space.n) - 1, most).astype(np.int64))
        yield from (space.dtype.type(space.start + i) for i in chosen)
    elif isinstance(space, spaces.Box):
        low, high = space.low, space.high
        if np.issubdtype(space.dtype, np.floating):
            low = np.where(np.isfinite(low), low, -10.0).clip(max=high)
            high = np.where(np.isfinite(high), high, 10.0).clip(min=low)
        yield from (low.astype(space.dtype), high.astype(space.dtype))
        yield ((low.astype(np.float64) + high) / 2).astype(space.dtype)
    elif isinstance(space, spaces.MultiDiscrete):
        start = np.asarray(space.start)
        yield start.astype(space.dtype)
        yield (start + space.nvec - 1).astype(space.dtype)
        for at in list(np.ndindex(space.nvec.shape))[:_MOST_ACTIONS]:
            action = start.astype(space.dtype)
            action[at] += space.nvec[at] - 1
            yield action
    elif isinstance(space, spaces.MultiBinary):
        for bit in (0, 1):
            yield np.full(space.shape, bit, dtype=space.dtype)
