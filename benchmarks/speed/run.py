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
import time
from pathlib import Path
from typing import Any

import pages
import report
import store
from works import LEAST_SCALING, LEAST_SHARE, LEAST_SHARE_OF_PROCESS, ROWS, STEPS, TWO_CORES

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE.parents[1] / ".venv-bench" / "bin" / "python"
RUNNERS = {
    "alone": "runner_alone.py",
    "clipper": "runner_clipper.py",
    "sb3": "runner_sb3.py",
    "sbx": "runner_sb3.py",
    "tianshou": "runner_tianshou.py",
    "rejax": "runner_rejax.py",
    "loops": "runner_alone.py",
    "workers": "runner_clipper.py",
}
OWN = ("alone", "loops", "clipper", "workers")
MINUTES = 15
# a void measurement of the record is taken again
TRIES = 3


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
    parser.add_argument(
        "--readme", action="store_true", help="write it into the READMEs and draw the chart"
    )
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    strangers = set(filter(None, args.only.split(","))) - RUNNERS.keys()
    if strangers:
        parser.error(f"there is no library {min(strangers)!r}; there are {', '.join(RUNNERS)}")
    if args.table or args.readme:
        results = store.read()
        print(report.markdown(results) if results else "nothing was measured yet")
        if args.readme and results:
            pages.write(results)
        return 0
    run = store.date()
    found: dict[str, Any] = {}
    try:
        for name in args.rows or ROWS:
            found[name] = measure_row(name, args)
            if is_for_the_record(args):
                store.update({name: found[name]}, command_of(name, args), run)
    except KeyboardInterrupt:
        print("stopped; rows that were finished are kept", file=sys.stderr)
        return 130
    if not is_for_the_record(args):
        print("not kept: the record is of other steps or another engine", file=sys.stderr)
    elif any(entry["void"] for by_library in found.values() for entry in by_library.values()):
        print("void figures are not kept", file=sys.stderr)
    if any(found.values()):
        print(report.markdown(found))
    return 0


def is_for_the_record(args: argparse.Namespace) -> bool:
    """Returns whether figures with these arguments are kept."""
    return bool(args.steps == STEPS and args.engine == "auto")


def command_of(name: str, args: argparse.Namespace) -> str:
    """Returns the command that repeats a row."""
    only = f" --only {args.only}" if args.only else ""
    return f"python benchmarks/speed/run.py {name}{only} --repeat {args.repeat}"


def measure_row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of a row by library, taken in turns."""
    row = ROWS[name]
    wanted = [library for library in args.only.split(",") if library] or row.libraries
    libraries = [library for library in row.libraries if library in wanted]
    cores = allowed_cores()
    if len(cores) < 2 and not set(libraries).isdisjoint(TWO_CORES):
        print(f"{name} needs two cores and is left out", file=sys.stderr)
        return {}
    if not libraries:
        print(f"{name} is of {', '.join(row.libraries)} alone", file=sys.stderr)
    taken: dict[str, list[dict[str, Any]]] = {library: [] for library in libraries}
    for repetition in range(args.repeat):
        for library in libraries:
            for _ in range(TRIES if is_for_the_record(args) else 1):
                found = measure(name, library, args, cores)
                why = why_void(row.kind, library, found)
                print(
                    f"{name} {library} {repetition + 1}/{args.repeat}: "
                    f"{found['value']:,.6g} {'times' if library == 'loops' else row.unit}"
                    f"{f'  void: {why}' if why else ''}",
                    file=sys.stderr,
                    flush=True,
                )
                if not why:
                    break
            taken[library].append({**found, "void": bool(why)})
    check_equal(name, taken)
    if any(found["void"] for found in taken.get("loops", ())):
        for found in (found for all_found in taken.values() for found in all_found):
            found["void"] = True
    return {library: store.entry(row, all_found) for library, all_found in taken.items()}


def why_void(kind: str, library: str, found: dict[str, Any]) -> str:
    """Returns why a figure says nothing, or an empty text."""
    least = LEAST_SHARE_OF_PROCESS if kind == "start" else LEAST_SHARE
    if library == "loops" and found["value"] < LEAST_SCALING:
        return "two independent loops do not scale, so two cores cannot be judged"
    if library not in TWO_CORES and found["core_share"] < least:
        return f"others had {1 - found['core_share']:.0%} of the core"
    if not found["is_pinned"]:
        return "somebody moved the process to other cores"
    return ""


def measure(name: str, library: str, args: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """Returns what one runner found in a process of its own."""
    steps = min(args.steps, ROWS[name].most_steps)
    job: dict[str, Any] = {"row": name, "library": library, "steps": steps}
    if library in ("clipper", "workers"):
        job["options"] = {**ROWS[name].options, "engine": args.engine}
    if library == "workers":
        job["options"]["workers"] = 1
    used = set(cores[-2:] if library in TWO_CORES else cores[-1:])
    if library not in TWO_CORES and args.core is not None:
        used = {args.core}
    python = sys.executable if library in OWN else str(PEERS_PYTHON)
    words = [python, str(HERE / RUNNERS[library]), json.dumps({**job, "spawned": time.time()})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60 * MINUTES,
            preexec_fn=lambda: pin(used),
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{name} {library} took more than {MINUTES} minutes") from None
    except FileNotFoundError:
        raise SystemExit(f"{python} is not there: `make .venv-bench/.ready` makes it") from None
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    found["is_pinned"] = set(found.get("cores", ())) == used
    return found


def allowed_cores() -> list[int]:
    """Returns the cores this process may use; on systems without affinity none are named."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


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
