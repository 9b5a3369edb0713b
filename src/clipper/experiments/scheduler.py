"""Runs that wait in, runs that have finished, failed or stopped out: so many at a time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clipper.experiments.processes import Event, Processes
from clipper.experiments.results import LOGS, ResultsFiles, read_result
from clipper.experiments.states import Observer, RunState
from clipper.interrupts import GRACE_SECONDS, HANGUP, handled

_POLL_SECONDS = 0.25


@dataclass
class _Interrupts:
    """Signals that have come."""

    number: int | None = None
    count: int = 0
    heard_at: float = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is not None and (number == HANGUP or now - self.heard_at < GRACE_SECONDS):
            return
        self.number, self.heard_at = self.number or number, now
        self.count += 1


class Scheduler:
    """Starts runs while there is room, gathers their results, and stops them on a signal."""

    def __init__(
        self,
        runs: Sequence[RunState],
        files: ResultsFiles,
        processes: Processes,
        place: Path,
        num_jobs: int,
        observer: Observer | None,
    ) -> None:
        self._runs = runs
        self._files = files
        self._processes = processes
        self._place = place
        self._num_jobs = num_jobs
        self._observer = observer

    def run(self) -> int | None:
        """Returns when no run is left or all have stopped: the signal's number, or None."""
        num_told = 0
        interrupts = _Interrupts()
        with handled(interrupts.handle):
            while True:
                if interrupts.count > num_told:
                    # the first asks the runs to save, a second one does not wait for that
                    last = signal.SIGTERM if interrupts.count == 1 else signal.SIGKILL
                    self._processes.signal(last)
                    num_told = interrupts.count
                going = sum(run.status == "running" for run in self._runs)
                if interrupts.number is None:
                    waiting = [run for run in self._runs if run.status == "waiting"]
                    for run in waiting[: self._num_jobs - going]:
                        self._start(run)
                        going += 1
                self._observe()
                if not going:
                    return interrupts.number
                for event in self._processes.events(_POLL_SECONDS):
                    self._take(event, is_stopping=interrupts.number is not None)

    def _start(self, run: RunState) -> None:
        run.status, run.started_at = "running", time.monotonic()
        log = self._log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._processes.start(
            self._runs.index(run),
            "train",
            log,
            run=run.spec.to_json(),
            folder=str(self._place / "runs" / run.spec.folder),
        )

    def _log(self, run: RunState) -> Path:
        return self._place / LOGS / f"{run.spec.folder}.log"

    def _take(self, event: Event, *, is_stopping: bool) -> None:
        run = self._runs[event["number"]]
        if event["event"] == "progress":
            if run.first_step is None:
                run.first_step, run.first_seconds = event["step"], event["seconds"]
            run.step, run.seconds = event["step"], event["seconds"]
            run.mean_return = event["return"]
        elif event["event"] == "failed":
            run.message = event["message"]
        elif event["event"] == "ended":
            self._end(run, event["code"], is_stopping)

    def _end(self, run: RunState, code: int, is_stopping: bool) -> None:
        found = read_result(self._place / "runs" / run.spec.folder) if code == 0 else None
        if found is not None:
            self._files.add(*found)
            run.status, run.row, run.step = "finished", found[0], found[0].steps
            if not run.first_seconds or run.first_seconds < 0.1 * found[0].wall_seconds:
                run.elapsed_seconds = time.monotonic() - run.started_at
            with contextlib.suppress(OSError):
                if not self._log(run).stat().st_size:
                    self._log(run).unlink()
        elif is_stopping:
            run.status = "stopped"
        else:
            run.status, run.code = "failed", code
            name = signal.Signals(-code).name if code < 0 else ""
            run.message = run.message or (f"killed by {name}" if name else f"exit code {code}")

    def _observe(self) -> None:
        if self._observer is not None:
            self._observer(self._runs)
