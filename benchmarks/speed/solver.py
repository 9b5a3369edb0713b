"""The rule by which every library is looked at, and what a solver prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from solve import EXAM, GLANCE, TASKS, Task

Play = Callable[[int, int], float]
"""Returns the mean return of so many fresh episodes with that seed."""


class Examiner:
    """Looks at an agent every so many steps and stops the clock when it passes.

    Args:
        task: What is to be solved.
        play: Plays episodes with the agent of now, most likely actions.
    """

    def __init__(self, task: Task, play: Play) -> None:
        self._task = task
        self._play = play
        self._next = task.interval
        self._looks = 0
        self._exams = 0
        self._cpu = 0.0
        self.found: dict[str, Any] = {"is_solved": False}

    def look(self, step: int, training_mean: float) -> bool:
        """Returns True when the task is solved; at the end of every iteration.

        Args:
            step: Steps so far.
            training_mean: Mean return of the last 100 training episodes, NaN before the first.
        """
        self.found |= {"steps": step, "looks": self._looks}
        if step < self._next or not training_mean >= self._task.bar / 10:
            return False
        self._next = step + self._task.interval
        self._looks += 1
        began = time.process_time()
        is_solved = self._passes(GLANCE) and self._passes(EXAM)
        self._cpu += time.process_time() - began
        self.found |= {"is_solved": is_solved, "looks": self._looks, "cpu_of_looks": self._cpu}
        return is_solved

    def _passes(self, episodes: int) -> bool:
        self._exams += 1
        self.found["mean"] = self._play(episodes, self._exams)
        return bool(self.found["mean"] >= self._task.bar)


def main(run: Callable[[dict[str, Any], Task], dict[str, Any]]) -> None:
    """Runs the job that the command line names and prints what it took since the process began."""
    job = json.loads(sys.argv[1])
    found = run(job, TASKS[job["task"]])
    print(json.dumps({**found, "wall": time.time() - job["spawned"], "cpu": time.process_time()}))
