"""Measurements in, tables out: medians, spreads, ratios to the environments alone and to the peers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from store import Results
from works import PEERS, ROWS, Row

NAMES = {
    "alone": "env alone",
    "clipper": "Clipper",
    "workers": "with a worker",
    "sb3": "SB3",
    "sbx": "sbx",
    "tianshou": "tianshou",
    "rejax": "rejax",
}
MEMORY_ROW = "CartPole-v1"
MOST_MEMORY_MB = 300
Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Check:
    """A number that a goal may be about.

    Attributes:
        value: What was found.
        text: The number in words.
        goal: The bound in words, or empty if there is none.
        is_met: True if it is, None without a goal.
    """

    value: float
    text: str
    goal: str = ""
    is_met: bool | None = None


def median(measured: dict[str, Any]) -> float:
    """Returns the median of a library's measurements."""
    return statistics.median(measured["values"])


def figure(value: float) -> str:
    """Returns a number to three digits."""
    if value >= 100:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.3g}"


def cell(measured: dict[str, Any] | None, *, is_wide: bool) -> str:
    """Returns the median of a library's measurements, and their range where there is room."""
    if measured is None:
        return ""
    values = measured["values"]
    text = figure(statistics.median(values))
    if is_wide and len(values) > 1:
        text += f" ({figure(min(values))} to {figure(max(values))})"
    return text + (" void" if measured["void"] else "")


def fastest_peer(row: Row, entries: Entries) -> str | None:
    """Returns the name of the fastest of the other libraries, or None if none was measured."""
    peers = [library for library in PEERS if library in entries]
    if not peers:
        return None
    choose = max if is_speed(row) else min
    return choose(peers, key=lambda library: median(entries[library]))


def is_speed(row: Row) -> bool:
    """Returns whether more is better."""
    return row.unit == "steps/s"


def checks(row: Row, entries: Entries) -> list[Check]:
    """Returns the numbers that matter of a row, each with its goal."""
    if "clipper" not in entries:
        return []
    mine, goals = median(entries["clipper"]), row.goals
    found: list[Check] = []

    def ratio(library: str, words: str, least: float | None) -> None:
        other = median(entries[library])
        value = mine / other if is_speed(row) else other / mine
        is_same_run = entries[library].get("run") == entries["clipper"].get("run")
        text = f"{value:.2f}" if value < 10 else figure(value)
        found.append(
            at_least(value, f"{text} {words}{'' if is_same_run else ' (two runs)'}", least)
        )

    if "alone" in entries:
        ratio("alone", "of env alone", goals.alone)
    peer = fastest_peer(row, entries)
    if peer is not None and (peer != "sbx" or goals.sbx is None):
        ratio(peer, f"x {NAMES[peer]}", goals.peers)
    if "sbx" in entries and goals.sbx is not None:
        ratio("sbx", "x sbx", goals.sbx)
    if "workers" in entries:
        scaling = median(entries["workers"]) / mine
        found.append(at_least(scaling, f"{scaling:.2f} x one core", goals.scaling))
    if goals.least is not None:
        found.append(at_least(mine, f"{figure(mine)} {row.unit}", goals.least))
    if goals.most is not None:
        found.append(
            Check(mine, f"{figure(mine)} {row.unit}", f"<= {goals.most:g}", mine <= goals.most)
        )
    return found


def at_least(value: float, text: str, least: float | None) -> Check:
    """Returns the check that a value is no less than a bound, if there is one."""
    if least is None:
        return Check(value, text)
    return Check(value, text, f">= {least:,g}", value >= least)


def is_void(entries: Entries) -> bool:
    """Returns whether a figure of the row says nothing."""
    return any(entry["void"] for entry in entries.values())


def goal_words(check: Check, *, void: bool) -> str:
    """Returns a check with its goal and whether it is met."""
    if not check.goal:
        return check.text
    word = "void" if void else verdict(bool(check.is_met))
    return f"{check.text} ({check.goal}: {word})"


def markdown(results: Results, *, is_wide: bool = True) -> str:
    """Returns the results as a Markdown table, a line a row.

    Args:
        results: By row and library.
        is_wide: With the range of each figure and the goals.
    """
    libraries = [name for name in NAMES if any(name in by for by in results.values())]
    lines = [
        "| " + " | ".join(["", *(NAMES[name] for name in libraries), "Clipper's ratios"]) + " |",
        "|---" * (len(libraries) + 2) + "|",
    ]
    for name, row in ROWS.items():
        entries = results.get(name)
        if not entries:
            continue
        cells = [cell(entries.get(library), is_wide=is_wide) for library in libraries]
        void = is_void(entries)
        last = "; ".join(
            goal_words(check, void=void) if is_wide else check.text
            for check in checks(row, entries)
            if is_wide or is_ratio(check)
        )
        lines.append(f"| {row.title}, {row.unit} | {' | '.join(cells)} | {last} |")
    memory = results.get(MEMORY_ROW, {})
    if memory:
        cells = [figure(by["memory_mb"]) if by else "" for by in map(memory.get, libraries)]
        mine = memory.get("clipper", {}).get("memory_mb")
        goal = "" if mine is None else f"<= {MOST_MEMORY_MB}: {verdict(mine <= MOST_MEMORY_MB)}"
        last = goal if is_wide else ""
        lines.append(f"| peak memory of {MEMORY_ROW}, MB | {' | '.join(cells)} | {last} |")
    return "\n".join(lines)


def verdict(is_met: bool) -> str:
    """Returns what a goal came to, in a word."""
    return "met" if is_met else "missed"


def is_ratio(check: Check) -> bool:
    """Returns whether a check compares Clipper with something."""
    return " of " in check.text or " x " in check.text


def provenance(results: Results) -> str:
    """Returns where and when the figures come from, and with which versions."""
    entries = [entry for by_library in results.values() for entry in by_library.values()]
    machines = sorted({f"{e['machine']['cpu']}, {e['machine']['cores']} cores" for e in entries})
    commits = sorted({e["commit"] for e in entries})
    dates = sorted(e["date"][:10] for e in entries)
    versions: dict[str, set[str]] = {}
    for entry in entries:
        for package, version in entry["versions"].items():
            versions.setdefault(package, set()).add(version)
    words = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items())
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"{'; '.join(machines)}; {days}; commit {', '.join(commits)}; {words}."
