"""The command line from tests: words in, exit code and what was said out; and tiny settings."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("clipper")
# two iterations of 64 steps each, and an evaluation after either
TINY = [
    "--num-envs=2",
    "--num-steps=32",
    "--minibatch-size=64",
    "--num-epochs=1",
    "--total-timesteps=128",
    "--eval-every=64",
    "--eval-episodes=1",
    "--hidden-sizes=8",
]


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


Clip = Callable[..., Said]


def run_apart(*words: str | Path, cwd: Path) -> Said:
    """Runs the installed command in a process of its own."""
    env = {**os.environ, "COLUMNS": "100"}
    command = [SCRIPT, *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, timeout=120)
    return Said(done.returncode, done.stdout, done.stderr)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file by the name of the column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_refused(said: Said, code: int, *parts: str) -> None:
    """One error of ours on stderr, nothing on stdout, no traceback, and these parts in it."""
    assert said.code == code, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert [line.startswith("error: ") for line in said.err.splitlines()].count(True) == 1
    missing = [part for part in parts if part not in said.err]
    assert missing == [], said.err


def left_in(folder: Path) -> list[str]:
    """Returns every file and folder below a folder, but what Python caches."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(path for path in found if "__pycache__" not in path)
