"""Trains presets over seeds and appends one row per finished run: what "it learns" is measured by.

    python benchmarks/returns/run.py CartPole-v1 Pendulum-v1 --seeds 0-9 --jobs 2
    python benchmarks/returns/run.py --table --readme

Every run is a process of its own. A run whose row stands in `results.csv` for the same environment,
seed and settings is not run again, so that a study can be interrupted and carried on anywhere. The
row holds the evaluation of the *last* agent on 100 fresh episodes; `curves/` has the training
returns. Presets are tuned on seeds from 1000 on; these seeds are for measuring alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COLUMNS = (
    "env",
    "seed",
    "steps",
    "mean",
    "std",
    "low",
    "high",
    "stochastic_mean",
    "training_mean",
    "wall_seconds",
    "cpu_seconds",
    "settings",
    "parameters_sha256",
    "commit",
    "versions",
    "command",
)
EPISODES = 100
# mean over the seeds and worst seed that a preset is to reach, and what others have published
# (RL Baselines3 Zoo's benchmark table, one run each; CleanRL's for MountainCar-v0)
GOALS: dict[str, tuple[int, int | None, str]] = {
    "CartPole-v1": (499, 475, "zoo 500"),
    "Acrobot-v1": (-82, -90, "zoo -73.5 at 1 M"),
    "MountainCar-v0": (-115, -130, "zoo -110"),
    "MountainCarContinuous-v0": (90, 85, "zoo 88"),
    "Pendulum-v1": (-180, -220, "zoo -172"),
    "LunarLander-v3": (240, 200, "zoo 242 (-v2)"),
    "LunarLanderContinuous-v3": (265, 230, "zoo 271 (-v2)"),
    "BipedalWalker-v3": (300, 280, "zoo 288"),
    "HalfCheetah-v5": (3000, None, "CleanRL 1,443 (-v4), ikostrikov 3,083 (-v2)"),
    "Hopper-v5": (2400, None, "CleanRL 2,383 (-v4), ikostrikov 2,294 (-v2), Tianshou 2,609"),
    "Walker2d-v5": (3400, None, "CleanRL 2,288 (-v4), ikostrikov 3,674 (-v2), Tianshou 3,589"),
    "InvertedPendulum-v5": (950, None, ""),
    "InvertedDoublePendulum-v5": (8500, None, ""),
    "Reacher-v5": (-5, None, ""),
    "Swimmer-v5": (250, None, "zoo 281"),
}
# judged by the last 100 training episodes, as what others have published of them is
BY_TRAINING = {env for env, (_, worst, _) in GOALS.items() if worst is None}


def main() -> int:
    """Runs what is missing, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="*", metavar="ENV")
    parser.add_argument("--seeds", default="0-9", help="0-9 or 0,3,5 (0-9)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--table", action="store_true", help="print the results so far")
    parser.add_argument(
        "--readme", action="store_true", help="with --table: write it there as well"
    )
    parser.add_argument("--one", metavar="ENV:SEED", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        env, _, seed = args.one.rpartition(":")
        run_one(env, int(seed))
        return 0
    if args.table:
        print(table())
        if args.readme:
            write_readme(table())
        return 0
    finished = {(row["env"], int(row["seed"]), row["settings"]) for row in read_rows()}
    wanted = [(env, seed) for env in args.envs for seed in seeds_in(args.seeds)]
    todo = [job for job in wanted if (*job, settings_hash(job[0])) not in finished]
    print(f"{len(wanted) - len(todo)} runs are there, {len(todo)} to go")
    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(run_in_process, todo))
    return int(any(codes))


def run_in_process(job: tuple[str, int]) -> int:
    """Runs one environment and seed in a fresh process and returns its exit code."""
    env, seed = job
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__)), "--one", f"{env}:{seed}"]
    return subprocess.run(words, env=environment, check=False).returncode


def run_one(env: str, seed: int) -> None:
    """Trains, evaluates the last agent, and appends the row."""
    import clipper
    from clipper.checkpoint import parameters_sha256, prefixed
    from clipper.provenance import versions

    started, cpu = time.perf_counter(), time.process_time()
    agent = clipper.PPO(env, seed=seed, eval_every=0)
    curve: list[tuple[int, float]] = []
    outcome = agent.train(progress=False, callback=lambda report: record(report, curve))
    if outcome.signal is not None:
        raise SystemExit(128 + outcome.signal)  # it is no result
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    exam = agent.evaluate(EPISODES, seed=0)
    sampled = agent.evaluate(EPISODES, seed=0, deterministic=False)
    state = {k: v.numpy() for k, v in agent.policy.state_dict().items()}
    row = {
        "env": env,
        "seed": seed,
        "steps": outcome.step,
        "mean": f"{exam.mean:.2f}",
        "std": f"{exam.std:.2f}",
        "low": f"{exam.low:.2f}",
        "high": f"{exam.high:.2f}",
        "stochastic_mean": f"{sampled.mean:.2f}",
        "training_mean": f"{outcome.metrics['rollout/episode_return']:.2f}",
        "wall_seconds": f"{wall:.1f}",
        "cpu_seconds": f"{cpu:.1f}",
        "settings": settings_hash(env),
        "parameters_sha256": parameters_sha256(prefixed("policy", state)),
        "commit": commit(),
        "versions": " ".join(f"{k} {v}" for k, v in versions().items()),
        "command": f"python benchmarks/returns/run.py {env} --seeds {seed}",
    }
    append(RESULTS, COLUMNS, [row])
    rows = [{"seed": seed, "step": step, "mean_return": f"{mean:.2f}"} for step, mean in curve]
    append(HERE / "curves" / f"{env}.csv", ("seed", "step", "mean_return"), rows)
    print(f"{env} seed {seed}: {exam.mean:.1f} in {wall:.0f} s", flush=True)


def record(report: object, curve: list[tuple[int, float]]) -> None:
    """Adds a point of the training curve at about every fiftieth of the run."""
    import clipper

    assert isinstance(report, clipper.Report)
    mean = report.metrics.get("rollout/episode_return")
    last = curve[-1][0] if curve else 0
    if mean is not None and report.step - last >= report.total_timesteps / 50:
        curve.append((report.step, mean))


def append(path: Path, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    """Appends rows in one write, so that two processes do not mix their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [] if path.exists() else [",".join(columns)]
    lines += [",".join(str(row[name]) for name in columns) for row in rows]
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def read_rows() -> Iterator[dict[str, str]]:
    """Yields the rows of finished runs."""
    if RESULTS.exists():
        with open(RESULTS, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def settings_hash(env: str) -> str:
    """Returns a short hash of the settings a run of an environment would have."""
    from clipper.experiments.runs import config_hash
    from clipper.presets import PRESETS

    where = {"env": env, "env_kwargs": {}, "max_episode_steps": None}
    return config_hash("ppo", where, PRESETS[env].config(eval_every=0))


def seeds_in(text: str) -> list[int]:
    """Returns the seeds that `0-9` or `0,3,5` names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def commit() -> str:
    """Returns the commit that runs, with a + if the sources are others than those committed."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "../../src"))


def table() -> str:
    """Returns the results as a Markdown table: of every environment the settings with most seeds.

    Below them the preset's of now, if those are others that have fewer seeds so far. A star marks
    settings that are not the preset's of now; a dagger, environments judged by the last 100 training
    episodes in place of 100 fresh ones.
    """
    lines = [
        "| environment | steps | seeds | mean | worst seed | goal (mean, worst) | published "
        "| CPU seconds a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in read_rows():
        groups.setdefault(row["env"], {}).setdefault(row["settings"], []).append(row)
    places = {env: place for place, env in enumerate(GOALS)}
    for env, by_settings in sorted(groups.items(), key=lambda group: places[group[0]]):
        now = settings_hash(env)
        # of as many seeds the present settings, or the last
        ages = {found: age for age, found in enumerate(by_settings)}
        most = max(ages, key=lambda found: (len(by_settings[found]), found == now, ages[found]))
        shown = [most, *(found for found in by_settings if found == now != most)]
        lines += [table_row(env, by_settings[found], found == now) for found in shown]
    return "\n".join(lines)


def table_row(env: str, rows: list[dict[str, str]], is_now: bool) -> str:
    """Returns a row of the table: some seeds of an environment with the same settings."""
    star = "*" * (not is_now) + "†" * (env in BY_TRAINING)
    means = [float(row["training_mean" if env in BY_TRAINING else "mean"]) for row in rows]
    goal, worst_goal, published = GOALS[env]
    goals = f"{goal:,}" if worst_goal is None else f"{goal}, {worst_goal}"
    cpu_seconds = sum(float(row["cpu_seconds"]) for row in rows) / len(rows)
    three_digits = float(f"{cpu_seconds:.3g}")
    return (
        f"| {env}{star} | {int(rows[0]['steps']):,} | {len(rows)} | {sum(means) / len(means):,.1f} "
        f"| {min(means):,.1f} | {goals} | {published} | {three_digits:,g} |"
    )


def write_readme(text: str) -> None:
    """Puts the table between the marks in the README."""
    path = HERE.parents[1] / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition("-->\n")
    _, _, after = rest.partition("<!-- end of results -->")
    path.write_text(f"{before}-->\n{text}\n<!-- end of results -->{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
