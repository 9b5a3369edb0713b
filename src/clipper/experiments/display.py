"""The runs of a sweep in, a live table on a terminal or plain lines elsewhere out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from clipper.experiments.states import RunState

_ORDER = {"running": 0, "failed": 1, "stopped": 2, "finished": 3, "waiting": 4}
_STYLE = {"running": "bold", "failed": "red", "stopped": "yellow", "finished": "green"}
_LINE_SECONDS = 30.0
_FRAME_SECONDS = 1.0


def seconds_left(
    runs: Sequence[RunState], num_jobs: int, speeds: Sequence[float | None] | None = None
) -> float | None:
    """Returns how long the runs that are left take, or None as long as no speed is known.

    A run whose speed is not known is taken to be as slow as others of its setting and task, else
    of its task, else as all are on average.

    Args:
        runs: All runs.
        num_jobs: Runs at a time.
        speeds: Seconds per step of each run, if they were measured.
    """
    known = [_seconds_per_step(run) for run in runs] if speeds is None else list(speeds)
    groups: dict[tuple[str, ...], list[float]] = {}
    for run, speed in zip(runs, known, strict=True):
        if speed is not None:
            for key in _kinds(run):
                groups.setdefault(key, []).append(speed)
    if not groups:
        return None
    left = []
    for run, speed in zip(runs, known, strict=True):
        if run.status in ("running", "waiting"):
            if speed is None:
                speed = next(statistics.fmean(groups[k]) for k in _kinds(run) if k in groups)
            left.append(max(run.total_timesteps - run.step, 0) * speed)
    if not left:
        return 0.0
    return max(max(left), sum(left) / num_jobs)


def _kinds(run: RunState) -> list[tuple[str, ...]]:
    return [(run.spec.env, run.spec.setting), (run.spec.env,), ()]


def _seconds_per_step(run: RunState) -> float | None:
    if run.row is not None and run.row.steps:
        # start and end of a process among it, if we saw them
        return (run.elapsed_seconds or run.row.wall_seconds) / run.row.steps
    if run.first_step is None or run.step <= run.first_step:
        return None
    return (run.seconds - run.first_seconds) / (run.step - run.first_step)


def duration(seconds: float | None) -> str:
    """Returns a time in words, `-` if it is not known."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class SweepDisplay:
    """Shows every run's progress and the time left on stderr; an observer of `run_sweep`.

    Args:
        num_jobs: Runs at a time.
        is_quiet: Show failures alone.
    """

    def __init__(self, num_jobs: int, *, is_quiet: bool = False) -> None:
        self._num_jobs = num_jobs
        self._is_quiet = is_quiet
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._told: set[tuple[str, str, int]] = set()
        self._line_at = -math.inf
        self._has_begun = False

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._is_quiet:
            # refreshed by our own calls alone: no thread
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, runs: Sequence[RunState]) -> None:
        """Shows the runs as they are now."""
        if self._live is not None:
            # drawing takes milliseconds that the runs have a better use for
            is_over = all(run.status not in ("running", "waiting") for run in runs)
            if is_over or time.monotonic() - self._line_at >= _FRAME_SECONDS:
                self._line_at = time.monotonic()
                self._live.update(self._table(runs), refresh=True)
            return
        if not self._has_begun and not self._is_quiet:
            self._has_begun = True
            self._say(f"{_counts(runs)}, {self._num_jobs} at a time")
        for run in runs:
            is_news = run.status in ("finished", "failed", "stopped") and not run.is_old
            if is_news and run.spec.key not in self._told:
                self._told.add(run.spec.key)
                if not self._is_quiet or run.status == "failed":
                    self._say(f"{run.status}: {run.spec}, {_result(run)}")
        if not self._is_quiet and time.monotonic() - self._line_at > _LINE_SECONDS:
            self._say(self._title(runs))

    def _title(self, runs: Sequence[RunState]) -> str:
        left = seconds_left(runs, self._num_jobs)
        return _counts(runs) + (f", {duration(left)} left" if left else "")

    def _say(self, line: str) -> None:
        self._line_at = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self, runs: Sequence[RunState]) -> Table:
        table = Table(title=self._title(runs), title_justify="left", box=None)
        for name in ("setting", "environment", "seed", "", "steps", "return", ""):
            table.add_column(
                name, justify="right" if name in ("seed", "steps", "return") else "left"
            )
        room = max(self._console.height - 5, 3)
        shown = sorted(runs, key=lambda run: _ORDER[run.status])
        for run in shown[:room]:
            bar = ProgressBar(total=run.total_timesteps, completed=run.step, width=12)
            mean = "" if run.mean_return is None else f"{run.mean_return:.1f}"
            table.add_row(
                escape(run.spec.setting),
                escape(run.spec.env),
                str(run.spec.seed),
                bar if run.status == "running" else run.status,
                f"{run.step:,}" if run.step else "",
                mean if run.row is None else f"{run.row.score:.1f}",
                escape(run.message[:60]),
                style=_STYLE.get(run.status),
            )
        if len(shown) > room:
            table.caption = f"and {len(shown) - room} more"
        return table


def _counts(runs: Sequence[RunState]) -> str:
    """Returns how many runs there are of each kind."""
    parts = [f"{len(runs)} run{'s' * (len(runs) != 1)}"]
    for status in ("finished", "running", "failed", "stopped", "waiting"):
        number = sum(run.status == status for run in runs)
        if number:
            parts.append(f"{number} {status}")
    return ", ".join(parts)


def _result(run: RunState) -> str:
    """Returns what there is to say of a run that has ended."""
    if run.status == "failed":
        return run.message
    if run.row is None:
        return f"at step {run.step:,}"
    score = "no episode ended" if run.row.score != run.row.score else f"return {run.row.score:.1f}"
    return f"{score} in {duration(run.row.wall_seconds)}"
