"""Numbers that tests have measured, kept for `docs/reliability.md`.

A test notes them with the fixture `fact`; they are written where CLIPPER_FACTS says, a file for each,
and nowhere without it. `make reliability` runs the tests so and renders the page.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "CLIPPER_FACTS"


def note(name: str, **numbers: Any) -> None:
    """Keeps numbers under a name; those of the same name that were noted before are updated."""
    place = os.environ.get(VARIABLE)
    if not place:
        return
    file = Path(place) / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **numbers}, sort_keys=True) + "\n")


def read_all(place: Path) -> dict[str, dict[str, Any]]:
    """Returns what was noted, by name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(place.glob("*.json"))}
