"""What the processes of a sweep do: look at settings, measure a speed, train a run."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipper.checkpoint import dump_json, write_atomically
from clipper.errors import ClipperError
from clipper.experiments.one_run import agent_of, train_run
from clipper.experiments.runs import RunSpec
from clipper.training_report import Report

Notify = Callable[[dict[str, Any]], None]
_MEASURED_SECONDS = 1.0


def look(job: Mapping[str, Any], notify: Notify) -> int:
    """Writes the settings in full and the hash of every run of a job, one agent made for each."""
    found = []
    for data in job["runs"]:
        spec = RunSpec(**data)
        try:
            agent = agent_of(spec)
        except ClipperError as error:
            if len(job["runs"]) > 1:
                error.message = f"{spec.setting} on {spec.env}: {error.message}"
            raise
        found.append(
            {
                "config": agent.config.to_json(),
                "config_hash": spec.config_hash(agent.config),
                "engine": agent.engine,
                "preset": agent.preset,
            }
        )
        agent.close()
    _answer(job, found)
    return 0


def measure(job: Mapping[str, Any], notify: Notify) -> int:
    """Writes the seconds a step takes for every run of a job, its start and end shared out.

    Each is trained for about a second, in a folder that is thrown away.
    """
    found = []
    for data in job["runs"]:
        started = time.perf_counter()
        agent = agent_of(RunSpec(**{**data, "settings": {**data["settings"], "eval_every": 0}}))
        end = time.monotonic() + _MEASURED_SECONDS

        def is_on(report: Report, end: float = end) -> bool:
            return time.monotonic() < end

        with tempfile.TemporaryDirectory() as place:
            outcome = agent.train(progress=False, callback=is_on, run_dir=Path(place) / "run")
        agent.close()
        ends = time.perf_counter() - started - outcome.wall_seconds
        found.append(outcome.wall_seconds / outcome.step + ends / agent.config.total_timesteps)
    _answer(job, found)
    return 0


def train(job: Mapping[str, Any], notify: Notify) -> int:
    """Trains a run and keeps its result in its folder."""
    spec = RunSpec(**job["run"])
    is_finished = train_run(spec, Path(job["folder"]), notify) is not None
    return 0 if is_finished else 128 + signal.SIGTERM


def _answer(job: Mapping[str, Any], found: Any) -> None:
    write_atomically(Path(job["answer"]), dump_json({"answer": found}).encode())


JOBS: Mapping[str, Callable[[Mapping[str, Any], Notify], int]] = {
    "look": look,
    "measure": measure,
    "train": train,
}
