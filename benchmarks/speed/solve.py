"""How long it takes from the start of the process until a task is solved, evaluations included.

    python benchmarks/speed/solve.py                                   # all, five seeds each
    python benchmarks/speed/solve.py CartPole-v1 --only clipper --seeds 0-9
    python benchmarks/speed/solve.py --readme

Every library has the settings it is tuned with: Clipper its presets, Stable-Baselines3 and sbx those of
RL Baselines3 Zoo. All are looked at by the same rule: when `interval` more steps are done, at the end
of an iteration, and the last 100 training episodes are at a tenth of the bar or above, the most
likely actions play 10 episodes; if their mean reaches the bar, they play 100 fresh ones, and if that
mean reaches it too, the task is solved and the clock stands.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pages
import store
from report import figure
from run import PEERS_PYTHON, allowed_cores, pin
from works import LEAST_SHARE_OF_PROCESS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "solve.json"
GLANCE, EXAM = 10, 100
MINUTES = 20


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task and when it counts as solved.

    Attributes:
        bar: Mean return that is wanted.
        interval: Steps between two looks.
        total_timesteps: Steps after which a run has failed; horizon of the schedules.
        zoo: Hyperparameters of RL Baselines3 Zoo, `hyperparams/ppo.yml`, by SB3's names.
        goals: Most of the seconds, by wall and CPU.
    """

    bar: float
    interval: int
    total_timesteps: int
    zoo: dict[str, Any]
    goals: dict[str, float] = field(default_factory=dict)


TASKS = {
    "CartPole-v1": Task(
        bar=475, interval=5_000, total_timesteps=100_000, goals={"wall": 3.0},
        zoo={
            "n_envs": 8, "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98,
            "gae_lambda": 0.8, "ent_coef": 0.0, "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2",
        },
    ),
    "LunarLander-v3": Task(
        bar=200, interval=15_000, total_timesteps=1_000_000, goals={"cpu": 14.0},
        zoo={
            "n_envs": 16, "n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999,
            "gae_lambda": 0.98, "ent_coef": 0.01,
        },
    ),
}  # fmt: skip
# `clipper-native` steps the environment within the engine, where there is one
LIBRARIES = {
    "CartPole-v1": ("clipper", "clipper-native", "sb3", "sbx"),
    "LunarLander-v3": ("clipper", "sb3", "sbx"),
}
TITLES = {
    "clipper": "Clipper",
    "clipper-native": "Clipper, native env",
    "sb3": "SB3",
    "sbx": "sbx",
}
SOLVERS = {"clipper": "solver_clipper.py", "sb3": "solver_sb3.py", "sbx": "solver_sb3.py"}


def main() -> int:
    """Solves what is asked for and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (all)")
    parser.add_argument("--only", default="", help="libraries, as clipper,sb3 (all)")
    parser.add_argument("--seeds", default="0-4", help="0-4 or 0,3 (0-4)")
    parser.add_argument("--tries", type=int, default=3, help="of a run that others disturb (3)")
    parser.add_argument("--table", action="store_true", help="print what was measured so far")
    parser.add_argument("--readme", action="store_true", help="write it into the READMEs")
    args = parser.parse_args()
    for name in args.tasks:
        if name not in TASKS:
            parser.error(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    if args.table or args.readme:
        record = read()
        text = markdown(record) if record else "nothing was measured yet"
        print(text)
        if args.readme and record:
            for path in (pages.TOP_README, HERE / "README.md"):
                pages.put_between(path, text, "solve")
        return 0
    wanted = args.only.split(",") if args.only else list(TITLES)
    found: dict[str, Any] = {}
    for task in args.tasks or TASKS:
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in seeds_in(args.seeds):
            for library in (name for name in LIBRARIES[task] if name in wanted):
                for _ in range(args.tries):
                    run = solve(task, library, seed)
                    print(
                        f"{task} {library} seed {seed}: {words(run)}", file=sys.stderr, flush=True
                    )
                    if is_quiet(run):
                        break
                runs.setdefault(library, []).append(run)
        found[task] = keep(task, runs)
    print(markdown(found))
    return 0


def seeds_in(text: str) -> list[int]:
    """Returns the seeds that `0-4` or `0,3` names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def solve(task: str, library: str, seed: int) -> dict[str, Any]:
    """Returns what a process of its own took, on one core."""
    family, _, vectorization = library.partition("-")
    job = {"task": task, "library": family, "seed": seed, "vectorization": vectorization or "auto"}
    python = sys.executable if family == "clipper" else str(PEERS_PYTHON)
    command = [python, str(HERE / SOLVERS[family]), json.dumps({**job, "spawned": time.time()})]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        timeout=60 * MINUTES,
        preexec_fn=lambda: pin(set(allowed_cores()[-1:])),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def words(run: dict[str, Any]) -> str:
    """Returns a run in words."""
    state = "solved" if run["is_solved"] else "NOT solved"
    mean = f" ({run['mean']:.1f})" if "mean" in run else ""
    void = "" if is_quiet(run) else f"  void: others had {1 - run['cpu'] / run['wall']:.0%}"
    return (
        f"{state} at {run['steps']:,} steps{mean}, {run['wall']:.1f} s wall, "
        f"{run['cpu']:.1f} s CPU, {run.get('cpu_of_looks', 0.0):.1f} of them in "
        f"{run['looks']} looks{void}"
    )


def is_quiet(run: dict[str, Any]) -> bool:
    """Returns whether the process had its core to itself."""
    return bool(run["cpu"] >= LEAST_SHARE_OF_PROCESS * run["wall"])


def keep(task: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Adds the runs of libraries that had their core to themselves to the record."""
    about = {"machine": store.machine(), "commit": store.commit(), "date": store.date()}
    entries = {
        library: {"runs": of, "void": not all(map(is_quiet, of)), **about}
        for library, of in runs.items()
    }
    record = read()
    for library, entry in entries.items():
        if not entry["void"]:
            record.setdefault(task, {})[library] = entry
    if record:
        RESULTS.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return entries


def read() -> dict[str, Any]:
    """Returns the record by task and library."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def markdown(record: dict[str, Any]) -> str:
    """Returns a Markdown table: medians over the seeds, and the range."""
    lines = [
        "| until solved | library | seeds solved | steps | seconds | CPU seconds | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        for library in LIBRARIES[name]:
            entry = record.get(name, {}).get(library)
            if entry is None:
                continue
            runs = entry["runs"]
            solved = sum(run["is_solved"] for run in runs)
            cells = [spread([run[what] for run in runs]) for what in ("steps", "wall", "cpu")]
            lines.append(
                f"| {name} to {task.bar:g} | {TITLES[library]} | {solved} of {len(runs)} "
                f"| {' | '.join(cells)} | {goal(task, library, entry)} |"
            )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Returns median and range."""
    return f"{figure(statistics.median(values))} ({figure(min(values))} to {figure(max(values))})"


def goal(task: Task, library: str, entry: dict[str, Any]) -> str:
    """Returns Clipper's goals: every seed is to be within them."""
    if entry["void"]:
        return "void"
    if not library.startswith("clipper"):
        return ""
    parts = []
    for what, most in task.goals.items():
        is_met = all(run["is_solved"] and run[what] <= most for run in entry["runs"])
        unit = "s" if what == "wall" else "CPU-s"
        parts.append(f"<= {most:g} {unit}: {'met' if is_met else 'missed'}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
