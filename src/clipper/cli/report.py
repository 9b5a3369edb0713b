"""`clipper report`: a folder of runs in; tables, pictures and one page that needs nothing else out."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipper.cli.arguments import add_comparison_arguments, say

HELP = """Reports a sweep: prints its tables and writes report.html, PNG and CSV files.

The page needs no other file and no network. An older report is replaced when the new one is
complete."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "folder", metavar="DIR", help="sweep folder, folder of runs, or a results.csv"
    )
    add_comparison_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of the report (DIR/report)")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (DIR's name)")


def run(args: argparse.Namespace) -> int:
    """Reports and returns the exit code."""
    from clipper.experiments.collection import collect
    from clipper.experiments.comparison import compare, read_ranges
    from clipper.experiments.report import write_report
    from clipper.experiments.tables import tables_of

    place = Path(args.folder)
    ranges = read_ranges(args.ranges) if args.ranges else None
    comparison = compare(
        collect([place]), metric=args.metric, baseline=args.baseline, ranges=ranges
    )
    folder = place if place.is_dir() else place.parent
    target = Path(args.out) if args.out else folder / "report"
    print("\n\n".join(str(table) for table in tables_of(comparison)))
    for note in comparison.notes:
        say(f"note: {note}")
    print()
    for path in write_report(comparison, target, args.title or folder.resolve().name):
        print(path)
    return 0
