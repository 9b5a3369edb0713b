"""The settings of a run: frozen dataclasses that are read from flags, keywords or JSON and checked.

One field is one name everywhere: the CLI flag `--num-envs`, the keyword `num_envs`, the JSON key.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from clipper.errors import ConfigError, nearest

ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu")


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
        if isinstance(value, Schedule):
            return value
        try:
            if isinstance(value, str) and value.startswith("linear:"):
                start, end = (float(part) for part in value.split(":")[1:])
                return cls(start, end)
            return cls(float(value), float(value))
        except (TypeError, ValueError):
            raise ConfigError(
                f"a schedule must be a number or linear:START:END, but is {value!r}.",
                hint="write for example 3e-4 or linear:3e-4:0.",
            ) from None

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


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Hyperparameters of PPO with the clipped surrogate, the network and the run's length."""

    total_timesteps: int = setting(
        1_000_000,
        "transitions over all environments, absolute: a resumed run counts on; rounded up to whole "
        "iterations; the horizon of all schedules",
        low=1,
        unit="steps",
        group="run",
    )
    num_envs: int = setting(
        8, "environments stepped together; more gives less correlated batches", low=1, group="batch"
    )
    num_steps: int = setting(
        256,
        "steps of each environment in one rollout; the rollout has num_steps x num_envs rows",
        low=1,
        unit="steps",
        group="batch",
    )
    num_epochs: int = setting(
        10,
        "passes over each rollout; more uses the data harder and moves further from the old policy",
        low=1,
        group="batch",
    )
    minibatch_size: int = setting(
        64,
        "rows of one gradient step; must divide num_steps x num_envs",
        low=1,
        unit="rows",
        group="batch",
    )
    learning_rate: Schedule = setting(
        Schedule(3e-4, 0.0),
        "step size of Adam, a number or linear:START:END",
        low=0,
        group="objective",
    )
    clip_range: Schedule = setting(
        Schedule(0.2, 0.2),
        "epsilon of the clipped surrogate: how far the ratio may move for profit",
        low=0,
        open_low=True,
        group="objective",
    )
    ent_coef: float = setting(
        0.01,
        "weight of the entropy bonus; more keeps exploring longer (0 for continuous actions)",
        low=0,
        group="objective",
    )
    gamma: float = setting(
        0.99,
        "discount per step; 1/(1-gamma) is the horizon in steps",
        low=0,
        high=1,
        group="objective",
    )
    gae_lambda: float = setting(
        0.95,
        "lambda of generalized advantage estimation; lower is less variance, more bias",
        low=0,
        high=1,
        group="objective",
    )
    vf_coef: float = setting(
        1.0,
        "weight of 0.5 (V - target)^2 in the loss (Stable-Baselines3's 0.5 is 1.0 here)",
        low=0,
        group="objective",
    )
    max_grad_norm: float | None = setting(
        0.5, "joint norm to which gradients are clipped, or none", low=0, open_low=True, group="objective"
    )
    target_kl: float | None = setting(
        None,
        "ends an iteration's epochs when the KL estimate exceeds 1.5 times this, or none",
        low=0,
        open_low=True,
        group="objective",
    )
    normalize_advantage: Literal["minibatch", "none"] = setting(
        "minibatch", "advantages to mean 0 and standard deviation 1 over each minibatch", group="objective"
    )
    normalize_obs: bool = setting(
        True,
        "running mean and standard deviation for Box observations, clipped at 10; kept in the agent",
        group="normalisation",
    )
    normalize_reward: bool = setting(
        False,
        "rewards divided by the standard deviation of the discounted return, clipped at 10 "
        "(true for continuous actions)",
        group="normalisation",
    )
    recompute_advantages: bool = setting(
        False,
        "advantages computed anew before each epoch with the current value function",
        group="objective",
    )
    clip_value: float | None = setting(
        None,
        "clips the change of the value prediction to this, or none; it rarely helps",
        low=0,
        open_low=True,
        group="objective",
    )
    adam_betas: tuple[float, float] = setting(
        (0.9, 0.999), "decay rates of Adam's two averages", low=0, high=0.999999, group="objective"
    )
    adam_eps: float = setting(
        1e-5, "added to Adam's denominator", low=0, open_low=True, group="objective"
    )
    hidden_sizes: tuple[int, ...] = setting(
        (64, 64), "widths of the hidden layers, for example 64,64", low=1, group="network"
    )
    value_hidden_sizes: tuple[int, ...] | None = setting(
        None,
        "widths of the value network's hidden layers, or none: as hidden_sizes",
        low=1,
        group="network",
    )
    activation: Literal["tanh", "relu", "elu", "silu", "gelu"] = setting(
        "tanh", "nonlinearity between layers", group="network"
    )
    shared_torso: bool = setting(
        False, "policy and value share the hidden layers", group="network"
    )
    log_std_init: float = setting(
        0.0, "initial log standard deviation of continuous actions; learned", group="network"
    )
    hidden_gain: float = setting(
        math.sqrt(2), "gain of the orthogonal initial weights of hidden layers", low=0, group="network"
    )
    policy_gain: float = setting(
        0.01, "gain of the policy head's initial weights; small starts near uniform", low=0, group="network"
    )
    value_gain: float = setting(
        1.0, "gain of the value head's initial weights", low=0, group="network"
    )
    eval_every: int | None = setting(
        None,
        "steps between periodic evaluations, 0 for never, none for ten times a run",
        low=0,
        unit="steps",
        group="run",
    )
    eval_episodes: int = setting(
        10, "episodes of each periodic evaluation", low=1, unit="episodes", group="run"
    )

    @property
    def rollout_size(self) -> int:
        """Rows of one rollout, num_steps x num_envs."""
        return self.num_steps * self.num_envs

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole run, total_timesteps / rollout_size rounded up."""
        return -(-self.total_timesteps // self.rollout_size)

    @property
    def evaluation_interval(self) -> int:
        """Steps between periodic evaluations; 0 for never."""
        if self.eval_every is None:
            return max(self.total_timesteps // 10, 1)
        return self.eval_every

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or minibatch_size does not divide the rollout.
        """
        for spec in dataclasses.fields(self):
            _check_range(spec, getattr(self, spec.name))
        if self.rollout_size % self.minibatch_size:
            good = [d for d in _divisors(self.rollout_size) if d >= 8] or [self.rollout_size]
            close = sorted(sorted(good, key=lambda d: abs(math.log(d / self.minibatch_size)))[:3])
            raise ConfigError(
                f"minibatch_size must divide num_steps * num_envs = {self.rollout_size}, "
                f"but is {self.minibatch_size}.",
                hint=f"use {_either(close)}.",
            )
        if self.shared_torso and self.value_hidden_sizes not in (None, self.hidden_sizes):
            raise ConfigError(
                "value_hidden_sizes must be none when shared_torso is true, "
                f"but is {list(self.value_hidden_sizes or ())}.",
                hint="a shared torso has one set of hidden layers.",
            )
        return self

    def replace(self, **changes: Any) -> Self:
        """Returns a checked copy with some settings changed (texts and numbers are read).

        Raises:
            ConfigError: A name is unknown or a value is wrong.
        """
        return dataclasses.replace(self, **read_settings(type(self), changes)).validate()

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values; `from_json` gives back an equal config."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Returns the checked config that `to_json` wrote.

        Raises:
            ConfigError: A key is unknown, or a value is wrong.
        """
        return cls(**read_settings(cls, data)).validate()


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
                hint=nearest(name, specs) or "the settings are " + ", ".join(specs) + ".",
            )
    return {name: read_value(name, hints[name], value) for name, value in values.items()}


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
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name} must be {_describe(kind)}, but is {value!r}.") from None


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
    schedule = Schedule.parse(value)
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
        value = [part for part in value.strip("()[] ").replace(" ", ",").split(",") if part]
    if isinstance(value, (int, float)):
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
        return ",".join(show(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _check_range(spec: dataclasses.Field[Any], value: Any) -> None:
    low, high = spec.metadata["low"], spec.metadata["high"]
    if isinstance(value, Schedule):
        # A schedule may end at its lower bound (clip_range linear:0.2:0); its start may not.
        numbers, ends = [value.start], [value.end]
    else:
        numbers, ends = list(value) if isinstance(value, tuple) else [value], []
    for number in [*numbers, *ends]:
        if not isinstance(number, (int, float)):
            continue
        too_low = low is not None and number < low
        at_open = low is not None and spec.metadata["open_low"] and number == low and number in numbers
        if too_low or at_open or (high is not None and number > high):
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
        return "a list such as 64,64"
    return str(kind)


def _to_json(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.start if value.is_constant else f"linear:{value.start!r}:{value.end!r}"
    if isinstance(value, tuple):
        return list(value)
    return value


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _either(options: list[int]) -> str:
    words = [str(o) for o in options]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
