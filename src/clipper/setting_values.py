"""Values of settings: schedules, and every type read from text, JSON or Python and shown again."""

from __future__ import annotations

import math
import numbers
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from clipper.errors import ConfigError, nearest


@dataclass(frozen=True)
class Schedule:
    """A number over the course of training: constant, or linear from `start` to `end`.

    Written `0.2` or `linear:1e-3:0`. The horizon is the run's `total_timesteps`.
    """

    start: float
    end: float

    @classmethod
    def parse(cls, value: Schedule | float | str) -> Schedule:
        """Returns the schedule that a number or a text such as `linear:3e-4:0` describes.

        Raises:
            ConfigError: The text is neither a number nor `linear:START:END`.
        """
        return read_value("a schedule", cls, value)  # type: ignore[no-any-return]

    def at(self, progress: float) -> float:
        """Returns the value after the fraction `progress` (0 to 1) of the run."""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)

    @property
    def is_constant(self) -> bool:
        """True if the value never changes."""
        return self.start == self.end

    def __str__(self) -> str:
        if self.is_constant:
            return f"{self.start:g}"
        return f"linear:{self.start:g}:{self.end:g}"


def read_value(name: str, kind: Any, value: Any) -> Any:
    """Returns `value`, given as text, JSON or Python value, as the type `kind`.

    Raises:
        ConfigError: It cannot be read as that type.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        inner = [k for k in typing.get_args(kind) if k is not types.NoneType]
        if value is None or value == "none":
            return None
        return read_value(name, inner[0], value)
    try:
        return _READERS[typing.get_origin(kind) or kind](name, kind, value)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        hint = "write for example 3e-4 or linear:3e-4:0." if kind is Schedule else None
        raise ConfigError(
            f"{name} must be {_describe(kind)}, but is {value!r}.", hint=hint
        ) from None


def _read_bool(name: str, kind: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError(value)


def _read_int(name: str, kind: Any, value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str):
        number = float(value.replace("_", "").replace(",", ""))
    else:
        number = float(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _read_float(name: str, kind: Any, value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _read_schedule(name: str, kind: Any, value: Any) -> Schedule:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, Schedule):
        schedule = value
    elif isinstance(value, str) and value.startswith("linear:"):
        start, end = (float(part) for part in value.split(":")[1:])
        schedule = Schedule(start, end)
    else:
        schedule = Schedule(float(value), float(value))
    if not (math.isfinite(schedule.start) and math.isfinite(schedule.end)):
        raise ValueError(value)
    return schedule


def _read_literal(name: str, kind: Any, value: Any) -> str:
    options = typing.get_args(kind)
    if value in options:
        return str(value)
    raise ConfigError(
        f"{name} must be one of {', '.join(options)}, but is {value!r}.",
        hint=nearest(str(value), options),
    )


def _read_tuple(name: str, kind: Any, value: Any) -> tuple[Any, ...]:
    inner = typing.get_args(kind)
    if isinstance(value, str):
        inside = value.strip().strip("()[]").strip()
        if inside != value.strip():
            inside = inside.removesuffix(",")  # (64,) is Python's way to write one
        value = re.split(r"\s*,\s*|\s+", inside.strip()) if inside else []
    if isinstance(value, numbers.Real):
        value = [value]
    items = tuple(read_value(name, inner[0], item) for item in value)
    if Ellipsis not in inner and len(items) != len(inner):
        raise ValueError(value)
    return items


_READERS: dict[Any, Any] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    Schedule: _read_schedule,
    Literal: _read_literal,
    tuple: _read_tuple,
}


def show(value: Any) -> str:
    """Returns a setting's value as one would type it on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(show(item) for item in value) or "()"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _describe(kind: Any) -> str:
    if kind is bool:
        return "true or false"
    if kind is int:
        return "a whole number"
    if kind is float:
        return "a finite number"
    if kind is Schedule:
        return "a finite number or linear:START:END"
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if Ellipsis not in inner:
            return f"{len(inner)} numbers such as 0.9,0.999"
        return "a list such as 64,64"
    return str(kind)


def setting_to_json(value: Any) -> Any:
    """Returns a setting's value as a JSON value that `read_value` takes back."""
    if isinstance(value, Schedule):
        return value.start if value.is_constant else f"linear:{value.start!r}:{value.end!r}"
    if isinstance(value, tuple):
        return list(value)
    return value


def read_duration(name: str, value: float | str) -> float:
    """Returns a time in seconds from a number or a text such as `90s`, `10min` or `2h`.

    Raises:
        ConfigError: It is neither, or not above 0.
    """
    found = re.fullmatch(r"([0-9.eE+-]+)\s*(s|min|m|h|)", str(value).strip().lower())
    factors = {"s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(found[1]) * factors[found[2]] if found else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"{name} must be a time above 0, but is {value!r}.", hint="write 90s, 10min or 2h."
        )
    return seconds
