"""`clipper compare`: runs, sweeps and result files in, what can be said of their settings out."""

from __future__ import annotations

import argparse

from clipper.cli.arguments import add_comparison_arguments, say

HELP = """Compares settings over seeds and tasks: aggregates with intervals, differences, verdicts.

Each argument is a sweep's folder, a results.csv, a run folder or a folder of runs; settings of one
name in two of them are told apart. The first setting is the baseline."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="sweep folder, results.csv, run folder, or runs"
    )
    add_comparison_arguments(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="write page, pictures and CSV files there, as `clipper report`"
    )


def run(args: argparse.Namespace) -> int:
    """Compares and returns the exit code."""
    from clipper.experiments.collection import collect
    from clipper.experiments.comparison import compare, read_ranges
    from clipper.experiments.tables import tables_of

    ranges = read_ranges(args.ranges) if args.ranges else None
    comparison = compare(
        collect(args.paths), metric=args.metric, baseline=args.baseline, ranges=ranges
    )
    print("\n\n".join(str(table) for table in tables_of(comparison)))
    for note in comparison.notes:
        say(f"note: {note}")
    if args.out:
        from clipper.experiments.report import write_report

        for path in write_report(comparison, args.out, " · ".join(args.paths)):
            print(path)
    return 0
