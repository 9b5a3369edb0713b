"""A list of runs in, one row per finished run out, whatever happens in between.

The folder of a sweep: `results.csv` and `curves.csv` (what is kept of finished runs, to be committed),
`sweep.json` (every setting in full), `runs/` (a run folder each), `logs/` (what runs
printed, failures above all). Rows alone are enough to go on: a run whose row is there is not run again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clipper.checkpoint import FORMAT, dump_json, write_atomically
from clipper.cores import num_cores
from clipper.errors import ConfigError, FileError
from clipper.experiments.processes import Processes
from clipper.experiments.results import (
    LOGS,
    SETTINGS,
    ResultsFiles,
    described_settings,
    read_result,
)
from clipper.experiments.rows import Row
from clipper.experiments.runs import RunSpec, check_runs
from clipper.experiments.scheduler import Scheduler
from clipper.experiments.states import Observer, RunState, SweepOutcome
from clipper.files import file_error
from clipper.folder_lock import UNLOCKED, lock_file

_LOG = logging.getLogger("clipper")
_LOCK_SECONDS = 30.0


def run_sweep(
    specs: Sequence[RunSpec],
    folder: str | Path,
    *,
    jobs: int | str = "auto",
    observer: Observer | None = None,
) -> SweepOutcome:
    """Trains every run that has no row yet, each in a process of its own, and returns how it ended.

    A run that was cut short goes on from its last checkpoint; one that failed does not stand in the
    way of others, and is tried again by the next call. Ctrl-C stops all runs, which save.

    Args:
        specs: The runs, in the order they are to be started.
        folder: Where everything is kept; made if there is none.
        jobs: Runs at a time, or `auto` for the number of cores.
        observer: Called with all runs a few times a second.

    Raises:
        ConfigError: A run is wrong, or has a row or a folder made with other settings.
        EnvironmentUnknown: There is no environment of that name.
        FileError: The folder is in use, damaged or cannot be written.
    """
    check_runs(specs)
    num_jobs = read_jobs(jobs)
    started = time.monotonic()
    place = Path(folder)
    with _locked(place) as lock:
        files = ResultsFiles(place)
        described = described_settings(place / SETTINGS)
        with Processes(place / LOGS / "server.log", [lock]) as processes:
            runs = looked_at(processes, specs)
            _take_finished(runs, files, place)
            _write_description(described, runs, place)
            scheduler = Scheduler(runs, files, processes, place, num_jobs, observer)
            stopped_by = scheduler.run()
    return SweepOutcome(
        folder=place, runs=runs, signal=stopped_by, wall_seconds=time.monotonic() - started
    )


def read_jobs(jobs: int | str) -> int:
    """Returns how many runs go on at a time; `auto` is the number of cores this process may use.

    Raises:
        ConfigError: It is neither `auto` nor a whole number above 0.
    """
    if jobs == "auto":
        return num_cores()
    if not str(jobs).isascii() or not str(jobs).isdigit() or int(jobs) < 1:
        raise ConfigError(f"jobs must be auto or a whole number above 0, but is {jobs!r}.")
    return int(jobs)


def looked_at(processes: Processes, specs: Sequence[RunSpec]) -> list[RunState]:
    """Returns the runs with their settings in full; one agent of every setting and task is made.

    Raises:
        ClipperError: An environment or a setting is wrong.
    """
    first = {spec.key[:2]: spec for spec in reversed(specs)}
    kinds = [spec for spec in specs if first[spec.key[:2]] is spec]
    answers = processes.ask_all("look", kinds)
    found = {spec.key[:2]: answer for spec, answer in zip(kinds, answers, strict=True)}
    return [
        RunState(
            spec=spec,
            config=found[spec.key[:2]]["config"],
            config_hash=found[spec.key[:2]]["config_hash"],
        )
        for spec in specs
    ]


def _take_finished(runs: Sequence[RunState], files: ResultsFiles, place: Path) -> None:
    """Marks the runs that have a row, or a result that no row was made of yet.

    Raises:
        ConfigError: A row was made with other settings.
    """
    for run in runs:
        row = files.rows.get(run.spec.key)
        if row is None:
            found = read_result(place / "runs" / run.spec.folder)
            if found is None or found[0].config_hash != run.config_hash:
                continue
            files.add(*found)
            row = found[0]
        check_row(run, row, place)
        run.status, run.row, run.step, run.is_old = "finished", row, row.steps, True


def check_row(run: RunState, row: Row, place: Path) -> None:
    """Raises unless a row is one of the run that is asked for.

    Raises:
        ConfigError: It was made with other settings, or evaluated otherwise.
    """
    if row.config_hash != run.config_hash:
        raise ConfigError(
            f"{place / 'results.csv'} must hold runs with the settings that are asked for, but "
            f"{run.spec} was made with others (hash {row.config_hash}, not {run.config_hash}).",
            hint="choose another --out, give the setting another name, or delete its rows; "
            f"{place / SETTINGS} has the settings of before.",
        )
    if row.eval_episodes != run.spec.evaluate:
        raise ConfigError(
            f"{place / 'results.csv'} must hold runs evaluated on {run.spec.evaluate} episodes, but "
            f"{run.spec} was on {row.eval_episodes}.",
            hint=f"give --evaluate {row.eval_episodes}, or choose another --out.",
        )


def _write_description(
    described: Sequence[Mapping[str, Any]], runs: Sequence[RunState], place: Path
) -> None:
    """Writes every setting in full on every task; those `described` by earlier calls are kept."""
    found: dict[tuple[str, str], Any] = {
        (entry["setting"], entry["env"]): entry for entry in described
    }
    for run in runs:
        spec = run.spec.to_json()
        del spec["seed"]
        spec["given"] = spec.pop("settings")
        config = {"config": dict(run.config), "config_hash": run.config_hash}
        found[run.spec.setting, run.spec.env] = {**spec, **config}
    content = dump_json({"format": FORMAT, "settings": list(found.values())}) + "\n"
    write_atomically(place / SETTINGS, content.encode())


@contextmanager
def _locked(place: Path) -> Iterator[int]:
    """Holds the folder's lock; yields its descriptor, which all runs hold too.

    Folders that were made and are empty at the end are removed.

    Raises:
        FileError: As `_lock_file`.
    """
    made = [path for path in (place, *place.parents) if not path.exists()]
    file = _lock_file(place)
    with file:
        try:
            (place / LOGS).mkdir(exist_ok=True)
            yield file.fileno()
        finally:
            _remove_empty(place / LOGS)
            with contextlib.suppress(OSError):
                if os.listdir(place) == ["lock"]:
                    (place / "lock").unlink()
                for path in made:
                    path.rmdir()


def _lock_file(place: Path) -> IO[str]:
    """Returns the open file that holds a folder's lock.

    The runs of a sweep that was killed hold it while they save; a sweep that ends may remove file and
    folder while this one waits, which then makes them anew.

    Raises:
        FileError: Another sweep goes on holding it, or the folder cannot be written.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    path = place / "lock"
    while True:
        try:
            place.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115 - held as long as the sweep
        except OSError as error:
            hint = "choose another folder with --out."
            raise FileError(file_error(place, error), hint=hint) from error
        try:
            found = lock_file(file.fileno(), place)
            if found is None:
                _LOG.warning("%s: %s", place, UNLOCKED)
            if found is not False and _is_there(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if time.monotonic() > deadline:
            raise FileError(
                f"{place} must not be in use, but another sweep is writing it.",
                hint="wait until it has ended, or stop it.",
            )
        time.sleep(0.2)


def _is_there(file: IO[str], path: Path) -> bool:
    """True if an open file is the one of that name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _remove_empty(logs: Path) -> None:
    """Removes empty logs and the folders that are empty without them."""
    for folder, _, files in os.walk(logs, topdown=False):
        for name in files:
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
