"""One observation and its space in, the first law it breaks out, for every simple part of it.

Unlike `clipper.spaces` this reads any space, supported or not: an environment is looked at before it
is asked whether Clipper learns from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.envs.check_findings import Severity

# a bound is kept if float32 rounds to it
_TOLERANCE = 1e-6
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Part:
    """A simple space within an observation space.

    Attributes:
        name: Its keys, as in `['camera'][0]`; empty for a simple space.
        path: The keys that lead to it.
        space: The simple space.
    """

    name: str
    path: tuple[Any, ...]
    space: spaces.Space[Any]

    @cached_property
    def bounds(self) -> tuple[NDArray[Any] | float, NDArray[Any] | float] | None:
        """Least and greatest numbers, widened by what float32 rounds; None if there are none."""
        space = self.space
        if isinstance(space, spaces.Box):
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            with np.errstate(invalid="ignore"):
                low = low - _TOLERANCE * np.maximum(1, np.abs(low))
                high = high + _TOLERANCE * np.maximum(1, np.abs(high))
            return low, high
        if isinstance(space, spaces.Discrete):
            return float(space.start), float(space.start + space.n - 1)
        if isinstance(space, spaces.MultiDiscrete):
            start = np.asarray(space.start)
            return start, start + space.nvec - 1
        return (0.0, 1.0) if isinstance(space, spaces.MultiBinary) else None

    @cached_property
    def _limits(self) -> tuple[NDArray[Any] | float, NDArray[Any] | float] | None:
        """Bounds that no infinity keeps."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        return np.maximum(low, -_LARGEST), np.minimum(high, _LARGEST)

    def holds(self, value: Any) -> bool:
        """Returns True if a value breaks no law, quickly; False if it has to be looked at."""
        limits, space = self._limits, self.space
        if limits is None or type(value) is not np.ndarray:
            return False
        if value.dtype != space.dtype or value.shape != space.shape:
            return False
        # NaN is neither
        return bool(((value >= limits[0]) & (value <= limits[1])).all())

    @property
    def label(self) -> str:
        """The words for a message: `an observation` or `an observation's part ...`."""
        return f"an observation's part {self.name}" if self.name else "an observation"


class Breach(NamedTuple):
    """A law that a part of an observation broke; severity is None for the finding's usual one."""

    name: str
    part: str
    law: str
    found: str
    mend: str
    severity: Severity | None = None


def parts_of(space: spaces.Space[Any], path: tuple[Any, ...] = ()) -> Iterator[Part]:
    """Yields the simple spaces that a space is made of."""
    if isinstance(space, spaces.Dict):
        for key, child in space.spaces.items():
            yield from parts_of(child, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, child in enumerate(space.spaces):
            yield from parts_of(child, (*path, i))
    else:
        yield Part("".join(f"[{key!r}]" for key in path), path, space)


class Missing(LookupError):
    """A part of an observation is not there."""


def value_at(obs: Any, part: Part) -> Any:
    """Returns a part of an observation.

    Raises:
        Missing: It has none such.
    """
    for key in part.path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError):
            found = f"has {sorted(map(str, obs))}" if isinstance(obs, dict) else _shown(obs)
            raise Missing(found) from None
    return obs


def array_of(value: Any) -> NDArray[Any] | None:
    """Returns a value as an array of numbers, or None if it is something else."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return None
    return array if array.dtype.kind in "biuf" else None


def breaches(obs: Any, parts: list[Part]) -> Iterator[Breach]:
    """Yields the laws that an observation breaks, part by part."""
    for part in parts:
        try:
            value = value_at(obs, part)
        except Missing as missing:
            yield Breach(
                "obs_part_missing",
                part.name,
                f"an observation must have the part {part.name}",
                str(missing),
                "return every key of observation_space in every step and from reset.",
            )
            continue
        if not part.holds(value):
            yield from _of_part(part, value)


def _of_part(part: Part, value: Any) -> Iterator[Breach]:
    if isinstance(part.space, (spaces.Text, spaces.Graph, spaces.Sequence)):
        return
    array = array_of(value)
    if array is None:
        yield _breach(
            part,
            "obs_not_numbers",
            "be numbers",
            _shown(value),
            "return np.array([...], dtype=np.float32), every entry a number.",
        )
        return
    shape = tuple(part.space.shape or ())
    if array.shape != shape:
        yield _breach(
            part,
            "obs_shape",
            f"have the shape {shape}",
            f"has {array.shape}",
            "return the same shape in every step; pad what has no fixed length, or set "
            "observation_space to what is returned.",
        )
        return
    yield from _type_breach(part, value, array)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            bad = np.argwhere(~(np.abs(array) <= _LARGEST))
        if len(bad):
            at = bad[0].tolist()
            number = array[tuple(at)]
            too_large = " (too large for float32)" if np.isfinite(number) else ""
            yield _breach(
                part,
                "obs_not_finite",
                "have finite numbers alone",
                f"has {number}{too_large} at {at if len(at) != 1 else f'column {at[0]}'}",
                "look for a division by zero, a square root or logarithm of a negative number, or a "
                "simulation that has diverged; end the episode before that.",
            )
            return
    yield from _range_breach(part, array)


def _type_breach(part: Part, value: Any, array: NDArray[Any]) -> Iterator[Breach]:
    space = part.space
    if isinstance(space, spaces.Discrete):
        if array.dtype.kind not in "iu":
            yield _breach(
                part, "obs_dtype", "be a whole number", f"is {array.dtype}", "return int(state)."
            )
        return
    if not isinstance(value, np.ndarray) and array.shape:
        found = f"is a {type(value).__name__}"
    elif array.dtype != space.dtype:
        found = f"has {array.dtype}"
    else:
        return
    mend = f"return np.asarray(obs, dtype=np.{space.dtype}). Clipper converts it itself."
    yield _breach(part, "obs_dtype", f"have the dtype {space.dtype}", found, mend)


def _range_breach(part: Part, array: NDArray[Any]) -> Iterator[Breach]:
    space = part.space
    if part.bounds is None:
        return
    low, high = part.bounds
    outside = np.argwhere((array < low) | (array > high))
    if not len(outside):
        return
    at = tuple(outside[0].tolist())
    column = "" if not at else f" at column {at[0]}" if len(at) == 1 else f" at {list(at)}"
    bounds = f"{_at(low, at):g} to {_at(high, at):g}"
    is_box = isinstance(space, spaces.Box)
    mend = "widen observation_space to what the environment returns, or clip what it returns." + (
        " Clipper normalises by what it sees, not by the bounds." if is_box else ""
    )
    if not is_box:
        mend += " Clipper encodes such numbers one-hot, so one outside ends the run."
    yield _breach(
        part,
        "obs_outside_space",
        f"lie within its space ({bounds})",
        f"is {array[at]:g}{column}",
        mend,
        None if is_box else "error",
    )


def _breach(
    part: Part, name: str, law: str, found: str, mend: str, severity: Severity | None = None
) -> Breach:
    return Breach(name, part.name, f"{part.label} must {law}", found, mend, severity)


def _at(bound: NDArray[Any] | float, at: tuple[int, ...]) -> float:
    return float(bound[at]) if isinstance(bound, np.ndarray) else float(bound)


def _shown(value: Any) -> str:
    return "is None" if value is None else f"is {value!r}"[:80]
