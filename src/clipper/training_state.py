"""The counters of a run, as training moves them and checkpoints keep them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clipper.alarm_watch import AlarmWatch
from clipper.errors import FileError
from clipper.faults import FaultLedger
from clipper.files import is_count, is_number
from clipper.metrics import RecentEpisodes

_PARTS: Mapping[str, Any] = {
    "recent": RecentEpisodes,
    "faults": FaultLedger,
    "alarms": AlarmWatch,
}
# checkpoints of the first days have none of these
_NEW_PARTS = {"faults", "alarms"}


@dataclass
class TrainingState:
    """The counters of a run, saved with every checkpoint.

    Attributes:
        step: Transitions done, over all environments.
        iteration: Iterations done.
        wall_seconds: Training time so far.
        recent: The last 100 training episodes.
        best: Best mean return of the periodic evaluations, or None before the first.
        next_evaluation: Step at which the next one is due.
        inexact: Why going on from here is not exactly the uninterrupted run, or None if it is.
        faults: When environments failed; what is taken back does not make that unhappen.
        alarms: What the rows of metrics say that is wrong.
    """

    step: int = 0
    iteration: int = 0
    wall_seconds: float = 0.0
    recent: RecentEpisodes = field(default_factory=RecentEpisodes)
    best: float | None = None
    next_evaluation: int = 0
    inexact: str | None = None
    faults: FaultLedger = field(default_factory=FaultLedger)
    alarms: AlarmWatch = field(default_factory=AlarmWatch)

    def note_inexact(self, reason: str | None) -> None:
        """Adds a reason why this run is not bit for bit the uninterrupted one, if there is one."""
        if reason is not None and reason not in (self.inexact or ""):
            self.inexact = reason if self.inexact is None else f"{self.inexact}; {reason}"

    def copy(self) -> TrainingState:
        """Returns a copy that goes its own way."""
        return replace(self, recent=self.recent.copy())

    def take(self, other: TrainingState) -> None:
        """Becomes equal to another."""
        vars(self).update(vars(other))

    def to_json(self) -> dict[str, Any]:
        """Returns the counters as JSON values."""
        return {
            name: value.to_json() if name in _PARTS else value for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingState:
        """Returns the state that `to_json` wrote.

        Raises:
            FileError: A counter is missing, unknown, or no such number.
        """
        if not isinstance(data, Mapping) or set(data) | _NEW_PARTS != set(cls.__dataclass_fields__):
            raise FileError(
                f"the counters of a run must be {', '.join(cls.__dataclass_fields__)} and no others."
            )
        for name, is_good in (
            ("step", is_count(data["step"])),
            ("iteration", is_count(data["iteration"])),
            ("wall_seconds", is_number(data["wall_seconds"]) and data["wall_seconds"] >= 0),
            ("best", data["best"] is None or is_number(data["best"])),
            ("next_evaluation", is_count(data["next_evaluation"])),
            ("inexact", data["inexact"] is None or isinstance(data["inexact"], str)),
        ):
            if not is_good:
                raise FileError(f"{name} must be a counter of a run, but is {data[name]!r:.80}.")
        parts = {k: kind.from_json(data[k]) for k, kind in _PARTS.items() if k in data}
        return cls(**{**data, **parts})
