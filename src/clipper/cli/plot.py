"""`clipper plot`: run folders in, a picture of their learning curves out."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Draws learning curves; runs of one name are one line with a band over their seeds.

A folder of runs stands for all runs in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of runs")
    parser.add_argument("--out", required=True, metavar="FILE", help="x.png, x.svg or x.pdf")
    parser.add_argument(
        "--x",
        choices=("steps", "wall"),
        default="steps",
        help="transitions or training time (steps)",
    )
    parser.add_argument("--title", metavar="TEXT", help="title of the picture")


def run(args: argparse.Namespace) -> int:
    """Plots and returns the exit code."""
    from clipper.curves import find_runs
    from clipper.plotting import plot_runs

    runs = list(dict.fromkeys(run for path in args.runs for run in find_runs(Path(path))))
    plot_runs(runs, Path(args.out), x=args.x, title=args.title)
    print(f"{args.out}: {len(runs)} run{'s' * (len(runs) != 1)}")
    return 0
