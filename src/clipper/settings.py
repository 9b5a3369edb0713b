"""One setting of a run: its help, range and unit, and how it is read from text, JSON or Python."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clipper.errors import ConfigError, nearest

# what other libraries call a setting; used in hints alone
FOREIGN_NAMES = {
    "n_envs": "num_envs",
    "num_processes": "num_envs",
    "num_workers": "num_envs",
    "n_steps": "num_steps",
    "horizon": "num_steps",
    "unroll_length": "num_steps",
    "rollout_length": "num_steps",
    "steps_per_epoch": "num_steps",
    "n_epochs": "num_epochs",
    "update_epochs": "num_epochs",
    "ppo_epoch": "num_epochs",
    "ppo_epochs": "num_epochs",
    "batch_size": "minibatch_size",
    "mini_batch_size": "minibatch_size",
    "num_minibatches": "minibatch_size",
    "num_mini_batch": "minibatch_size",
    "lr": "learning_rate",
    "pi_lr": "learning_rate",
    "clip_coef": "clip_range",
    "clip_param": "clip_range",
    "clip_ratio": "clip_range",
    "clip_epsilon": "clip_range",
    "eps_clip": "clip_range",
    "clip_range_vf": "clip_value",
    "entropy_coef": "ent_coef",
    "entropy_coeff": "ent_coef",
    "value_loss_coef": "vf_coef",
    "value_coef": "vf_coef",
    "vf_loss_coeff": "vf_coef",
    "lam": "gae_lambda",
    "lambda_": "gae_lambda",
    "tau": "gae_lambda",
    "discount": "gamma",
    "discount_factor": "gamma",
    "max_grad": "max_grad_norm",
    "kl_target": "adaptive_kl_target",
    "kl_targ": "adaptive_kl_target",
    "d_targ": "adaptive_kl_target",
    "dtarg": "adaptive_kl_target",
    "kl_coeff": "kl_coef",
    "init_kl_coef": "kl_coef",
    "initial_adaptive_kl_beta": "kl_coef",
    "advantage_estimator": "advantage",
    "adv_estimator": "advantage",
    "norm_adv": "normalize_advantage",
    "n_timesteps": "total_timesteps",
    "num_env_steps": "total_timesteps",
    "num_timesteps": "total_timesteps",
    "timesteps": "total_timesteps",
    "net_arch": "hidden_sizes",
    "hid": "hidden_sizes",
    "activation_fn": "activation",
    "n_eval_episodes": "eval_episodes",
    "eval_freq": "eval_every",
    "num_steps_per_env": "num_steps",
    "num_mini_batches": "minibatch_size",
    "clip_vloss": "clip_value",
    "desired_kl": "target_kl",
    "kl_threshold": "target_kl",
    "eps": "adam_eps",
    "anneal_lr": "learning_rate",
    "use_linear_lr_decay": "learning_rate",
}


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


def name_hint(name: str, known: Iterable[str], style: Callable[[str], str] = str) -> str | None:
    """Returns what a setting that does not exist may have meant, or None.

    Args:
        name: What was given, with underscores.
        known: Names there are.
        style: How a name is written, for example as a flag.
    """
    names = set(known)
    ours = FOREIGN_NAMES.get(name)
    if ours in names:
        return f"Clipper calls it {style(ours)}; docs/coming-from.md has the conversions."
    if name == "policy":
        return "the network follows from the environment's spaces, or is given as module=..."
    return nearest(style(name), [style(k) for k in names])


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
