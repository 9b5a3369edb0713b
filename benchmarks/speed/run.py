"""How much of an environment's own speed is left when an agent trains in it, and what peers leave.

    make bench                                                     # every row, three times
    python benchmarks/speed/run.py CartPole-v1 --only clipper      # one row, one library
    python benchmarks/speed/run.py --table                         # what was measured so far

The libraries of a row take turns, each measurement in a process of its own, pinned to one core (two
in the rows about two). A figure during which others had more than a twentieth of the core is void.
Full measurements replace their part of `results.json` and leave the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import report
import store
from works import ROWS, STEPS, Row

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE.parents[1] / ".venv-bench" / "bin" / "python"
RUNNERS = {
    "alone": "runner_alone.py",
    "clipper": "runner_clipper.py",
    "sb3": "runner_sb3.py",
    "sbx": "runner_sb3.py",
}
LEAST_SHARE = 0.95
MINUTES = 10


def main() -> int:
    """Measures what is asked for and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (all)")
    parser.add_argument("--only", default="", help="libraries, as clipper,sb3 (those of the row)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of a training ({STEPS})")
    parser.add_argument("--engine", default="auto", help="Clipper's: auto, native, reference")
    parser.add_argument("--core", type=int, help="the core to use (the last that is allowed)")
    parser.add_argument("--table", action="store_true", help="print what was measured so far")
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    strangers = set(filter(None, args.only.split(","))) - RUNNERS.keys()
    if strangers:
        parser.error(f"there is no library {min(strangers)!r}; there are {', '.join(RUNNERS)}")
    if args.table:
        print(report.markdown(store.read()))
        return 0
    is_whole = args.steps == STEPS and args.engine == "auto"
    found: dict[str, Any] = {}
    try:
        for name in args.rows or ROWS:
            found[name] = measure_row(name, args)
            if is_whole:
                store.update({name: found[name]}, command_of(name, args))
    except KeyboardInterrupt:
        print("stopped; rows that were finished are kept", file=sys.stderr)
        return 130
    if not is_whole:
        print("not kept: these are not the settings of the record", file=sys.stderr)
    print(report.markdown(found))
    return 0


def command_of(name: str, args: argparse.Namespace) -> str:
    """Returns the command that repeats a row."""
    only = f" --only {args.only}" if args.only else ""
    return f"python benchmarks/speed/run.py {name}{only} --repeat {args.repeat}"


def measure_row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of a row by library, taken in turns."""
    row = ROWS[name]
    wanted = [library for library in args.only.split(",") if library] or row.libraries
    libraries = [library for library in row.libraries if library in wanted]
    taken: dict[str, list[dict[str, Any]]] = {library: [] for library in libraries}
    for repetition in range(args.repeat):
        for library in libraries:
            found = measure(name, library, args)
            note = "" if found["core_share"] >= LEAST_SHARE * row.cores else "  void: "
            note += f"had {found['core_share']:.2f} of the core" if note else ""
            print(
                f"{name} {library} {repetition + 1}/{args.repeat}: "
                f"{found['value']:,.1f} {row.unit}{note}",
                file=sys.stderr,
                flush=True,
            )
            found["void"] = bool(note)
            taken[library].append(found)
    check_equal(name, taken)
    return {library: store.entry(row, all_found) for library, all_found in taken.items()}


def measure(name: str, library: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns what one runner found in a process of its own."""
    row = ROWS[name]
    job: dict[str, Any] = {"row": name, "library": library, "steps": args.steps}
    if library == "clipper":
        job["options"] = {"engine": args.engine, **row.options}
    words = [python_of(library), str(HERE / RUNNERS[library]), json.dumps(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    cores = cores_for(row, args.core)
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60 * MINUTES,
            preexec_fn=lambda: pin(cores),
        )
    except FileNotFoundError:
        raise SystemExit(f"{words[0]} is not there: `make bench` makes it") from None
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def python_of(library: str) -> str:
    """Returns the interpreter: this one for Clipper and the bare environments, the peers' own."""
    return sys.executable if library in ("alone", "clipper") else str(PEERS_PYTHON)


def cores_for(row: Row, core: int | None) -> set[int]:
    """Returns the cores of a measurement: the last that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    if row.cores == 1 and core is not None:
        return {core}
    return set(sorted(os.sched_getaffinity(0))[-row.cores :])


def pin(cores: set[int]) -> None:
    """Keeps this process on some cores, where the system can."""
    if cores:
        os.sched_setaffinity(0, cores)


def check_equal(name: str, taken: dict[str, list[dict[str, Any]]]) -> None:
    """Raises unless all libraries took as many steps and updates of as many parameters."""
    for what in ("steps", "updates", "parameters"):
        values = {
            library: all_found[0][what]
            for library, all_found in taken.items()
            if what in all_found[0]
        }
        if len(set(values.values())) > 1:
            raise SystemExit(f"{name}: {what} must be equal, but are {values}")


if __name__ == "__main__":
    sys.exit(main())
