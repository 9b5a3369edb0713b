"""Measurements in, tables out: medians, spreads, ratios to the environments alone and to the peers."""

from __future__ import annotations

import statistics
from typing import Any

from store import Results
from works import ROWS, Row

NOT_PEERS = ("alone", "clipper")
NAMES = {"alone": "env alone", "clipper": "Clipper", "sb3": "SB3", "sbx": "sbx"}


def median(measured: dict[str, Any] | None) -> float | None:
    """Returns the median of a library's measurements, or None if there are none."""
    return None if measured is None else statistics.median(measured["values"])


def figure(value: float) -> str:
    """Returns a number to three digits."""
    if value >= 100:
        digits = len(str(int(value)))
        return f"{round(value, 3 - digits):,.0f}"
    return f"{value:.3g}"


def cell(measured: dict[str, Any] | None) -> str:
    """Returns median and range of a library's measurements."""
    if measured is None:
        return ""
    values = measured["values"]
    text = figure(statistics.median(values))
    if len(values) > 1:
        text += f" ({figure(min(values))} to {figure(max(values))})"
    return text + (" void" if measured["void"] else "")


def ratios(
    row: Row, by_library: dict[str, dict[str, Any]]
) -> dict[str, tuple[float, float | None]]:
    """Returns what the goals of a row are about: Clipper's figure, and the bound."""
    mine, alone = median(by_library.get("clipper")), median(by_library.get("alone"))
    peers = {name: median(of) for name, of in by_library.items() if name not in NOT_PEERS}
    found: dict[str, tuple[float, float | None]] = {}
    if mine is None:
        return found
    if alone is not None:
        found["of env alone"] = (mine / alone, row.goals.alone)
    if peers:
        found["x best peer"] = (mine / max(p for p in peers.values() if p), row.goals.peers)
    if peers.get("sbx"):
        found["x sbx"] = (mine / (peers["sbx"] or 1), row.goals.sbx)
    return found


def markdown(results: Results) -> str:
    """Returns the results as a Markdown table, a line a row."""
    libraries = [name for name in NAMES if any(name in by for by in results.values())]
    lines = [
        "| work | " + " | ".join(NAMES[name] for name in libraries) + " | ratios (goal) |",
        "|---" * (len(libraries) + 2) + "|",
    ]
    for name, row in ROWS.items():
        if name not in results:
            continue
        by_library = results[name]
        cells = [cell(by_library.get(library)) for library in libraries]
        parts = [
            f"{value:.2f} {what}" + ("" if bound is None else f" (>= {bound})")
            for what, (value, bound) in ratios(row, by_library).items()
        ]
        lines.append(f"| {row.title}, {row.unit} | {' | '.join(cells)} | {'; '.join(parts)} |")
    return "\n".join(lines)
