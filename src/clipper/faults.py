"""What went wrong in an environment, and how often within an hour: too often ends a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clipper.errors import FileError
from clipper.files import is_number

# so many faults of one environment within an hour end the run
MOST_FAULTS = 3
_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What went wrong in an environment.

    Attributes:
        env: Index of the environment in the run.
        episode: Index of its episode.
        seed: Seed of that episode's reset.
        step: The step it was at, from 1; 0 for the reset.
        how: What happened, in words, to follow "it".
        report: The traceback, where there is one.
        actions: Sampled actions since the reset, the last one included, [step, A]; fewer if the
            episode was too long to be kept.
        num_lost: Episodes that were cut off with a worker, this one included; 0 if the environment
            gave a number that is not finite, and goes on by itself.
    """

    env: int
    episode: int
    seed: int
    step: int
    how: str
    report: str
    actions: NDArray[Any]
    num_lost: int

    @property
    def is_of_worker(self) -> bool:
        """True if a worker was lost, False if a number was not finite."""
        return self.num_lost > 0

    def __str__(self) -> str:
        at = f"step {self.step}" if self.step else "the reset"
        where = (
            f"environment {self.env} failed in episode {self.episode} (seed {self.seed}) at {at}"
        )
        if self.is_of_worker:
            open_ones = f"{self.num_lost} open episodes end as truncated"
            if self.num_lost == 1:
                open_ones = "the episode is cut off"
            return f"{where}: its worker {self.how}; it is replaced, and {open_ones}"
        end = "ends before that step as truncated" if self.step > 1 else "is not begun"
        return f"{where}: it {self.how}; the episode {end}"


class FaultLedger:
    """When environments failed, by the clock on the wall: a run that is resumed does not forget."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}

    def count(self, env: int) -> bool:
        """Counts a fault of an environment; returns True if it was the third within an hour."""
        now = time.time()
        times = self._times.setdefault(env, deque(maxlen=MOST_FAULTS))
        times.append(now)
        return len(times) == MOST_FAULTS and now - times[0] < _HOUR

    def to_json(self) -> dict[str, list[float]]:
        """Returns the last times by environment, as JSON values."""
        return {str(env): list(times) for env, times in self._times.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FaultLedger:
        """Returns the ledger that `to_json` wrote.

        Raises:
            FileError: It is something else.
        """
        if not isinstance(data, Mapping) or not all(map(_are_times, data.items())):
            raise FileError(
                "the faults of a run must be the last times of each environment, but are not."
            )
        ledger = cls()
        for env, times in data.items():
            ledger._times[int(env)] = deque(map(float, times), maxlen=MOST_FAULTS)
        return ledger


def _are_times(item: tuple[str, Any]) -> bool:
    """True for an environment's index and at most so many finite numbers as are counted."""
    env, times = item
    return (
        env.isascii()
        and env.isdigit()
        and len(env) < 10
        and isinstance(times, list)
        and len(times) <= MOST_FAULTS
        and all(map(is_number, times))
    )
