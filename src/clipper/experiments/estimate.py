"""Runs in, how long they would take out: finished ones looked up, the others trained for a second."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from clipper.checkpoint import checkpoints_in
from clipper.experiments.processes import Processes
from clipper.experiments.results import RESULTS, read_rows
from clipper.experiments.runs import RunSpec, check_runs
from clipper.experiments.states import RunState
from clipper.experiments.sweep import check_row, looked_at

# more settings are not tried: the others are taken to be as fast as these on the same task
_MOST_MEASURED = 12


def plan_sweep(
    specs: Sequence[RunSpec], folder: str | Path, *, is_measured: bool = True
) -> tuple[list[RunState], list[float | None]]:
    """Returns every run as a sweep would find it, and the seconds a step takes where measured.

    Nothing is written.

    Args:
        specs: The runs.
        folder: The sweep's folder, which need not exist.
        is_measured: Train some of what is left for a second each.

    Raises:
        ClipperError: As `run_sweep` would.
    """
    check_runs(specs)
    place = Path(folder)
    rows = {row.key: row for row in read_rows(place / RESULTS)} if has_rows(place) else {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        Processes(Path(temporary) / "log") as processes,
    ):
        runs = looked_at(processes, specs)
        for run in runs:
            if run.spec.key in rows:
                run.row = rows[run.spec.key]
                check_row(run, run.row, place)
                run.status, run.step, run.is_old = "finished", run.row.steps, True
            elif kept := checkpoints_in(place / "runs" / run.spec.folder / "checkpoints"):
                run.step = int(kept[-1].name.removeprefix("step-"))
        chosen = _to_measure(runs) if is_measured else []
        answers = processes.ask_all("measure", [run.spec for run in chosen]) if chosen else []
    speeds = {run.spec.key[:2]: speed for run, speed in zip(chosen, answers, strict=True)}
    return runs, [speeds.get(run.spec.key[:2]) for run in runs]


def has_rows(place: Path) -> bool:
    """True if a sweep's folder has rows."""
    return (place / RESULTS).is_file()


def _to_measure(runs: Sequence[RunState]) -> list[RunState]:
    """Returns a run of every setting and task that are left: of each task first, then more."""
    left = [run for run in runs if run.status == "waiting"]
    by_env = {run.spec.env: run for run in reversed(left)}
    by_kind = {run.spec.key[:2]: run for run in reversed(left)}
    first = list(by_env.values())
    others = [run for run in by_kind.values() if run not in first]
    return (first + others)[: max(_MOST_MEASURED, len(first))]
