"""What the calls of an environment gave, kept to be compared: moments, episodes, records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper.envs.check_columns import Columns
from clipper.envs.check_parts import Missing, Part, array_of, value_at

Picture = tuple[NDArray[Any] | None, ...]
"""The parts of an observation, copied; None where a part is not numbers."""


class Where(NamedTuple):
    """A call within a check: the episode, its step (0 for its reset) and its seed."""

    episode: int
    step: int
    seed: int

    def __str__(self) -> str:
        step = f"step {self.step}" if self.step else "reset"
        return f"episode {self.episode}, {step}, seed {self.seed}"


@dataclass(frozen=True)
class Moment:
    """What one step gave."""

    obs: Picture
    reward: float
    terminated: bool
    truncated: bool

    def is_same(self, other: Moment) -> bool:
        """Returns True if nothing differs from another."""
        mine, others = (self.reward, *self.ends), (other.reward, *other.ends)
        return same(self.obs, other.obs) and (
            mine == others or (math.isnan(mine[0]) and math.isnan(others[0]))
        )

    @property
    def ends(self) -> tuple[bool, bool]:
        """Whether it terminated and truncated the episode."""
        return self.terminated, self.truncated


@dataclass
class Played:
    """One episode.

    Attributes:
        number: From 0.
        seed: Of its reset and its actions.
        first: The observation it began with.
        length: Steps.
        terminated: How it ended.
        truncated: How it ended; neither if the check left it.
        final: The observation it ended with.
        moments: Its steps from the first on, if they were kept, at least the first few.
    """

    number: int
    seed: int
    first: Picture
    length: int = 0
    terminated: bool = False
    truncated: bool = False
    final: Picture = ()
    moments: list[Moment] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """True if the environment ended it."""
        return self.terminated or self.truncated


@dataclass
class Record:
    """All episodes that were played on one instance.

    Attributes:
        episodes: In their order.
        columns: Of the Box parts of the observations.
        rewards: Every reward that is a finite number.
        resources: Threads, open files and bytes of memory at the end of every episode.
    """

    episodes: list[Played] = field(default_factory=list)
    columns: Columns = field(default_factory=Columns)
    rewards: list[float] = field(default_factory=list)
    resources: list[tuple[int, int, int]] = field(default_factory=list)


def picture(obs: Any, parts: Sequence[Part]) -> Picture:
    """Returns copies of an observation's parts."""
    arrays = [array_of(value_or_none(obs, part)) for part in parts]
    return tuple(None if array is None else array.copy() for array in arrays)


def value_or_none(obs: Any, part: Part) -> Any:
    """Returns a part of an observation, or None if it is missing."""
    try:
        return value_at(obs, part)
    except Missing:
        return None


def same(one: Picture, other: Picture) -> bool:
    """Returns True if two pictures have the same numbers, NaN being the same as NaN."""
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
        elif not np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f"):
            return False
    return True


def number_of(reward: Any) -> float | None:
    """Returns a reward as a number, or None if it is none."""
    try:
        if isinstance(reward, (str, bytes)) or np.ndim(reward) > 0:
            return None
        return float(reward)
    except (TypeError, ValueError):
        return None
