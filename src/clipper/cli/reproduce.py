"""`clipper reproduce`: a table of the PPO paper in, the same made of runs of ours beside it out."""

from __future__ import annotations

import argparse
import random
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipper.cli.arguments import UsageError, positive_int, say, seed

if TYPE_CHECKING:
    from clipper.experiments.runs import RunSpec
    from clipper.experiments.states import SweepOutcome

HELP = """Runs a study of the PPO paper (arXiv 1707.06347) and shows the result beside the printed one.

  table1    eleven objectives of PPO on MuJoCo tasks: the mean normalised score of each
  figure3   PPO and five relatives on the same tasks: learning curves and final scores
  table2    A2C, ACER and PPO on Atari games: which of them wins which

The same command goes on where it was stopped. docs/tutorials/reproduce-the-paper.md explains the
protocol and what is done otherwise than in the paper. MuJoCo: pip install "clipper-rl[mujoco]"; Atari:
pip install "clipper-rl[atari]"."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("study", choices=("table1", "figure3", "table2"), help="what is reproduced")
    parser.add_argument(
        "--scale",
        choices=("smoke", "small", "full"),
        default="small",
        help="smoke: 1 task, 1 seed, 4,096 steps; small: 3 tasks, 3 seeds, 1 M steps; full: the "
        "paper's 7 tasks (small). table2: Breakout for 4,096 steps; Pong and Breakout, 1 seed, 1 M "
        "steps; all 49 games, 3 seeds, 10 M steps",
    )
    parser.add_argument(
        "--games", metavar="A,B,...", help="table2: games, as the paper's Table 6 calls them"
    )
    parser.add_argument(
        "--steps", type=positive_int, metavar="N", help="table2: steps of each run (the scale's)"
    )
    parser.add_argument(
        "--num-seeds", type=positive_int, metavar="N", help="table2: seeds of each (the scale's)"
    )
    parser.add_argument(
        "--jobs", default="auto", metavar="N|auto", help="runs at a time (auto: one per core)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the study (reproduce/STUDY-SCALE)")
    parser.add_argument(
        "--with-raw",
        action="store_true",
        help="table1: one row more, clip 0.2 without normalised observations and rewards",
    )
    parser.add_argument(
        "--verify",
        type=positive_int,
        metavar="N",
        help="train N finished runs of DIR again and compare their parameters bit for bit",
    )
    parser.add_argument(
        "--verify-seed",
        type=seed,
        metavar="S",
        help="seed of the choice of those runs, from 0 (another one each time; it is printed)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only failures")


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, shows the result and returns the exit code."""
    from clipper.experiments.sweep import read_jobs

    if args.with_raw and args.study != "table1":
        raise UsageError(f"--with-raw must come with table1, but comes with {args.study}.")
    for name in ("games", "steps", "num_seeds"):
        if getattr(args, name) is not None and args.study != "table2":
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} must come with table2, but comes with {args.study}.")
    num_jobs = read_jobs(args.jobs)
    folder = Path(args.out) if args.out else Path("reproduce") / f"{args.study}-{args.scale}"
    specs, num_seeds = _runs(args)
    if args.verify is not None:
        return _verify(args, specs, folder, num_jobs)
    if args.verify_seed is not None:
        raise UsageError("--verify-seed must come with --verify, but comes alone.")
    tasks = list(dict.fromkeys(spec.env for spec in specs))
    scores = _random_scores(tasks, folder) if args.study == "table1" else {}
    outcome = _run(args, specs, folder, num_jobs)
    if outcome.rows:
        _show(args.study, outcome, scores, num_seeds)
    print("next:")
    again = shlex.join(["clipper", "reproduce", *args.words])
    print(f"  {again}" if len(outcome.rows) < len(specs) else f"  {again} --verify 3")
    return outcome.exit_code


def _runs(args: argparse.Namespace) -> tuple[list[RunSpec], int]:
    """Returns the runs of the study that is asked for, and the seeds of each setting on each task."""
    from clipper.experiments.paper import (
        ATARI_SCALES,
        SCALES,
        atari_games,
        figure3_runs,
        table1_runs,
        table2_runs,
    )

    if args.study == "table2":
        atari = ATARI_SCALES[args.scale]
        games = atari.games or atari_games()
        if args.games is not None:
            games = [game.strip() for game in args.games.split(",")]
        num_seeds = args.num_seeds or atari.num_seeds
        return table2_runs(games, num_seeds, args.steps or atari.total_timesteps), num_seeds
    scale = SCALES[args.scale]
    size = (scale.tasks, scale.num_seeds, scale.total_timesteps)
    if args.study == "table1":
        return table1_runs(*size, has_raw=args.with_raw), scale.num_seeds
    return figure3_runs(*size), scale.num_seeds


def _random_scores(tasks: Sequence[str], folder: Path) -> dict[str, float]:
    from clipper.experiments.random_policy import random_scores

    found = random_scores(tasks, folder, say)
    return {env: score.mean for env, score in found.items()}


def _run(
    args: argparse.Namespace, specs: Sequence[RunSpec], folder: Path, num_jobs: int
) -> SweepOutcome:
    """Trains what is missing and returns how that ended, after saying it."""
    from clipper.experiments.display import SweepDisplay, duration
    from clipper.experiments.libraries import keep_libraries
    from clipper.experiments.sweep import run_sweep

    with SweepDisplay(num_jobs, is_quiet=args.quiet) as display:
        outcome = run_sweep(specs, folder, jobs=num_jobs, observer=display)
    keep_libraries(specs, folder)
    new = sum(run.row is not None and not run.is_old for run in outcome.runs)
    print(
        f"{len(outcome.rows)} of {len(specs)} runs have finished, {new} of them now "
        f"(in {duration(outcome.wall_seconds)}): {folder / 'results.csv'}"
    )
    for failed in outcome.failed:
        print(f"failed: {failed.spec}: {failed.message}")
        print(f"  {folder / 'logs' / f'{failed.spec.folder}.log'}")
    return outcome


def _show(study: str, outcome: SweepOutcome, scores: dict[str, float], num_seeds: int) -> None:
    """Prints the result and writes its files, as far as runs have finished."""
    from clipper.errors import ConfigError
    from clipper.experiments.collection import collect
    from clipper.experiments.figure3 import reproduce_figure3
    from clipper.experiments.reproduction import NOT_AS_PRINTED, write_reproduction
    from clipper.experiments.table1 import reproduce_table1
    from clipper.experiments.table2 import reproduce_table2

    keys = {run.spec.key for run in outcome.runs}
    collection = collect([outcome.folder]).where(lambda row: row.key in keys)
    try:
        if study == "table1":
            found = reproduce_table1(collection, scores, num_seeds)
        elif study == "table2":
            found = reproduce_table2(collection, num_seeds)
        else:
            found = reproduce_figure3(collection, num_seeds)
    except ConfigError:
        if len(outcome.rows) == len(outcome.runs):
            raise
        say("no table yet: not every setting has a run on the same task")
        return
    files = write_reproduction(found, outcome.folder)
    print(f"\n{found.table}\n")
    for line in found.lines:
        print(line)
    for note in found.notes:
        say(f"note: {note}")
    print(f"\n{NOT_AS_PRINTED.lower()}:")
    for remark in found.remarks:
        print(textwrap.fill(remark, 100, initial_indent="  - ", subsequent_indent="    "))
    print()
    for file in files:
        print(file)


def _verify(args: argparse.Namespace, specs: Sequence[RunSpec], folder: Path, num_jobs: int) -> int:
    """Trains some finished runs again, prints what came out and returns the exit code."""
    from clipper.errors import InvariantBreach
    from clipper.experiments.display import SweepDisplay
    from clipper.experiments.verify import choose_rows, run_again

    of_choice = (
        random.SystemRandom().randrange(10**6) if args.verify_seed is None else args.verify_seed
    )
    chosen = choose_rows(specs, folder, args.verify, of_choice)
    print(f"chosen with --verify-seed {of_choice} among the finished runs of {folder}:")
    for spec, _ in chosen:
        print(f"  {spec}")
    with SweepDisplay(num_jobs, is_quiet=args.quiet) as display:
        outcome, verdicts = run_again(chosen, folder, jobs=num_jobs, observer=display)
    for failed in outcome.failed:
        print(f"failed: {failed.spec}: {failed.message}")
    for verdict in verdicts:
        row, again = verdict.row, verdict.again
        word = "same" if verdict.is_same else "DIFFERS" if verdict.is_broken else "differs"
        print(
            f"{word}: {row.setting} · {row.env} · seed {row.seed}: parameters "
            f"{row.parameters_sha256[:12]} then, {again.parameters_sha256[:12]} now; score "
            f"{row.score:.6g} then, {again.score:.6g} now"
        )
        for difference in verdict.differences:
            print(f"  {difference}: bits may differ")
        if row.commit != again.commit:
            print(
                f"  commit {row.commit[:10] or 'unknown'} then, {again.commit[:10] or 'unknown'} now"
            )
    same = sum(verdict.is_same for verdict in verdicts)
    print(f"{same} of {len(chosen)} have the same parameters, bit for bit")
    if any(verdict.is_broken for verdict in verdicts):
        return InvariantBreach.exit_code
    return outcome.exit_code
