"""What every runner shares: one job in as JSON, one line of JSON out, equal conditions in between.

python runner_sb3.py '{"row": "CartPole-v1", "library": "sbx", "steps": 5000}'
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from works import ROWS, Row, Settings

PACKAGES = ("numpy", "torch", "jax", "gymnasium", "mujoco", "Box2D")


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement: a row, by one library, over so many steps."""

    row: str
    library: str
    steps: int
    spawned: float = 0.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of the row."""
        return self._row.settings

    @property
    def _row(self) -> Row:
        return ROWS[self.row]

    @property
    def kind(self) -> str:
        """The measure."""
        return self._row.kind

    @property
    def total_steps(self) -> int:
        """Steps in whole rollouts."""
        return self.settings.steps(self.steps)


Measure = Callable[[Job], dict[str, Any]]


def main(packages: tuple[str, ...], measures: Mapping[str, Measure]) -> None:
    """Runs the job that the command line names and prints what it found."""
    job = Job(**json.loads(sys.argv[1]))
    made = _watch_envs()
    found = measures[job.kind](job)
    for mode in (env.render_mode for env in made):
        # with rgb_array LunarLander simulates the particles of its exhaust
        assert mode is None, f"render_mode must be None, but is {mode!r}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["memory_mb"] = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found["versions"] = _versions((*packages, *PACKAGES))
    if hasattr(os, "sched_getaffinity"):
        found["cores"] = sorted(os.sched_getaffinity(0))
    print(json.dumps(found))


def _watch_envs() -> list[Any]:
    """Returns a list to which every environment that Gymnasium makes from now on is added."""
    import gymnasium

    made: list[Any] = []
    make = gymnasium.make

    def watched(*args: Any, **kwargs: Any) -> Any:
        made.append(make(*args, **kwargs))
        return made[-1]

    gymnasium.make = watched
    return made


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def compare(settings: Settings, found: Mapping[str, Any]) -> None:
    """Raises unless what a library says of itself are the settings of the row."""
    wanted = dataclasses.asdict(settings)
    for name, value in found.items():
        expected = wanted[name]
        if isinstance(expected, float):
            assert math.isclose(value, expected, rel_tol=1e-6), f"{name} {value}, not {expected}"
        else:
            assert value == expected, f"{name} is {value}, not {expected}"
    missing = wanted.keys() - found.keys()
    assert not missing, f"the library must say its {', '.join(sorted(missing))}"


class Laps:
    """Times a run of training: the first iteration, in which compilers work, and the others."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, float, float]] = []

    def begin(self) -> None:
        """Starts the clock."""
        self.mark(0)

    def mark(self, step: int) -> None:
        """Notes the end of an iteration after so many steps."""
        self._marks.append((step, time.perf_counter(), time.process_time()))

    def found(self, job: Job, updates: int, parameters: int) -> dict[str, Any]:
        """Returns steps per second after the first iteration, and what else is to be compared.

        Raises:
            AssertionError: The run took fewer or more steps or updates than the settings say.
        """
        (_, start, _), (first_step, first, first_cpu) = self._marks[:2]
        last_step, last, last_cpu = self._marks[-1]
        assert last_step == job.total_steps, f"{last_step} steps, not {job.total_steps}"
        expected = job.settings.updates(last_step)
        assert updates == expected, f"{updates} updates, not {expected}"
        return {
            "value": (last_step - first_step) / (last - first),
            "with_first_iteration": last_step / (last - start),
            "core_share": (last_cpu - first_cpu) / (last - first),
            "steps": last_step,
            "updates": updates,
            "parameters": parameters,
        }


def repeated(once: Callable[[], Any], calls: int, seconds: float = 2.0) -> dict[str, Any]:
    """Returns the microseconds of one of the calls that `once` does, median over many goes."""
    once()
    taken = []
    cpu, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        since = time.perf_counter()
        once()
        taken.append(1e6 * (time.perf_counter() - since) / calls)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    return {"value": statistics.median(taken), "core_share": share}


def started(job: Job) -> dict[str, Any]:
    """Returns the seconds since the process was spawned."""
    wall, cpu = time.time() - job.spawned, time.process_time()
    return {"value": wall, "cpu_seconds": cpu, "core_share": cpu / wall}
