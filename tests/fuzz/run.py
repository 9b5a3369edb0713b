"""Fuzzes the readers of files with atheris, which looks for input that takes new ways through the code.

    python tests/fuzz/run.py agent --seconds 300

ends with exit code 0 if nothing was found; the input that was is left in the working directory, and
`python tests/fuzz/run.py agent --input FILE` shows it again. Where atheris has no wheel it is skipped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

HERE = Path(__file__).parent
# where the ways through the code are counted
READERS = (
    "agent_file", "agent_meta", "checkpoint", "checkpoint_check", "config", "curves", "fault_file",
    "files", "loading", "metrics", "run_folder", "run_keeper", "settings", "space_json",
    "tensor_files", "training",
)  # fmt: skip


def main() -> int:
    """Fuzzes one target; returns the exit code where libFuzzer does not end the process itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=("agent", "checkpoint", "config", "metrics", "fault"))
    parser.add_argument("--seconds", type=int, default=300, help="how long (300)")
    parser.add_argument("--input", type=Path, help="play one input alone")
    args = parser.parse_args()
    sys.path[:0] = [str(HERE.parent)]
    if args.input is None:
        try:
            import atheris
        except ImportError:
            print(
                f"skipped: {args.target} is not fuzzed, for atheris is not installed. It has wheels for "
                "Linux on x86-64 alone: pip install atheris",
                file=sys.stderr,
            )
            return 0
    readers = importlib.import_module("fuzz.readers")
    if args.input is None:
        for name in READERS:
            _instrument(importlib.import_module(f"clipper.{name}"), atheris.instrument_func)
    readers.quiet()
    os.fsync = lambda descriptor: None  # what is written here need not outlast a power cut
    target = readers.TARGETS[args.target]
    with tempfile.TemporaryDirectory() as corpus:
        if args.input is None:
            options = [
                f"-max_total_time={args.seconds}",
                "-max_len=16384",
                "-timeout=20",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                f"-artifact_prefix=fuzz-{args.target}-",
            ]
            # before anything of ours runs: what ran before is not counted as covered
            atheris.Setup([sys.argv[0], *options, corpus], lambda data: target(place, data))
        with readers.Place() as place:
            if args.input is not None:
                print("taken" if target(place, args.input.read_bytes()) else "refused")
                return 0
            for number, seed in enumerate(readers.seeds(place)[args.target]):
                assert target(place, seed), "an honest file must be taken"
                (Path(corpus) / f"seed-{number}").write_bytes(seed)
            atheris.Fuzz()
    return 0


def _instrument(module: ModuleType, instrument: Callable[[Any], Any]) -> None:
    """Has the ways through a module's functions and methods counted.

    By hand: atheris's hook into imports does not reach the modules of an editable install.
    """
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            instrument(value)
        elif isinstance(value, type):
            for inner in vars(value).values():
                function = getattr(inner, "__func__", None) or getattr(inner, "fget", None) or inner
                # what a dataclass writes itself has no file
                if (
                    isinstance(function, FunctionType)
                    and Path(function.__code__.co_filename).is_file()
                ):
                    instrument(function)


if __name__ == "__main__":
    sys.exit(main())
