"""Rows of runs in; aggregates, differences and verdicts out, for every task and over all tasks."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipper.errors import ConfigError, FileError, nearest
from clipper.experiments.collection import Collection, first_three
from clipper.experiments.rows import Row
from clipper.experiments.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    difference_interval,
    further_seeds,
    improvement_interval,
    seeds_to_part,
)

# what a run is judged by: the name, the column of its row, and what it is called
METRICS: Mapping[str, tuple[str, str]] = {
    "last": ("score", "mean return of the last 100 training episodes"),
    "all": ("score_all", "mean return of all training episodes"),
    "eval": ("eval_mean", "mean return of the final evaluation"),
}
# below so many seeds of a task its interval rests on how scores are taken to be distributed
FEW_SEEDS = 5
_SAME_LENGTH = 1.01


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A setting on a task.

    Attributes:
        setting: Its name.
        env: The task.
        scores: One a seed, [S].
        iqm: Interquartile mean with its interval.
        mean: Mean with its interval.
        median: Median with its interval.
        last: Mean over seeds of the mean return of the last 100 training episodes.
        all: Of all training episodes.
        evaluation: Of the final evaluation; NaN without one.
        steps: Transitions of a run.
        wall_seconds: Mean training time of a run.
        cpu_seconds: Mean CPU time of a run.
    """

    setting: str
    env: str
    scores: Array
    iqm: Interval
    mean: Interval
    median: Interval
    last: float
    all: float
    evaluation: float
    steps: float
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A setting over all tasks, in normalised scores."""

    setting: str
    iqm: Interval
    mean: Interval
    median: Interval


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A setting against the baseline, over all tasks that both have.

    Attributes:
        setting: Its name.
        baseline: What it is compared with.
        difference: Of the interquartile means: in returns for one task, in normalised scores for more.
        improvement: Probability that a run of it scores above one of the baseline.
        further: About how many more seeds a task would tell them apart; 0 if they are told apart.
    """

    setting: str
    baseline: str
    difference: Interval
    improvement: Interval
    further: float

    @property
    def verdict(self) -> str:
        """What can be said of the two, in words."""
        if math.isnan(self.difference.low):
            return "one seed tells nothing; run at least 5"
        if self.further == 0:
            return "better" if self.difference.value > 0 else "worse"
        if math.isinf(self.further):
            return "not distinguishable: the scores are equal"
        more = f"{self.further:,.0f} more" if self.further <= 1000 else "more than 1,000 more"
        return f"not distinguishable with these seeds, about {more} would tell"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that is known of some settings.

    Attributes:
        collection: What was compared.
        metric: What runs were judged by, a name of `METRICS`.
        summaries: By setting and task.
        common: Tasks that every setting has.
        normalised: Scores from 0, the range's lower end, to 1, by setting: one array a common task.
        ranges: Lower and upper end of normalised scores, by task.
        overall: Over all common tasks, if there are two or more.
        pairs: Every setting but the baseline against it.
        confidence: Of each pair's intervals, so that all of them together hold at 95 %.
        notes: What a reader has to know.
    """

    collection: Collection
    metric: str
    summaries: Mapping[tuple[str, str], Summary]
    common: Sequence[str]
    normalised: Mapping[str, Sequence[Array]]
    ranges: Mapping[str, tuple[float, float]]
    overall: Sequence[Overall]
    pairs: Sequence[Pair]
    confidence: float
    notes: Sequence[str]


def compare(
    collection: Collection,
    *,
    metric: str = "last",
    baseline: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Comparison:
    """Returns what the runs say of their settings.

    Args:
        collection: The runs.
        metric: What they are judged by: `last`, `all` or `eval`.
        baseline: The setting that others are compared with, or None for the first.
        ranges: Scores that count as 0 and 1 by task, or None: the lowest and highest score there is.

    Raises:
        ConfigError: There is no such metric or baseline, or the settings have no task in common.
        FileError: No run has a score.
    """
    if metric not in METRICS:
        raise ConfigError(
            f"metric must be one of {', '.join(METRICS)}, but is {metric!r}.",
            hint=nearest(metric, METRICS),
        )
    notes = list(collection.notes)
    _note_runs(
        "not exact, so that training again gives other bits",
        notes,
        [row for row in collection.rows if not row.exact],
    )
    grouped = _grouped(collection, METRICS[metric][0], notes)
    if metric == "last":
        few = [row for rows in grouped.values() for row in rows if row.episodes < 100]
        _note_runs("of fewer than 100 training episodes, so that the mean is of all", notes, few)
    settings = [s for s in collection.settings if any((s, e) in grouped for e in collection.envs)]
    common = [e for e in collection.envs if all((s, e) in grouped for s in settings)]
    if not common:
        raise ConfigError(
            "settings must have a task in common to be compared, but "
            + "; ".join(f"{s} has {_tasks_of(s, grouped)}" for s in settings[:4])
            + ".",
            hint="run them on the same environments, or report each apart.",
        )
    left_out = [e for e in collection.envs if e not in common]
    if left_out:
        notes.append(
            f"only in the table of their task, for not every setting has them: {', '.join(left_out)}"
        )
    if baseline is not None and baseline not in settings:
        raise ConfigError(
            f"the baseline must be one of the settings, but there is no {baseline!r}.",
            hint=nearest(baseline, settings) or f"there are {', '.join(settings[:8])}.",
        )
    summaries = {key: _summary(key, rows, metric) for key, rows in grouped.items()}
    _note_seeds(summaries, common, notes)
    used = _ranges(summaries, collection.envs, ranges or {})
    normalised = {
        s: [_normalised(summaries[s, e].scores, used[e]) for e in common] for s in settings
    }
    rivals = [s for s in settings if s != (baseline or settings[0])]
    confidence = 1 - 0.05 / max(len(rivals), 1)
    return Comparison(
        collection=collection,
        metric=metric,
        summaries=summaries,
        common=common,
        normalised=normalised,
        ranges=used,
        overall=[_overall(s, normalised[s]) for s in settings] if len(common) > 1 else [],
        pairs=[
            _pair(s, baseline or settings[0], summaries, common, normalised, confidence)
            for s in rivals
        ],
        confidence=confidence,
        notes=notes,
    )


def _grouped(
    collection: Collection, column: str, notes: list[str]
) -> dict[tuple[str, str], list[Row]]:
    """Returns the runs that have a score, by setting and task."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    without = []
    for row in collection.rows:
        if math.isnan(getattr(row, column)):
            without.append(row)
        else:
            grouped.setdefault((row.setting, row.env), []).append(row)
    if not grouped:
        raise FileError(
            "at least one run must have a score, but none has.",
            hint="no evaluation was asked for: `clipper sweep --evaluate N`."
            if column == "eval_mean"
            else "no training episode has ended: train longer.",
        )
    _note_runs("left out, without a score", notes, without)
    return grouped


def _note_runs(what: str, notes: list[str], rows: Sequence[Row]) -> None:
    """Adds what is to be said of some runs, with the names of the first three."""
    names = [f"{row.setting}, {row.env}, seed {row.seed}" for row in rows]
    if names:
        notes.append(f"{what}: {first_three(names)}")


def _tasks_of(setting: str, grouped: Mapping[tuple[str, str], object]) -> str:
    return ", ".join(env for name, env in grouped if name == setting)


def _summary(key: tuple[str, str], rows: Sequence[Row], metric: str) -> Summary:
    rows = sorted(rows, key=lambda row: row.seed)
    scores = np.array([getattr(row, METRICS[metric][0]) for row in rows])

    def average(column: str) -> float:
        return float(np.mean([getattr(row, column) for row in rows]))

    return Summary(
        setting=key[0],
        env=key[1],
        scores=scores,
        iqm=bootstrap_interval([scores], "iqm"),
        mean=bootstrap_interval([scores], "mean"),
        median=bootstrap_interval([scores], "median"),
        last=average("score"),
        all=average("score_all"),
        evaluation=average("eval_mean"),
        steps=average("steps"),
        wall_seconds=average("wall_seconds"),
        cpu_seconds=average("cpu_seconds"),
    )


def _note_seeds(
    summaries: Mapping[tuple[str, str], Summary], common: Sequence[str], notes: list[str]
) -> None:
    """Adds what is to be said of few seeds and of runs that are not alike."""
    fewest = min(len(s.scores) for s in summaries.values())
    if fewest == 1:
        notes.append("1 seed of a task: one tells nothing of the spread; run 5 or more")
    elif fewest < FEW_SEEDS:
        those = "intervals of so few" if len(common) < 3 else "the intervals of each task by itself"
        notes.append(
            f"{fewest} seeds of a task: {those} take scores to be normal, and hold the truth less "
            "often than 95 times in 100 where some runs fail; run 5 or more"
        )
    lengths: dict[str, list[str]] = {}
    for env in sorted({s.env for s in summaries.values()}):
        steps = sorted({s.steps for s in summaries.values() if s.env == env})
        # whole rollouts are a little longer than what was asked for
        if steps[-1] > _SAME_LENGTH * steps[0]:
            lengths.setdefault(" and ".join(f"{n:,.0f}" for n in steps), []).append(env)
    for words, envs in lengths.items():
        notes.append(f"runs on {', '.join(envs)} are not equally long: {words} steps")


def _ranges(
    summaries: Mapping[tuple[str, str], Summary],
    envs: Sequence[str],
    given: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    """Returns what counts as 0 and 1 on every task."""
    found = {}
    for env in envs:
        scores = [s.scores for s in summaries.values() if s.env == env]
        if env in given:
            found[env] = given[env]
        elif scores:
            pooled = np.concatenate(scores)
            found[env] = float(pooled.min()), float(pooled.max())
    return found


def _normalised(scores: Array, ends: tuple[float, float]) -> Array:
    low, high = ends
    found: Array = (scores - low) / (high - low) if high > low else np.zeros(len(scores))
    return found


def _overall(setting: str, scores: Sequence[Array]) -> Overall:
    return Overall(
        setting=setting,
        iqm=bootstrap_interval(scores, "iqm"),
        mean=bootstrap_interval(scores, "mean"),
        median=bootstrap_interval(scores, "median"),
    )


def _pair(
    setting: str,
    baseline: str,
    summaries: Mapping[tuple[str, str], Summary],
    common: Sequence[str],
    normalised: Mapping[str, Sequence[Array]],
    confidence: float,
) -> Pair:
    first, second = list(normalised[setting]), list(normalised[baseline])
    if len(common) == 1:  # in returns, which mean more than shares of a range
        first = [summaries[setting, common[0]].scores]
        second = [summaries[baseline, common[0]].scores]
    difference, error = difference_interval(first, second, confidence=confidence)
    improvement = improvement_interval(first, second, confidence=confidence)
    fewest = min(len(scores) for scores in (*first, *second))
    is_told = not math.isnan(difference.low) and 0 not in difference
    further = further_seeds(difference.value, error, fewest, confidence)
    if fewest > 1 and not (_has_spread(first) and _has_spread(second)):
        # seeds that agree exactly do not show that others would: ranks have to tell it too
        is_told = is_told and 0.5 not in improvement
        further = max(further, seeds_to_part(len(common), confidence) - fewest)
    return Pair(
        setting=setting,
        baseline=baseline,
        difference=difference,
        improvement=improvement,
        further=0 if is_told else further,
    )


def _has_spread(scores: Sequence[Array]) -> bool:
    """True if the seeds of some task differ."""
    return any(np.ptp(task) > 0 for task in scores)


def read_ranges(file: str | Path) -> dict[str, tuple[float, float]]:
    """Returns the scores that count as 0 and 1 from a CSV file with the columns env, low, high.

    Raises:
        FileError: The file cannot be read or is something else.
    """
    path = Path(file)
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found = {row["env"]: (float(row["low"]), float(row["high"])) for row in rows}
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path} must have the columns env, low and high with numbers, but {error!r}."
        ) from None
    for env, (low, high) in found.items():
        if not low < high:
            raise FileError(f"{path} must have low below high, but {env} has {low:g} and {high:g}.")
    return found
