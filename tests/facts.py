"""Numbers that tests have measured, kept for `docs/RELIABILITY.md`.

They are written where CLIPPER_FACTS says, and nowhere without it. `make reliability` runs the tests
so and renders the page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "CLIPPER_FACTS"


def note(name: str, **numbers: float) -> None:
    """Keeps a record of numbers under a name; a test that is repeated keeps one each time."""
    _write("fact", name, numbers)


def note_outcome(test: str, outcome: str) -> None:
    """Keeps how a test ended: `passed`, `failed` or `skipped`."""
    _write("outcome", test, {"ended": outcome})


def _write(kind: str, name: str, data: dict[str, Any]) -> None:
    place = os.environ.get(VARIABLE)
    if not place:
        return
    # a file of each process: tests run in several
    file = Path(place) / f"{os.getpid()}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"kind": kind, "name": name, **data}) + "\n")


def _records(place: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(place.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def read(place: Path) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Returns what was kept: the facts by name, and how often each test passed, failed, was skipped.

    Of the records of one name numbers are added up, but of those called `most_...` the largest is
    taken; `records` says how many there were.
    """
    facts: dict[str, dict[str, float]] = {}
    outcomes: dict[str, dict[str, int]] = {}
    for record in _records(place):
        kind, name = record.pop("kind"), record.pop("name")
        if kind == "outcome":
            counts = outcomes.setdefault(name, {"passed": 0, "failed": 0, "skipped": 0})
            counts[record["ended"]] += 1
            continue
        known = facts.setdefault(name, {"records": 0})
        known["records"] += 1
        for key, value in record.items():
            is_most = key.startswith("most_")
            before = known.get(key, value if is_most else 0)
            known[key] = max(before, value) if is_most else before + value
    return facts, outcomes
