"""The rows of a study in, Figure 3 of the PPO paper out: learning curves, and the final scores."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from clipper.errors import FileError
from clipper.experiments.collection import Collection
from clipper.experiments.comparison import Comparison, Summary, compare
from clipper.experiments.deviations import FIGURE3_DEVIATIONS
from clipper.experiments.figures import draw_curves
from clipper.experiments.paper import FIGURE3, FIGURE3_TIMESTEPS
from clipper.experiments.printed import printed_rows
from clipper.experiments.reproduction import Reproduction
from clipper.experiments.tables import Table, number
from clipper.plotting import COLOURS, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PPO = "PPO (clip 0.2)"


def readings(setting: str, env: str) -> list[float]:
    """Returns what others have read off the printed figure at a million steps; [] if nobody did.

    Args:
        setting: A name of `FIGURE3`.
        env: A task, of whatever version.
    """
    name = FIGURE3[setting].read_as
    task = env.rpartition("-v")[0]
    return [
        float(row["score"])
        for row in printed_rows("figure3.csv")
        if (row["algorithm"], row["task"]) == (name, task)
    ]


def reproduce_figure3(collection: Collection, num_seeds: int) -> Reproduction:
    """Returns Figure 3 of a study's runs, ready to be shown.

    Args:
        collection: The runs.
        num_seeds: Seeds of every algorithm on every task that were asked for.

    Raises:
        ConfigError: The algorithms have no task in common.
        FileError: No run has a score or a curve.
    """
    has_ppo = any(row.setting == _PPO for row in collection.rows)
    comparison = compare(collection, baseline=_PPO if has_ppo else None)
    return Reproduction(
        title="Figure 3 of the PPO paper",
        table=_table(comparison, num_seeds),
        lines=[_best_of_each(comparison)],
        csv=_csv(comparison),
        picture="figure3.png",
        caption="Learning curves; crosses: readings of the printed figure, -v1 environments",
        figure=_draw(comparison),
        comparison=comparison,
        notes=comparison.notes,
        remarks=FIGURE3_DEVIATIONS,
    )


def _table(comparison: Comparison, num_seeds: int) -> Table:
    rows = []
    for found in _in_order(comparison):
        setting, env = found.setting, found.env
        low, high = found.mean.low, found.mean.high
        read = " or ".join(f"{value:,.0f}" for value in readings(setting, env))
        ends = "-" if math.isnan(low) else f"{number(low)} to {number(high)}"
        runs = str(len(found.scores))
        rows.append((env, setting, runs, number(found.mean.value), ends, read or "-"))
    return Table(
        title="Figure 3",
        caption="mean return of the last 100 training episodes, 95 % interval over "
        f"{num_seeds} seed{'s' * (num_seeds != 1)}; as read off the printed figure at 1 M steps",
        header=("task", "algorithm", "runs", "ours", "", "read"),
        rows=rows,
        num_texts=2,
    )


def _in_order(comparison: Comparison) -> list[Summary]:
    """Returns all algorithms on the first task, then on the next."""
    keys = [(s, e) for e in comparison.collection.envs for s in comparison.collection.settings]
    return [comparison.summaries[key] for key in keys if key in comparison.summaries]


def _best_of_each(comparison: Comparison) -> str:
    """Returns on how many tasks each algorithm has the highest mean."""
    wins = dict.fromkeys(comparison.normalised, 0)
    for env in comparison.common:
        means = {s: comparison.summaries[s, env].mean.value for s in wins}
        wins[max(means, key=means.__getitem__)] += 1
    told = ", ".join(f"{setting} {count}" for setting, count in wins.items() if count)
    return f"tasks with the highest mean: {told}"


def _csv(comparison: Comparison) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["env", "setting", "runs", "score", "score_low", "score_high", "read", "source"]
    )
    for found in _in_order(comparison):
        setting, env, mean = found.setting, found.env, found.mean
        ours = ["" if math.isnan(x) else x for x in (mean.value, mean.low, mean.high)]
        read = readings(setting, env)
        source = "arXiv 1707.06347v2, Figure 3, as read by others" if read else ""
        writer.writerow(
            [env, setting, len(found.scores), *ours, ";".join(f"{x:g}" for x in read), source]
        )
    return buffer.getvalue()


def _draw(comparison: Comparison) -> Figure:
    """Draws a panel a task, with the readings of the printed figure at a million steps."""
    figure = draw_curves(comparison, "steps")
    if figure is None:
        raise FileError(
            "a study of learning curves must have some, but curves.csv has none of these runs.",
            hint="bring back the curves.csv that was written beside results.csv.",
        )
    for axes in figure.axes:
        env = axes.get_title(loc="left")
        for row, setting in enumerate(comparison.normalised):
            found = comparison.summaries.get((setting, env))
            if found is not None and found.steps >= FIGURE3_TIMESTEPS:
                for value in readings(setting, env):
                    axes.plot(FIGURE3_TIMESTEPS, value, "x", ms=7, mew=2, color=COLOURS[row])
    title = figure.get_suptitle()
    figure.suptitle(plain(f"{title}; cross: printed (read)"), x=0.01, ha="left", fontsize=10)
    return figure
