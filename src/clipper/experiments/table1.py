"""The rows of a study in, Table 1 of the PPO paper out: ours beside what is printed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipper.experiments.collection import Collection
from clipper.experiments.comparison import Comparison, compare
from clipper.experiments.deviations import TABLE1_DEVIATIONS
from clipper.experiments.paper import TABLE1, TABLE1_BEST
from clipper.experiments.printed import printed_table1
from clipper.experiments.reproduction import Reproduction
from clipper.experiments.statistics import Array, Interval, bootstrap_interval
from clipper.experiments.tables import Table
from clipper.plotting import COLOURS, dress, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Table1Row:
    """A setting of Table 1.

    Attributes:
        setting: Its name.
        num_runs: Runs that the score is the mean of.
        score: Mean of their normalised scores, with its stratified bootstrap interval.
        rank: 1 for the highest score of the paper's settings; None for a setting that is not theirs.
        score_to_mean: The score if 1 were the best *setting's* mean over seeds of each task, in place
            of the best run: the paper can be read either way. NaN if that mean is below random.
        printed: What the paper prints, or None.
        printed_rank: Its rank there, or None.
    """

    setting: str
    num_runs: int
    score: Interval
    rank: int | None
    score_to_mean: float
    printed: float | None
    printed_rank: int | None


@dataclass(frozen=True, kw_only=True)
class Table1:
    """Table 1 of the paper and ours.

    Attributes:
        rows: A setting each, in the paper's order.
        comparison: All that can be said of the runs, in the same normalised scores.
        tasks: Those that count.
        notes: What a reader has to know.
    """

    rows: Sequence[Table1Row]
    comparison: Comparison
    tasks: Sequence[str]
    notes: Sequence[str]

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of our scores with the printed ones; NaN for fewer than 3 settings."""
        pairs = [(row.score.value, row.printed) for row in self.rows if row.printed is not None]
        if len(pairs) < 3:
            return math.nan
        ours, printed = (_average_ranks(np.array(side, float)) for side in zip(*pairs, strict=True))
        if np.ptp(ours) == 0:
            return math.nan
        return float(np.corrcoef(ours, printed)[0, 1])


def table1_of(collection: Collection, random: Mapping[str, float]) -> Table1:
    """Returns the table of a study's runs, as section 6.1 of the paper makes it.

    The score of a run is the mean return of its last 100 training episodes. It is shifted and scaled
    on every task so that the random policy has 0 and the best run of the paper's settings has 1; the
    score of a setting is the mean over all its runs. Settings that are not the paper's do not move
    the scale.

    Args:
        collection: The runs.
        random: Mean return of the random policy by task.

    Raises:
        ConfigError: The settings have no task in common.
        FileError: No run has a score, or none is better than the random policy.
    """
    notes: list[str] = []
    ranges = _ranges(collection, random, notes)
    if notes:
        collection = collection.where(lambda row: row.env in ranges)
    has_best = any(row.setting == TABLE1_BEST for row in collection.rows)
    comparison = compare(collection, baseline=TABLE1_BEST if has_best else None, ranges=ranges)
    means = {s: _mean(scores) for s, scores in comparison.normalised.items()}
    best_means = [
        max(float(scores[k].mean()) for s, scores in comparison.normalised.items() if s in TABLE1)
        for k in range(len(comparison.common))
    ]
    printed = printed_table1()
    rows = [
        Table1Row(
            setting=setting,
            num_runs=sum(map(len, scores)),
            score=bootstrap_interval(scores, "mean"),
            rank=_rank(setting, {s: m for s, m in means.items() if s in TABLE1}),
            score_to_mean=_mean([x / m for x, m in zip(scores, best_means, strict=True)])
            if min(best_means) > 0
            else math.nan,
            printed=printed.get(setting),
            printed_rank=_rank(setting, printed),
        )
        for setting, scores in comparison.normalised.items()
    ]
    return Table1(
        rows=rows,
        comparison=comparison,
        tasks=comparison.common,
        notes=[*notes, *comparison.notes],
    )


def _ranges(
    collection: Collection, random: Mapping[str, float], notes: list[str]
) -> dict[str, tuple[float, float]]:
    """Returns what counts as 0 and 1 on every task where a run beats the random policy."""
    found = {}
    for env in collection.envs:
        scores = [r.score for r in collection.rows if r.env == env and r.setting in TABLE1]
        best = max((s for s in scores if not math.isnan(s)), default=math.nan)
        if best > random[env]:
            found[env] = random[env], best
        else:
            notes.append(
                f"{env} is left out: no run scores above the random policy, so there is no scale"
            )
    return found


def _mean(scores: Sequence[Array]) -> float:
    """Returns the mean over runs, tasks weighing the same."""
    return float(np.mean([task.mean() for task in scores]))


def _rank(setting: str, scores: Mapping[str, float]) -> int | None:
    """Returns 1 and the number of scores that are higher, or None for one that is not among them."""
    if setting not in scores:
        return None
    return 1 + sum(score > scores[setting] for score in scores.values())


def _average_ranks(values: Array) -> Array:
    """Returns ranks from 1, equal values sharing the mean of theirs."""
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return np.asarray(below + (equal + 1) / 2, dtype=np.float64)


def reproduce_table1(
    collection: Collection, random: Mapping[str, float], num_seeds: int
) -> Reproduction:
    """Returns Table 1 of a study's runs, ready to be shown.

    Args:
        collection: The runs.
        random: Mean return of the random policy by task.
        num_seeds: Seeds of every setting on every task that were asked for.

    Raises:
        ConfigError: The settings have no task in common.
        FileError: No run has a score, or none is better than the random policy.
    """
    table = table1_of(collection, random)
    correlation = table.rank_correlation
    told = f"rank correlation with the printed scores (Spearman): {correlation:.2f}"
    return Reproduction(
        title="Table 1 of the PPO paper",
        table=table1_text(table, num_seeds),
        lines=[] if math.isnan(correlation) else [told],
        csv=table1_csv(table),
        picture="table1.png",
        caption="Our scores and the printed ones",
        figure=draw_table1(table),
        comparison=table.comparison,
        notes=table.notes,
        remarks=TABLE1_DEVIATIONS,
    )


def table1_text(table: Table1, num_seeds: int) -> Table:
    """Returns the table as a reader sees it.

    Args:
        table: What it shows.
        num_seeds: Seeds of every setting on every task that were asked for.
    """
    tasks = len(table.tasks)
    return Table(
        title="Table 1",
        caption=f"mean normalised score over {tasks} task{'s' * (tasks != 1)} x {num_seeds} "
        f"seed{'s' * (num_seeds != 1)}, 95 % interval over seeds, beside the paper's (7 x 3)",
        header=("setting", "runs", "ours", "", "printed", "difference", "rank", "printed rank"),
        rows=[_cells(row) for row in table.rows],
    )


def _cells(row: Table1Row) -> tuple[str, ...]:
    low, high = row.score.low, row.score.high
    printed = row.printed
    return (
        row.setting,
        str(row.num_runs),
        f"{row.score.value:.2f}",
        "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}",
        "-" if printed is None else f"{printed:.2f}",
        "-" if printed is None else f"{row.score.value - printed:+.2f}",
        "-" if row.rank is None else str(row.rank),
        "-" if row.printed_rank is None else str(row.printed_rank),
    )


def table1_csv(table: Table1) -> str:
    """Returns the table with all its digits."""
    header = ["setting", "runs", "score", "score_low", "score_high", "rank", "score_to_mean"]
    header += ["printed", "printed_rank", "difference", "source"]
    source = "arXiv 1707.06347v2, Table 1"
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        ours = [row.score.value, row.score.low, row.score.high, row.rank, row.score_to_mean]
        theirs = [row.printed, row.printed_rank]
        difference = None if row.printed is None else row.score.value - row.printed
        last = [difference, None if row.printed is None else source]
        cells = [row.setting, row.num_runs, *ours, *theirs, *last]
        writer.writerow(["" if _is_nothing(cell) else cell for cell in cells])
    return buffer.getvalue()


def _is_nothing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def draw_table1(table: Table1) -> Figure:
    """Draws every setting's score with its interval, and the printed one beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 0.36 * len(table.rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="#999999", lw=1, ls=":")
    for place, row in enumerate(table.rows):
        label = "Clipper, 95 % interval over seeds" if place == 0 else None
        if not math.isnan(row.score.low):
            ends = [row.score.low, row.score.high]
            axes.plot(ends, [place, place], color=COLOURS[0], lw=5, alpha=0.35)
        axes.plot([row.score.value], [place], "|", ms=15, mew=2.5, color=COLOURS[0], label=label)
    shown = [
        (row.printed, place) for place, row in enumerate(table.rows) if row.printed is not None
    ]
    axes.plot(*zip(*shown, strict=True), "D", ms=6, mfc="none", mec=COLOURS[1], mew=1.6, ls="none",
              label="printed in the paper")  # fmt: skip
    axes.set_yticks(range(len(table.rows)), [plain(row.setting) for row in table.rows])
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    tasks = len(table.tasks)
    axes.set_xlabel(
        f"mean normalised score over {tasks} task{'s' * (tasks != 1)}: 0 random, 1 best run"
    )
    dress(axes, engineering=False)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle("Table 1 of the PPO paper (arXiv 1707.06347)", x=0.01, ha="left", fontsize=10)
    return figure
