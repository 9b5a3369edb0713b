"""How far the runs of a sweep are, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipper.experiments.rows import Row
from clipper.experiments.runs import RunSpec

Status = Literal["waiting", "running", "finished", "failed", "stopped"]


@dataclass(kw_only=True)
class RunState:
    """How far a run of a sweep is.

    Attributes:
        spec: The run.
        status: Where it stands.
        config: Its settings in full.
        config_hash: Their hash.
        step: Transitions done.
        first_step: Transitions that were done when this sweep started it.
        seconds: Training time so far.
        first_seconds: Training time when this sweep started it.
        mean_return: Mean return of its last 100 training episodes, or None before the first ends.
        message: Why it failed.
        code: Exit code of its process, or None.
        row: What is kept of it when it has finished.
        is_old: True if the row was there before.
        started_at: When this sweep started it, on a clock that does not jump.
        elapsed_seconds: Time from its start to its row, if this sweep did all of it.
    """

    spec: RunSpec
    config: Mapping[str, Any]
    config_hash: str
    status: Status = "waiting"
    step: int = 0
    first_step: int | None = None
    seconds: float = 0.0
    first_seconds: float = 0.0
    mean_return: float | None = None
    message: str = ""
    code: int | None = None
    row: Row | None = None
    is_old: bool = False
    started_at: float = 0.0
    elapsed_seconds: float | None = None

    @property
    def total_timesteps(self) -> int:
        """Transitions of the whole run."""
        return int(self.config["total_timesteps"])


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        folder: The sweep's folder.
        runs: Every run as it is now.
        signal: Number of the signal that stopped it, or None.
        wall_seconds: Time this call took.
    """

    folder: Path
    runs: Sequence[RunState]
    signal: int | None
    wall_seconds: float

    @property
    def rows(self) -> list[Row]:
        """Rows of the finished runs, in the order of the runs."""
        return [run.row for run in self.runs if run.row is not None]

    @property
    def failed(self) -> list[RunState]:
        """Runs that failed."""
        return [run for run in self.runs if run.status == "failed"]

    @property
    def exit_code(self) -> int:
        """0 if every run finished, 128 and the signal's number, or what failed runs ended with."""
        if self.signal is not None:
            return 128 + self.signal
        codes = {run.code or 1 for run in self.failed}
        codes = {code if 0 < code < 128 else 1 for code in codes}
        return 0 if not codes else codes.pop() if len(codes) == 1 else 1


Observer = Callable[[Sequence[RunState]], object]
