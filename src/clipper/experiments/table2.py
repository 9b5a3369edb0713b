"""The rows of a study in, Table 2 of the PPO paper out: games won by A2C, ACER and PPO, and Table 6."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipper.errors import FileError
from clipper.experiments.collection import Collection
from clipper.experiments.comparison import Comparison, compare
from clipper.experiments.deviations import TABLE2_DEVIATIONS
from clipper.experiments.figures import draw_curves
from clipper.experiments.paper import TABLE2, game_of
from clipper.experiments.printed import printed_rows
from clipper.experiments.reproduction import Reproduction
from clipper.experiments.tables import Table, number
from clipper.plotting import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRICS: Mapping[str, str] = {
    "all": "mean return over all of training",
    "last": "mean return of the last 100 training episodes",
}
_TIE = "tie"
_SOURCE = "arXiv 1707.06347v2, Table 6"


@dataclass(frozen=True, kw_only=True)
class GameScores:
    """An algorithm on a game.

    Attributes:
        game: As the paper calls it.
        algorithm: A name of `TABLE2`.
        runs: How many.
        all: Mean over seeds of the mean return of all training episodes.
        last: Of the last 100.
        printed: Table 6: of the last 100, after 10 M steps.
    """

    game: str
    algorithm: str
    runs: int
    all: float
    last: float
    printed: float


def printed_scores(game: str) -> dict[str, float]:
    """Returns what Table 6 prints for a game, by algorithm."""
    for row in printed_rows("table6.csv"):
        if row["game"] == game:
            return {name: float(row[name.lower()]) for name in TABLE2}
    return dict.fromkeys(TABLE2, math.nan)


def winners(scores: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """Returns how many games each algorithm has the highest score of, and how many are ties.

    Args:
        scores: By game and algorithm.
    """
    found = {**dict.fromkeys(TABLE2, 0), _TIE: 0}
    for by_algorithm in scores.values():
        best = max(by_algorithm.values())
        names = [name for name, score in by_algorithm.items() if score == best]
        found[names[0] if len(names) == 1 else _TIE] += 1
    return found


def reproduce_table2(collection: Collection, num_seeds: int) -> Reproduction:
    """Returns Table 2 of a study's runs, ready to be shown.

    Args:
        collection: The runs.
        num_seeds: Seeds of every algorithm on every game that were asked for.

    Raises:
        ConfigError: The algorithms have no game in common.
        FileError: No run has a score or a curve.
    """
    comparison = compare(collection, baseline=next(iter(TABLE2)))
    scores = _scores(comparison)
    return Reproduction(
        title="Table 2 of the PPO paper",
        table=_table(scores, num_seeds),
        lines=_wins(scores),
        csv=_csv(scores),
        picture="table2.png",
        caption="Learning curves, in raw rewards of whole games",
        figure=_draw(comparison),
        comparison=comparison,
        notes=comparison.notes,
        remarks=TABLE2_DEVIATIONS,
    )


def _scores(comparison: Comparison) -> list[GameScores]:
    """Returns all algorithms on the first game, then on the next."""
    found = []
    for env in comparison.collection.envs:
        game = game_of(env)
        printed = printed_scores(game)
        for name in TABLE2:
            summary = comparison.summaries.get((name, env))
            if summary is not None:
                found.append(
                    GameScores(
                        game=game,
                        algorithm=name,
                        runs=len(summary.scores),
                        all=summary.all,
                        last=summary.last,
                        printed=printed[name],
                    )
                )
    return found


def _table(scores: Sequence[GameScores], num_seeds: int) -> Table:
    return Table(
        title="Table 2",
        caption="mean return over all of training and of its last 100 episodes, over "
        f"{num_seeds} seed{'s' * (num_seeds != 1)}; printed: the paper's Table 6, the last 100 "
        "episodes of 10 M steps",
        header=("game", "algorithm", "runs", "all", "last 100", "printed"),
        rows=[
            (
                one.game,
                one.algorithm,
                str(one.runs),
                number(one.all),
                number(one.last),
                "-" if math.isnan(one.printed) else f"{one.printed:,.1f}",
            )
            for one in scores
        ],
        num_texts=2,
    )


def _wins(scores: Sequence[GameScores]) -> list[str]:
    """Returns the two rows of Table 2, ours of the games that all have played, and the printed ones."""
    printed = {row["metric"]: row for row in printed_rows("table2.csv")}
    lines = []
    for metric, words in _METRICS.items():
        by_game: dict[str, dict[str, float]] = {}
        for one in scores:
            by_game.setdefault(one.game, {})[one.algorithm] = getattr(one, metric)
        by_game = {game: found for game, found in by_game.items() if len(found) == len(TABLE2)}
        found = winners(by_game)
        ours = ", ".join(f"{name} {count}" for name, count in found.items())
        row = printed[metric]
        theirs = ", ".join(f"{name} {row[name.lower()]}" for name in found)
        games = f"{len(by_game)} game{'s' * (len(by_game) != 1)}"
        lines.append(f"won by {words}: {ours} of {games}; the paper: {theirs} of {row['games']}")
    return lines


def _csv(scores: Sequence[GameScores]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["game", "algorithm", "runs", "score_all", "score_last_100", "printed", "source"]
    )
    for one in scores:
        has_printed = not math.isnan(one.printed)
        writer.writerow(
            [one.game, one.algorithm, one.runs]
            + ["" if math.isnan(x) else x for x in (one.all, one.last, one.printed)]
            + [_SOURCE if has_printed else ""]
        )
    return buffer.getvalue()


def _draw(comparison: Comparison) -> Figure:
    figure = draw_curves(comparison, "steps")
    if figure is None:
        raise FileError(
            "a study of learning curves must have some, but curves.csv has none of these runs.",
            hint="bring back the curves.csv that was written beside results.csv.",
        )
    figure.suptitle(plain(figure.get_suptitle()), x=0.01, ha="left", fontsize=10)
    return figure
