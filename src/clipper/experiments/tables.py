"""A comparison in, its tables out: for a terminal, for a page, and with every digit for a file."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipper.experiments.comparison import METRICS, Comparison, Overall, Summary
from clipper.experiments.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as a reader sees them.

    Attributes:
        title: What it is about.
        caption: What the numbers are.
        header: Names of the columns.
        rows: Cells, as many as columns.
        num_texts: So many columns from the left are texts; the others are numbers.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_texts: int = 1

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < self.num_texts else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.header, *self.rows)
        ]
        head = textwrap.wrap(f"{self.title}: {self.caption}", 100, break_long_words=False)
        return "\n".join([*head, *(f"  {line}" for line in lines)])


def tables_of(comparison: Comparison, *, in_full: bool = False) -> list[Table]:
    """Returns the tables: over all tasks, of every task, and of the settings against the baseline.

    Args:
        comparison: What is shown.
        in_full: With the columns that a terminal has no room for.
    """
    tables = []
    if comparison.overall:
        tables.append(_overall_table(comparison))
    for env in comparison.collection.envs:
        rows = [s for (_, e), s in comparison.summaries.items() if e == env]
        order = list(comparison.collection.settings)
        rows.sort(key=lambda s: order.index(s.setting))
        if rows:
            tables.append(_task_table(comparison, env, rows, in_full))
    if comparison.pairs:
        tables.append(_pair_table(comparison))
    return tables


def _overall_table(comparison: Comparison) -> Table:
    return Table(
        title="all tasks",
        caption=f"normalised scores of {len(comparison.common)} tasks, 95 % intervals over seeds",
        header=("setting", "IQM", "", "mean", "", "median", ""),
        rows=[
            (o.setting, *(cell for i in (o.iqm, o.mean, o.median) for cell in _both(i, share)))
            for o in comparison.overall
        ],
    )


def _task_table(comparison: Comparison, env: str, rows: Sequence[Summary], in_full: bool) -> Table:
    """Returns the table of a task; what runs are judged by comes first, other scores after it."""
    columns: list[tuple[str, list[str]]] = [
        ("setting", [s.setting for s in rows]),
        ("seeds", [str(len(s.scores)) for s in rows]),
    ]
    for title, intervals in (
        ("IQM", [s.iqm for s in rows]),
        ("mean", [s.mean for s in rows]),
        ("median", [s.median for s in rows]),
    ):
        columns.append((title, [number(interval.value) for interval in intervals]))
        if in_full or title == "IQM":
            columns.append(("", [_ends(interval) for interval in intervals]))
    for name, title, values in (
        ("last", "last 100", [s.last for s in rows]),
        ("all", "all training", [s.all for s in rows]),
        ("eval", "evaluation", [s.evaluation for s in rows]),
    ):
        if name != comparison.metric and not all(math.isnan(value) for value in values):
            columns.append((title, [number(value) for value in values]))
    if in_full:
        columns.append(("steps", [f"{s.steps:,.0f}" for s in rows]))
    columns.append(("time", [time_text(s.wall_seconds) for s in rows]))
    if in_full:
        columns.append(("CPU", [time_text(s.cpu_seconds) for s in rows]))
    return Table(
        title=env,
        caption=f"{METRICS[comparison.metric][1]}, 95 % intervals over seeds; time of a run",
        header=[title for title, _ in columns],
        rows=list(zip(*(cells for _, cells in columns), strict=True)),
    )


def _pair_table(comparison: Comparison) -> Table:
    baseline = comparison.pairs[0].baseline
    intervals = f"{100 * comparison.confidence:.4g} % intervals"
    if len(comparison.pairs) > 1:
        intervals += f" ({len(comparison.pairs)} at a time hold at 95 %)"
    show = share if comparison.overall else number
    return Table(
        title=f"against {baseline}",
        caption=f"difference of the IQM, probability that a run scores above one of it; {intervals}",
        header=("setting", "verdict", "difference", "", "P(above)", ""),
        rows=[
            (p.setting, p.verdict, *_both(p.difference, show), *_both(p.improvement, share))
            for p in comparison.pairs
        ],
        num_texts=2,
    )


def _both(interval: Interval, show: Callable[[float], str] | None = None) -> tuple[str, str]:
    return (show or number)(interval.value), _ends(interval, show)


def _ends(interval: Interval, show: Callable[[float], str] | None = None) -> str:
    show = show or number
    return "-" if math.isnan(interval.low) else f"{show(interval.low)} to {show(interval.high)}"


def share(value: float) -> str:
    """Returns a probability or a normalised score, `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def number(value: float) -> str:
    """Returns a number with three or four digits that count, `-` for NaN."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def time_text(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if math.isnan(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def summary_csv(comparison: Comparison) -> str:
    """Returns every aggregate with all its digits, a line per setting and task."""
    header = ["setting", "env", "seeds", "metric"]
    for name in ("iqm", "mean", "median"):
        header += [name, f"{name}_low", f"{name}_high"]
    header += ["last", "all", "evaluation", "steps", "wall_seconds", "cpu_seconds"]
    lines: list[Sequence[object]] = [header]
    nothing = [math.nan] * 6
    for o in comparison.overall:
        seeds = sum(len(s) for s in comparison.normalised[o.setting])
        lines.append([o.setting, "", seeds, "normalised", *_numbers(o), *nothing])
    for s in comparison.summaries.values():
        averages = [s.last, s.all, s.evaluation, s.steps, s.wall_seconds, s.cpu_seconds]
        lines.append([s.setting, s.env, len(s.scores), comparison.metric, *_numbers(s), *averages])
    return _csv(lines)


def _numbers(of: Overall | Summary) -> list[float]:
    return [n for i in (of.iqm, of.mean, of.median) for n in (i.value, i.low, i.high)]


def pairs_csv(comparison: Comparison) -> str:
    """Returns what is known of every setting against the baseline, with all digits."""
    header = ["setting", "baseline", "difference", "difference_low", "difference_high"]
    header += ["improvement", "improvement_low", "improvement_high", "confidence"]
    header += ["further_seeds", "verdict"]
    lines: list[Sequence[object]] = [header]
    for p in comparison.pairs:
        d, i = p.difference, p.improvement
        lines.append(
            [
                *(p.setting, p.baseline, d.value, d.low, d.high, i.value, i.low, i.high),
                *(d.confidence, p.further, p.verdict),
            ]
        )
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in line]
        for line in lines
    )
    return buffer.getvalue()
