"""`results.json`: every row's measurements by library, with what machine, versions and commit."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from works import Row

RESULTS = Path(__file__).resolve().parent / "results.json"
Results = dict[str, dict[str, dict[str, Any]]]


def entry(row: Row, taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what is kept of the measurements of a row by one library."""
    last = taken[-1]
    kept = {
        "values": [found["value"] for found in taken],
        "unit": row.unit,
        "memory_mb": statistics.median(found["memory_mb"] for found in taken),
        "void": any(found["void"] for found in taken),
        "versions": last["versions"],
    }
    for name in ("steps", "updates", "parameters", "engine"):
        if name in last:
            kept[name] = last[name]
    if "with_first_iteration" in last:
        kept["with_first_iteration"] = [found["with_first_iteration"] for found in taken]
    return kept


def read() -> Results:
    """Returns all that was measured, by row and library."""
    if not RESULTS.exists():
        return {}
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])


def update(found: Results, command: str, run: str) -> None:
    """Replaces the measurements of some rows and libraries, but for void ones.

    Args:
        found: By row and library.
        command: What repeats them.
        run: When the run began: figures of one run may be compared.
    """
    rows = read()
    about = {
        "machine": machine(),
        "commit": commit(),
        "date": date(),
        "run": run,
        "command": command,
    }
    for name, by_library in found.items():
        for library, measured in by_library.items():
            if not measured["void"]:
                rows.setdefault(name, {})[library] = {**measured, **about}
    if rows:
        text = json.dumps({"rows": rows}, indent=1, sort_keys=True)
        RESULTS.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Returns what the processor calls itself, its cores and the system."""
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()}


def cpu_name() -> str:
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Returns the commit that is checked out, with a + if files differ from it."""

    def git(*words: str) -> str:
        directory = RESULTS.parent
        done = subprocess.run(["git", "-C", directory, *words], capture_output=True, text=True)
        return done.stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + (
        "+" if git("status", "--porcelain", "-uno") else ""
    )


def date() -> str:
    """Returns the time of now, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
