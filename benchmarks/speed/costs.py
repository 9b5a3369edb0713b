"""What trust costs: the checks of every rollout, the checkpoints of a run, the sweep around its runs.

    python benchmarks/speed/costs.py                    # all, five minutes on a quiet machine
    python benchmarks/speed/costs.py checks checkpoints
    python benchmarks/speed/costs.py --readme

A share is the time spent in the functions named here, over the whole time of training: both are taken
in the same run, so that neither another run nor another machine's speed is in it. A sweep, one run at a
time, is timed beside the same runs by `clipper train`, one after another.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pages
import store
from runner import Job
from runner_clipper import build
from works import STEPS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "costs.json"
REPETITIONS = 3
CHECKS = (
    "clipper.rollout.check_finite",
    "clipper.rollout.BoundsWatch.look",
    "clipper.algorithms.ppo.check_first_ratio",
    "clipper.alarms.AlarmWatch.look",
)
"""Looks through a block for NaN and infinity, for bounds, at the first ratio, and at the metrics.

Type, dtype and shape of a step are compared where it is copied, and gradients are finite if the norm
is that they are clipped by: neither has a time of its own.
"""
CHECKED = ("CartPole-v1", "HalfCheetah-v5", "LunarLander-v3")
SAVED = {"LunarLander-v3": 1_000_000, "HalfCheetah-v5": 1_000_000}
"""Tasks and steps of runs with checkpoints, as long as users' are: their rules go by the minute."""
SWEPT = ("HalfCheetah-v5", 200_000, 3)
"""Task, steps and number of runs of a sweep."""
GOALS = {"checks": 0.03, "checkpoints": 0.01, "sweep": 0.02}


class Stopwatch:
    """Adds up the time within functions, which are called as before."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, timed."""

        def timed(*args: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **keywords)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        return timed


def share_in(names: tuple[str, ...], train: Callable[[], Any]) -> dict[str, float]:
    """Returns how much of the time of `train` was within functions, which must all be called."""
    watches = {name: Stopwatch() for name in names}
    patches = []
    for name, watch in watches.items():
        place, _, attribute = name.rpartition(".")
        patches.append(patch(name, watch.around(getattr(_resolved(place), attribute))))
    for each in patches:
        each.start()
    began = time.perf_counter()
    try:
        train()
    finally:
        took = time.perf_counter() - began
        for each in patches:
            each.stop()
    idle = [name for name, watch in watches.items() if not watch.calls]
    if idle:
        raise SystemExit(f"{', '.join(idle)} was not called: this measures nothing any more")
    seconds = sum(watch.seconds for watch in watches.values())
    calls = sum(watch.calls for watch in watches.values())
    return {"share": seconds / took, "seconds": seconds, "calls": calls, "of_seconds": took}


def _resolved(path: str) -> Any:
    """Returns the module or the class of a dotted name."""
    return pkgutil.resolve_name(path)


def checks(task: str) -> dict[str, float]:
    """Returns the share of the checks in training as the table of speeds measures it."""
    agent = build(Job(row=task, library="clipper", steps=STEPS))
    found = share_in(CHECKS, lambda: agent.train(progress=False))
    agent.close()
    return found


def checkpoints(task: str) -> dict[str, float]:
    """Returns the share of writing checkpoints, by the rules of every run, of a run to its end."""
    import clipper

    with tempfile.TemporaryDirectory() as folder:
        agent = clipper.PPO(task, seed=0, total_timesteps=SAVED[task], eval_every=0)
        found = share_in(
            ("clipper.run_keeper.RunKeeper.save",),
            lambda: agent.train(progress=False, run_dir=Path(folder) / "run"),
        )
        agent.close()
    return found


def sweep(task: str) -> dict[str, float]:
    """Returns what a sweep of runs takes over the same runs by `clipper train`, one after another."""
    _, steps, number = SWEPT
    clipper = str(Path(sys.executable).with_name("clipper"))
    words = [f"--total-timesteps={steps}", "--eval-every=0"]
    with tempfile.TemporaryDirectory() as folder:
        seeds = f"--seeds=0-{number - 1}"
        swept = _seconds(clipper, "sweep", task, seeds, "--jobs=1", *words, f"--out={folder}/s")
        alone = sum(
            _seconds(clipper, "train", task, f"--seed={seed}", "--quiet", *words, f"--out={folder}")
            for seed in range(number)
        )
    return {"share": swept / alone - 1, "seconds": swept - alone, "of_seconds": alone}


def _seconds(*command: str) -> float:
    """Returns how long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


KINDS: dict[str, tuple[Callable[[str], dict[str, float]], tuple[str, ...]]] = {
    "checks": (checks, CHECKED),
    "checkpoints": (checkpoints, tuple(SAVED)),
    "sweep": (sweep, SWEPT[:1]),
}


def main() -> int:
    """Measures what is asked for, keeps it and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "kinds", nargs="*", choices=[*KINDS, []], help=f"of {', '.join(KINDS)} (all)"
    )
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    args = parser.parse_args()
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for kind in () if args.readme else args.kinds or KINDS:
        measure, tasks = KINDS[kind]
        for task in tasks:
            runs = [measure(task) for _ in range(1 if kind == "checkpoints" else REPETITIONS)]
            about = {"machine": store.machine(), "commit": store.commit(), "date": store.date()}
            record.setdefault(kind, {})[task] = {"runs": runs, **about}
            RESULTS.write_text(
                json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
            print(line(kind, task, runs), file=sys.stderr, flush=True)
    text = markdown(record)
    print(text)
    if args.readme:
        pages.put_between(HERE / "README.md", text, "costs")
    return 0


def line(kind: str, task: str, runs: list[dict[str, float]]) -> str:
    """Returns a row of the table."""
    share = statistics.median(run["share"] for run in runs)
    seconds = statistics.median(run["seconds"] for run in runs)
    whole = statistics.median(run["of_seconds"] for run in runs)
    goal = "met" if share <= GOALS[kind] else "missed"
    return (
        f"| {kind} | {task} | {seconds:.2g} s of {whole:.3g} s "
        f"| {share:.2%} | <= {GOALS[kind]:.0%}: {goal} |"
    )


def markdown(record: dict[str, Any]) -> str:
    """Returns a Markdown table of all that was measured."""
    lines = ["| cost of | task | time | share | goal |", "|---|---|---|---|---|"]
    lines += [
        line(kind, task, record[kind][task]["runs"])
        for kind, (_, tasks) in KINDS.items()
        for task in tasks
        if task in record.get(kind, {})
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
