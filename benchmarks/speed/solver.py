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
        self.found: dict[str, Any] = {"is_solved": False, "steps": 0, "mean": float("-inf")}

    def look(self, step: int) -> bool:
        """Returns True when the task is solved; at the end of every iteration."""
        if step < self._next:
            return False
        self._next = step + self._task.interval
        self._looks += 1
        mean = self._play(GLANCE, 2 * self._looks)
        if mean >= self._task.bar:
            mean = self._play(EXAM, 2 * self._looks + 1)
        else:
            self.found |= {"steps": step, "mean": mean, "looks": self._looks}
            return False
        is_solved = mean >= self._task.bar
        self.found |= {"is_solved": is_solved, "steps": step, "mean": mean, "looks": self._looks}
        return is_solved


def main(run: Callable[[dict[str, Any], Task], dict[str, Any]]) -> None:
    """Runs the job that the command line names and prints what it took since the process began."""
    job = json.loads(sys.argv[1])
    found = run(job, TASKS[job["task"]])
    print(json.dumps({**found, "wall": time.time() - job["spawned"], "cpu": time.process_time()}))
