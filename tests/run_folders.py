"""Two run folders in, the names of all that they differ in but for times out."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipper.checkpoint import Arrays, read_checkpoint, read_tensors


def rows_without_times(file: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file of a run, without what a clock has measured."""
    with open(file, newline="", encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    return [
        {k: v for k, v in row.items() if not k.startswith("time/") and k != "wall_seconds"}
        for row in found
    ]


def content(run: Path) -> dict[str, Any]:
    """Returns by name all that a run has left but for times: arrays, counters, rows."""
    checkpoint, problems = read_checkpoint(run / "checkpoints")
    assert problems == []
    counters = dict(checkpoint.state["training"])
    counters.pop("wall_seconds")
    found: dict[str, Any] = {
        **_named("checkpoint", checkpoint.agent),
        **_named("checkpoint", checkpoint.training),
        **{f"counters {name}": value for name, value in counters.items()},
        "rows counted": checkpoint.state["rows"],
    }
    for file in ("agent.safetensors", "best.safetensors"):
        found[f"{file} is there"] = (run / file).exists()
        if (run / file).exists():
            arrays, meta = read_tensors(run / file)
            found |= _named(file, arrays)
            found[f"{file} step"] = meta["step"]
            found[f"{file} exact"] = meta["exact"]
    for file in ("metrics.csv", "episodes.csv"):
        found[file] = rows_without_times(run / file)
    return found


def _named(prefix: str, arrays: Arrays) -> Mapping[str, Any]:
    """Returns arrays as what is the same only where every bit is."""
    return {
        f"{prefix} {name}": (str(a.dtype), a.shape, np.ascontiguousarray(a).tobytes())
        for name, a in arrays.items()
    }


def differences(found: Path, expected: Path) -> list[str]:
    """Returns the names of all that two runs differ in; none if they are one run to the bit."""
    ours, theirs = content(found), content(expected)
    names = dict.fromkeys([*ours, *theirs])
    return [name for name in names if ours.get(name, "none") != theirs.get(name, "none")]
