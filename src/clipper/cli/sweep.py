"""`clipper sweep`: settings, environments and seeds in, a row for every finished run out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipper.cli.arguments import (
    Parser,
    UsageError,
    add_algorithm_argument,
    add_env_arguments,
    add_settings,
    given_settings,
    say,
)
from clipper.setting_values import read_value

if TYPE_CHECKING:
    from clipper.experiments.runs import RunSpec
    from clipper.experiments.states import RunState, SweepOutcome
    from clipper.experiments.study import Study

HELP = """Trains every setting on every environment with every seed and keeps a row for every run.

The same command goes on where it was stopped (Ctrl-C, a crash, another machine): runs with a row in
results.csv are not run again, others go on from their last checkpoint. `clipper compare` and
`clipper report` read the rows. docs/tutorials/compare-settings.md has an example."""


def add_arguments(parser: Parser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "study",
        nargs="?",
        metavar="FILE.toml|ENV",
        help="a file with envs, seeds, [settings], [grid] and [[setting]], or an environment",
    )
    sweep = parser.add_argument_group("sweep")
    sweep.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="a setting, algo, preset, env_kwargs (JSON), max_episode_steps or env, and its values; "
        "again for more keys: every combination is run",
    )
    sweep.add_argument("--seeds", metavar="SEEDS", help="as 0-9 or 0,3,5 (0, or the file's)")
    sweep.add_argument(
        "--jobs", default="auto", metavar="N|auto", help="runs at a time (auto: one per core)"
    )
    sweep.add_argument(
        "--evaluate",
        metavar="N",
        help="fresh episodes that every last agent plays at the end (0, or the file's)",
    )
    sweep.add_argument(
        "--name", metavar="NAME", help="name of the sweep (the file's, or the environment)"
    )
    sweep.add_argument("--out", metavar="DIR", help="folder of the sweep (sweeps/NAME)")
    sweep.add_argument(
        "--dry-run", action="store_true", help="list the runs and estimate the time, write nothing"
    )
    sweep.add_argument(
        "--tmuxp",
        metavar="FILE.yaml",
        help="write a tmuxp session that trains the runs in panes, and run nothing",
    )
    add_algorithm_argument(sweep)
    sweep.add_argument("--preset", metavar="NAME", help="a preset's name, or none")
    sweep.add_argument("--device", help="cpu, cuda or cuda:N (cpu)")
    sweep.add_argument(
        "--vectorization",
        choices=("auto", "gymnasium", "native"),
        help="what steps environments: the engine (native) or Python (auto: native for libraries)",
    )
    sweep.add_argument("--quiet", action="store_true", help="no progress, only failures")
    add_env_arguments(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Runs what is missing and returns the exit code."""
    from clipper.experiments.sweep import read_jobs, run_sweep

    num_jobs = read_jobs(args.jobs)
    study = _study(args)
    specs = study.runs()
    folder = Path(args.out) if args.out else Path("sweeps") / _folder_name(study.name)
    again = shlex.join(["clipper", "sweep", *_words(args)])
    if args.tmuxp:
        from clipper.experiments.estimate import plan_sweep
        from clipper.experiments.tmuxp import write_session

        plan_sweep(specs, folder, is_measured=False)  # what could not run is said now
        write_session(args.tmuxp, specs, folder, num_jobs, again)
        print(f"{args.tmuxp}: {len(specs)} runs in {min(num_jobs, len(specs))} panes")
        print(f"next:\n  tmuxp load {shlex.quote(args.tmuxp)}\n  {again}")
        return 0
    if args.dry_run:
        return _dry_run(specs, folder, num_jobs)
    from clipper.experiments.display import SweepDisplay

    with SweepDisplay(num_jobs, is_quiet=args.quiet) as display:
        outcome = run_sweep(specs, folder, jobs=num_jobs, observer=display)
    _summarise(outcome, again)
    return outcome.exit_code


def _words(args: argparse.Namespace) -> list[str]:
    """Returns the words to give again, but for those that make it write something else."""
    words: list[str] = list(args.words)
    for flag in ("--dry-run", "--tmuxp"):
        if flag in words:
            at = words.index(flag)
            del words[at : at + 1 + (flag == "--tmuxp")]
    return [word for word in words if not word.startswith("--tmuxp=")]


def _folder_name(name: str) -> str:
    from clipper.run_folder import folder_name

    return folder_name(name)


def _study(args: argparse.Namespace) -> Study:
    """Returns the study that the file or the flags describe; flags go before the file's values."""
    from clipper.experiments.runs import read_seeds
    from clipper.experiments.study import Study, read_grid, read_study

    grid: dict[str, Any] = dict(read_grid(args.grid))
    shared = given_settings(args)
    if args.algo != "ppo":
        shared["algo"] = args.algo
    for key in ("preset", "env_kwargs", "max_episode_steps"):
        if getattr(args, key) is not None:
            shared[key] = getattr(args, key)
    envs = grid.pop("env", None)
    if args.study and args.study.endswith(".toml"):
        study = read_study(args.study)
        if envs is not None:
            raise UsageError(
                f"environments must be named once, but {args.study} and --grid env=... both do."
            )
        twice = [key for key in grid if key in study.grid]
        if twice:
            raise UsageError(
                f"{twice[0]} must be in one grid, but is in --grid and in that of {args.study}."
            )
        study = dataclasses.replace(
            study, shared={**study.shared, **shared}, grid={**study.grid, **grid}
        )
    else:
        if (args.study is None) == (envs is None):
            raise UsageError(
                "a sweep needs a file, an environment or --grid env=A,B, but has "
                f"{'none of them' if envs is None else 'two of them'}.",
                hint="write for example: clipper sweep CartPole-v1 --grid gamma=0.98,0.99 --seeds 0-4",
            )
        envs = [args.study] if envs is None else envs
        study = Study(
            name=Path(envs[0]).name if len(envs) == 1 else "sweep",
            envs=envs,
            seeds=[0],
            shared=shared,
            grid=grid,
        )
    changes: dict[str, Any] = {}
    if args.seeds is not None:
        changes["seeds"] = read_seeds(args.seeds)
    if args.evaluate is not None:
        changes["evaluate"] = read_value("evaluate", int, args.evaluate)
    for key in ("name", "device", "vectorization"):
        if getattr(args, key) is not None:
            changes[key] = getattr(args, key)
    return dataclasses.replace(study, **changes)


def _dry_run(specs: Sequence[RunSpec], folder: Path, num_jobs: int) -> int:
    from clipper.experiments.display import duration, seconds_left
    from clipper.experiments.estimate import plan_sweep

    runs, speeds = plan_sweep(specs, folder)
    width = max(len(run.spec.setting) for run in runs)
    env_width = max(len(run.spec.env) for run in runs)
    for run in runs:
        spec = run.spec
        print(
            f"{spec.setting:<{width}}  {spec.env:<{env_width}}  seed {spec.seed:<4} "
            f"{run.total_timesteps:>12,} steps  {_standing(run)}".rstrip()
        )
    left = sum(run.status != "finished" for run in runs)
    say(f"{len(runs)} runs, {left} to go, into {folder}")
    say(
        f"about {duration(seconds_left(runs, num_jobs, speeds))} with {num_jobs} at a time, "
        "by a second of training each"
    )
    return 0


def _standing(run: RunState) -> str:
    if run.status == "finished":
        return "finished"
    return f"at step {run.step:,}" if run.step else ""


def _summarise(outcome: SweepOutcome, again: str) -> None:
    """Prints how the sweep ended and the commands to go on."""
    from clipper.experiments.display import duration

    rows, runs = outcome.rows, outcome.runs
    new = sum(run.row is not None and not run.is_old for run in runs)
    print(
        f"{len(rows)} of {len(runs)} runs have finished, {new} of them now "
        f"(in {duration(outcome.wall_seconds)}): {outcome.folder / 'results.csv'}"
    )
    for run in outcome.failed:
        print(f"failed: {run.spec}: {run.message}")
        print(f"  {outcome.folder / 'logs' / f'{run.spec.folder}.log'}")
    print("next:")
    if len(rows) < len(runs):
        print(f"  {again}")
    if rows:
        folder = shlex.quote(str(outcome.folder))
        print(f"  clipper compare {folder}")
        print(f"  clipper report {folder}")
