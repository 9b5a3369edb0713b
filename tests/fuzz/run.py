"""Fuzzes the readers of files with atheris, which looks for input that takes new ways through the code.

    python tests/fuzz/run.py agent --seconds 300

ends with exit code 0 if nothing was found; the input that was is left in the working directory, and
`python tests/fuzz/run.py agent --input FILE` shows it again. Where atheris has no wheel it is skipped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


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
        with atheris.instrument_imports(include=["clipper"]):
            from fuzz.readers import TARGETS, Place, quiet, seeds
    else:
        from fuzz.readers import TARGETS, Place, quiet, seeds
    quiet()
    with Place() as place, tempfile.TemporaryDirectory() as corpus:
        target = TARGETS[args.target]
        if args.input is not None:
            print("taken" if target(place, args.input.read_bytes()) else "refused")
            return 0
        for number, seed in enumerate(seeds(place)[args.target]):
            assert target(place, seed), "an honest file must be taken"
            (Path(corpus) / f"seed-{number}").write_bytes(seed)

        def one(data: bytes) -> None:
            target(place, data)

        options = [
            f"-max_total_time={args.seconds}",
            "-max_len=16384",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-artifact_prefix=fuzz-{args.target}-",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], one)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
