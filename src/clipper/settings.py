"""One setting of a run: a field with help, range and unit, read by its name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from clipper.errors import ConfigError
from clipper.foreign_names import name_hint
from clipper.setting_values import Schedule, read_value, show


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    unit: str = "",
    group: str = "",
) -> Any:
    """Returns a dataclass field that carries its help text, range and unit.

    Args:
        default: The value without a preset.
        help: What it means, and what raising it does.
        low: Smallest value allowed (excluded if `open_low`), or None.
        high: Largest value allowed, or None.
        open_low: True if the value must be above `low`.
        unit: Unit of the number, for the help.
        group: Heading under which the help lists it.
    """
    meta = {
        "help": help,
        "low": low,
        "high": high,
        "open_low": open_low,
        "unit": unit,
        "group": group,
    }
    return field(default=default, metadata=meta)


def with_default(cls: type[Any], name: str, default: Any) -> Any:
    """Returns a dataclass field for a subclass: that of a parent, with another default.

    Args:
        cls: The parent.
        name: Of the field.
        default: The subclass's.
    """
    spec = next(f for f in dataclasses.fields(cls) if f.name == name)
    return field(default=default, metadata=spec.metadata)


def read_settings(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` converted to the types of the fields of a config class.

    Raises:
        ConfigError: A name is unknown (the nearest is named), or a value has the wrong type.
    """
    specs = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in specs:
            raise ConfigError(
                f"there is no setting {name!r}.",
                hint=other_owner(cls, name)
                or name_hint(name, specs)
                or "the settings are " + ", ".join(specs) + ".",
            )
    return {name: read_value(name, hints[name], value) for name, value in values.items()}


def other_owner(cls: type[Any], name: str) -> str | None:
    """Returns a hint if a setting that a config class does not have is one of another algorithm's.

    Of all whose classes are known by then: nobody else's settings are asked for.
    """
    classes = [[base for base in cls.__mro__ if dataclasses.is_dataclass(base)][-1]]
    for known in classes:  # which grows
        classes += known.__subclasses__()
    # those of algorithms are the last of their line
    owners = [
        known.__name__.removesuffix("Config")
        for known in dict.fromkeys(classes)
        if not known.__subclasses__() and name in {f.name for f in dataclasses.fields(known)}
    ]
    if not owners or name in {f.name for f in dataclasses.fields(cls)}:
        return None
    return (
        f"it is a setting of {', '.join(owners)}; {cls.__name__.removesuffix('Config')} has none."
    )


def describe_field(spec: dataclasses.Field[Any]) -> str:
    """Returns the range and unit of a setting in words, for the help."""
    low, high = spec.metadata["low"], spec.metadata["high"]
    parts = []
    if low is not None and high is not None:
        parts.append(f"{low:g} to {high:g}")
    elif low is not None:
        parts.append(f"{'above' if spec.metadata['open_low'] else 'at least'} {low:g}")
    if spec.metadata["unit"]:
        parts.append(spec.metadata["unit"])
    return ", ".join(parts)


def check_range(spec: dataclasses.Field[Any], value: Any) -> None:
    """Raises unless a value lies in the range of its field.

    A schedule may end at an excluded lower bound (`linear:0.2:0`); it may not start there.

    Raises:
        ConfigError: It does not.
    """
    low, high = spec.metadata["low"], spec.metadata["high"]
    if isinstance(value, Schedule):
        numbers: list[Any] = [value.start, value.end]
    else:
        numbers = list(value) if isinstance(value, tuple) else [value]
    for position, number in enumerate(numbers):
        if number is None or isinstance(number, str):
            continue
        may_touch = not spec.metadata["open_low"] or (isinstance(value, Schedule) and position == 1)
        if isinstance(value, Schedule) and value.is_constant:
            may_touch = not spec.metadata["open_low"]
        too_low = low is not None and (number < low or (number == low and not may_touch))
        if too_low or (high is not None and number > high):
            raise ConfigError(f"{spec.name} must be {_range_words(spec)}, but is {show(value)}.")


def _range_words(spec: dataclasses.Field[Any]) -> str:
    low, high = spec.metadata["low"], spec.metadata["high"]
    if high is None:
        return f"{'above' if spec.metadata['open_low'] else 'at least'} {low:g}"
    return f"between {low:g} and {high:g}"
