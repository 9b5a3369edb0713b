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

  table1    eleven objectives on MuJoCo tasks: the mean normalised score of each

The same command goes on where it was stopped. docs/tutorials/reproduce-the-paper.md explains the
protocol and what is done otherwise than in the paper. MuJoCo: pip install "clipper-rl[mujoco]"."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("study", choices=("table1",), help="what is reproduced")
    parser.add_argument(
        "--scale",
        choices=("smoke", "small", "full"),
        default="small",
        help="smoke: 2 tasks, 1 seed, 4,096 steps; small: 3 tasks, 3 seeds, 1 M steps; full: the "
        "paper's 7 tasks (small)",
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
    from clipper.experiments.paper import SCALES, table1_runs
    from clipper.experiments.sweep import read_jobs

    num_jobs = read_jobs(args.jobs)
    scale = SCALES[args.scale]
    folder = Path(args.out) if args.out else Path("reproduce") / f"{args.study}-{args.scale}"
    specs = table1_runs(scale.tasks, scale.num_seeds, scale.total_timesteps, has_raw=args.with_raw)
    if args.verify is not None:
        return _verify(args, specs, folder, num_jobs)
    if args.verify_seed is not None:
        raise UsageError("--verify-seed must come with --verify, but comes alone.")
    scores = _random_scores(scale.tasks, folder)
    outcome = _run(args, specs, folder, num_jobs)
    _show_table1(outcome, scores, scale.num_seeds)
    print("next:")
    again = shlex.join(["clipper", "reproduce", *args.words])
    print(f"  {again}" if len(outcome.rows) < len(specs) else f"  {again} --verify 3")
    return outcome.exit_code


def _random_scores(tasks: Sequence[str], folder: Path) -> dict[str, float]:
    from clipper.experiments.random_policy import EPISODES, random_scores

    found = random_scores(
        tasks, folder, lambda env: say(f"measuring the random policy: {env}, {EPISODES} episodes")
    )
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


def _show_table1(outcome: SweepOutcome, scores: dict[str, float], num_seeds: int) -> None:
    """Prints the table and writes its files, as far as runs have finished."""
    from clipper.checkpoint import write_atomically
    from clipper.errors import ConfigError
    from clipper.experiments.collect import collect
    from clipper.experiments.deviations import TABLE1_DEVIATIONS
    from clipper.experiments.report import write_report
    from clipper.experiments.table1 import draw_table1, table1_csv, table1_of, table1_text
    from clipper.plotting import save_figure

    if not outcome.rows:
        return
    folder, keys = outcome.folder, {run.spec.key for run in outcome.runs}
    collection = collect([folder]).where(lambda row: row.key in keys)
    try:
        table = table1_of(collection, scores)
    except ConfigError:
        if len(outcome.rows) == len(outcome.runs):
            raise
        say("no table yet: not every setting has a run on the same task")
        return
    write_atomically(folder / "table.csv", table1_csv(table).encode())
    save_figure(draw_table1(table), folder / "table1.png")
    write_report(table.comparison, folder / "report", "Table 1 of the PPO paper")
    text = table1_text(table, num_seeds)
    print(f"\n{text}\n")
    if table.rank_correlation == table.rank_correlation:
        print(f"rank correlation with the printed scores (Spearman): {table.rank_correlation:.2f}")
    for note in table.notes:
        say(f"note: {note}")
    print("\nnot as in the paper:")
    for line in TABLE1_DEVIATIONS:
        print(textwrap.fill(line, 100, initial_indent="  - ", subsequent_indent="    "))
    print()
    for name in ("table.csv", "table1.png", "report/report.html"):
        print(folder / name)


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
    if any(verdict.is_broken for verdict in verdicts):
        return InvariantBreach.exit_code
    return outcome.exit_code
