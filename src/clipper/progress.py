"""Reports of a run in, live lines on the screen out: a rich display on a terminal, plain lines else.

Everything goes to stderr; results go to stdout and are none of this file's business.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.status import Status
from rich.table import Table

from clipper.training_report import Report

_SHOWN = (
    ("entropy", "policy/entropy", "{:.3f}"),
    ("KL", "policy/approx_kl", "{:.4f}"),
    ("explained variance", "value/explained_variance", "{:.2f}"),
    ("success", "rollout/success_rate", "{:.0%}"),
)


def frame_status() -> Status:
    """Returns a line that tells how far a film is, on a terminal; nothing is shown elsewhere."""
    return Console(stderr=True).status("filming")


class ProgressDisplay:
    """Shows steps, speed, time left, return with its recent spread, entropy, KL and fit of V.

    Args:
        opening: A line to begin with.
        seconds: Least time between two plain lines.
    """

    def __init__(self, opening: str = "", seconds: float = 5.0) -> None:
        self._opening = opening
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._seconds = seconds
        self._started = time.monotonic()
        self._first_progress: float | None = None
        self._first_step = 0
        self._shown_at = -1e9
        self._last: Report | None = None

    def __enter__(self) -> Self:
        if self._opening:
            sys.stderr.write(f"{self._opening}\n")
        if self._console.is_terminal or self._console.is_jupyter:
            self._live = Live(console=self._console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._last is not None:
            self._show(self._last)
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def __call__(self, report: Report) -> None:
        """Shows a report, if enough time has passed since the last one."""
        if self._first_progress is None:
            # the first iteration is over: speed and time left are measured from here
            self._first_progress, self._first_step = report.progress, report.step
            self._started = time.monotonic()
        self._last = report
        pause = 0.1 if self._live is not None else self._seconds
        is_evaluated = "eval/return_deterministic" in report.metrics and self._live is None
        if time.monotonic() - self._shown_at >= pause or is_evaluated:
            self._show(report)
            self._last = None

    def _show(self, report: Report) -> None:
        self._shown_at = time.monotonic()
        # a terminal that is gone ends no training
        with contextlib.suppress(OSError):
            if self._live is None:
                sys.stderr.write(self._line(report) + "\n")
                sys.stderr.flush()
            else:
                self._live.update(self._table(report))

    def _speed(self, report: Report) -> tuple[str, str]:
        elapsed = time.monotonic() - self._started
        steps = report.step - self._first_step
        done = report.progress - (self._first_progress or 0.0)
        if elapsed < 0.5 or steps <= 0 or done <= 0:
            return f"{report.metrics['time/timesteps_per_second']:,.0f}", "-"
        left = elapsed / done * (1.0 - report.progress)
        return f"{steps / elapsed:,.0f}", _duration(left)

    def _return(self, report: Report) -> str:
        mean = report.metrics.get("rollout/episode_return")
        if mean is None:
            return "-"
        return f"{mean:.1f} ± {report.metrics['rollout/episode_return_std']:.1f}"

    def _line(self, report: Report) -> str:
        speed, left = self._speed(report)
        parts = [
            f"{report.step:,}{_of(report, '/')} steps",
            f"{speed} steps/s",
            f"{left} left",
            f"return {self._return(report)}",
        ]
        parts += [
            f"{label} {style.format(report.metrics[name])}"
            for label, name, style in _SHOWN
            if name in report.metrics
        ]
        if "eval/return_deterministic" in report.metrics:
            parts.append(f"evaluation {report.metrics['eval/return_deterministic']:.1f}")
        if alarms := _alarms(report):
            parts.append(f"ALARM {alarms}")
        parts += _unwritten(report)
        return " | ".join(parts)

    def _table(self, report: Report) -> Table:
        speed, left = self._speed(report)
        table = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=report.progress, width=30)
        table.add_row("progress", bar)
        table.add_row("steps", f"{report.step:,}{_of(report, ' of ')}")
        table.add_row("speed", f"{speed} steps/s, {left} left")
        table.add_row("return", f"{self._return(report)} (last 100 episodes)")
        for label, name, style in _SHOWN:
            if name in report.metrics:
                table.add_row(label, style.format(report.metrics[name]))
        if alarms := _alarms(report):
            table.add_row("alarm", alarms)
        for warning in _unwritten(report):
            table.add_row("warning", warning)
        return table


def _unwritten(report: Report) -> list[str]:
    """Returns what stays a warning until it is written, in words."""
    return [f"NOT WRITTEN: {what} ({why.rstrip('.')})" for what, why in report.unwritten.items()]


def _alarms(report: Report) -> str:
    """Returns the names of the alarms that are on, each with the number that proves it."""
    found = {
        k.removeprefix("alarm/"): v for k, v in report.metrics.items() if k.startswith("alarm/")
    }
    return ", ".join(f"{name} {value:.3g}" for name, value in found.items())


def _of(report: Report, link: str) -> str:
    """Returns the run's budget of steps after a link, or nothing if time alone ends it."""
    return "" if report.total_timesteps is None else f"{link}{report.total_timesteps:,}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
