"""Scores of runs in, aggregates with intervals and comparisons of two settings out; numpy alone.

A setting's scores are one array per task, a number per seed. Tasks weigh the same however many seeds
they have. Intervals are stratified bootstraps: seeds are drawn anew within every task, as in Agarwal et
al. 2021, "Deep RL at the edge of the statistical precipice" (arXiv 2108.13264); their percentiles are
moved outwards for the few seeds there are, as in Hesterberg 2015, "What teachers should know about the
bootstrap" (arXiv 1411.5279), for the plain ones are too narrow. In simulations of normal
scores 95 % intervals held the truth in 94 to 96 of 100 studies of 10 seeds or of several tasks; of a
single task in 90 with 5 seeds, 87 with 4 and 75 with 3.

Dimension key: R resamples, K runs of all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scores = Sequence[Array]
Statistic = Callable[[Array, Array], Array]

RESAMPLES = 10_000
# the chance with which as many seeds as advised would tell two settings apart
_POWER = 0.8
_NORMAL = NormalDist()
# resamples beyond an end that say where it is; with two or three seeds there are none
_FEWEST_BEYOND = 10


@dataclass(frozen=True)
class Interval:
    """A number and where it may lie.

    Attributes:
        value: As measured.
        low: Lower end.
        high: Upper end.
        confidence: Share of such intervals that hold the true number.
    """

    value: float
    low: float
    high: float
    confidence: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


def interquartile_mean(values: Array, weights: Array) -> Array:
    """Returns the mean of the middle half of the weight, over the last axis.

    A value that lies across a quartile counts with the part of its weight inside: for weights of
    1/K and K a multiple of 4 this is the mean without the K/4 lowest and highest.

    Args:
        values: [..., K].
        weights: [..., K] or [K], of sum 1.
    """
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    w = np.take_along_axis(np.broadcast_to(weights, values.shape), order, axis=-1)
    after = np.cumsum(w, axis=-1)
    inside = np.clip(after, 0.25, 0.75) - np.clip(after - w, 0.25, 0.75)
    total: Array = (inside * ordered).sum(-1) / inside.sum(-1)
    return total


def mean(values: Array, weights: Array) -> Array:
    """Returns the weighted mean over the last axis; arguments as `interquartile_mean`."""
    found: Array = (values * weights).sum(-1)
    return found


def median(values: Array, weights: Array) -> Array:
    """Returns the weighted median over the last axis; arguments as `interquartile_mean`.

    It is the middle of the two values that have half of the weight between them, if there are two.
    """
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    w = np.take_along_axis(np.broadcast_to(weights, values.shape), order, axis=-1)
    after = np.cumsum(w, axis=-1)
    lower = np.argmax(after >= 0.5 - 1e-9, axis=-1)[..., None]
    upper = np.argmax(after > 0.5 + 1e-9, axis=-1)[..., None]
    pair = np.take_along_axis(ordered, lower, -1) + np.take_along_axis(ordered, upper, -1)
    found: Array = 0.5 * pair[..., 0]
    return found


STATISTICS: Mapping[str, Statistic] = {
    "iqm": interquartile_mean,
    "mean": mean,
    "median": median,
}


def aggregate(scores: Scores, statistic: str = "iqm") -> float:
    """Returns an aggregate over all runs, tasks weighing the same.

    Args:
        scores: One array a task, of one number or more.
        statistic: `iqm`, `mean` or `median`.
    """
    return float(STATISTICS[statistic](*_pooled(scores)))


def _pooled(scores: Scores) -> tuple[Array, Array]:
    """Returns all runs in one row, [K], and their weights, [K]."""
    weights = [np.full(len(s), 1.0 / (len(s) * len(scores))) for s in scores]
    return np.concatenate(list(scores)).astype(np.float64), np.concatenate(weights)


def _resampled(scores: Scores, rng: np.random.Generator, resamples: int) -> Array:
    """Returns resamples of all runs in rows, [R, K], seeds drawn within their tasks."""
    parts = [s[rng.integers(0, len(s), size=(resamples, len(s)))] for s in scores]
    return np.concatenate(parts, axis=1).astype(np.float64)


def bootstrap_interval(
    scores: Scores,
    statistic: str = "iqm",
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns an aggregate and its stratified bootstrap interval.

    With one seed of some task there is no spread to measure: the interval is NaN.

    Args:
        scores: One array a task.
        statistic: `iqm`, `mean` or `median`.
        confidence: Share of such intervals that hold the true value, 0 to 1.
        resamples: R.
        seed: Of the resampling; the same seed gives the same interval.
    """
    values, weights = _pooled(scores)
    compute = STATISTICS[statistic]
    drawn = _resampled(scores, np.random.default_rng(seed), resamples)
    return _interval(float(compute(values, weights)), compute(drawn, weights), [scores], confidence)


def difference_interval(
    first: Scores,
    second: Scores,
    statistic: str = "iqm",
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Interval, float]:
    """Returns the aggregate of `first` less that of `second`, and its standard error.

    Args:
        first: One array a task.
        second: The same tasks, in the same order.
        statistic: `iqm`, `mean` or `median`.
        confidence: As in `bootstrap_interval`.
        resamples: R.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    compute = STATISTICS[statistic]
    values, drawn = 0.0, np.zeros(resamples)
    for scores, sign in ((first, 1.0), (second, -1.0)):
        row, weights = _pooled(scores)
        values += sign * float(compute(row, weights))
        drawn += sign * compute(_resampled(scores, rng, resamples), weights)
    fewest = _fewest([first, second])
    error = math.nan if fewest < 2 else float(drawn.std()) * math.sqrt(fewest / (fewest - 1))
    return _interval(values, drawn, [first, second], confidence), error


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """Returns the chance that a run of `first` scores above one of `second` on the same task.

    Mean over tasks of P(X > Y) + P(X = Y) / 2 over all pairs of runs (Mann and Whitney 1947).
    """
    return float(np.mean([_share_above(x, y) for x, y in zip(first, second, strict=True)]))


def _share_above(x: Array, y: Array) -> float:
    return float((x[:, None] > y[None, :]).mean() + 0.5 * (x[:, None] == y[None, :]).mean())


def improvement_interval(
    first: Scores,
    second: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns the probability of improvement and its stratified bootstrap interval.

    Where all runs of one lie above all of the other, resampling sees no doubt. The end of the
    interval is then the probability p at which runs would part so with a chance of the tail,
    taken to be p^k, with k so that p = 1/2 has the chance of the rank test, 1 / (n + m over n).

    Args:
        first: One array a task.
        second: The same tasks, in the same order.
        confidence: As in `bootstrap_interval`.
        resamples: R.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for x, y in zip(first, second, strict=True):
        # how often each run of one is drawn decides all: no pair is compared twice
        above = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
        of_x = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=resamples) / len(x)
        of_y = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=resamples) / len(y)
        drawn += ((of_x @ above) * of_y).sum(1) / len(first)
    value = probability_of_improvement(first, second)
    interval = _interval(value, drawn, [first, second], confidence)
    if 0 < value < 1 or math.isnan(interval.low):
        return interval
    power = sum(
        math.log2(math.comb(len(x) + len(y), len(x))) for x, y in zip(first, second, strict=True)
    )
    furthest = ((1 - confidence) / 2) ** (1 / power)
    low, high = (0.0, 1 - furthest) if value == 0 else (furthest, 1.0)
    return Interval(value, low, high, confidence)


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """Returns the share of runs whose score is above each threshold, tasks weighing the same.

    The run-score distribution of arXiv 2108.13264, section 4.3.
    """
    values, weights = _pooled(scores)
    found: Array = ((values[:, None] > thresholds[None, :]) * weights[:, None]).sum(0)
    return found


def profile_band(
    scores: Scores,
    thresholds: Array,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Returns lower and upper ends of a profile, at each threshold for itself."""
    _, weights = _pooled(scores)
    drawn = _resampled(scores, np.random.default_rng(seed), resamples)
    shares = np.stack([(drawn > threshold) @ weights for threshold in thresholds])
    tail = _NORMAL.cdf(-_reach([scores], confidence))
    low, high = np.quantile(shares, (tail, 1 - tail), axis=1)
    return low, high


def further_seeds(
    difference: float, error: float, num_seeds: int, confidence: float = 0.95
) -> float:
    """Returns about how many more seeds a task would tell two settings apart; infinite if equal.

    The standard error falls with the root of the number of seeds; so many are needed that a
    difference as large as the one measured is found with a chance of 80 %:
    n (z_(1 + confidence)/2 + z_0.8)^2 (error / difference)^2.

    Args:
        difference: As measured.
        error: Its standard error with the seeds there are.
        num_seeds: Seeds a task of each setting now.
        confidence: Of the interval that is to leave out 0.
    """
    if difference == 0 or not math.isfinite(error):
        return math.inf
    reach = _NORMAL.inv_cdf((1 + confidence) / 2) + _NORMAL.inv_cdf(_POWER)
    needed = num_seeds * (reach * error / difference) ** 2
    return max(math.ceil(needed) - num_seeds, 1)


def _interval(
    value: float, drawn: Array, all_scores: Sequence[Scores], confidence: float
) -> Interval:
    if _fewest(all_scores) < 2:
        return Interval(value, math.nan, math.nan, confidence)
    reach = _reach(all_scores, confidence)
    tail = _NORMAL.cdf(-reach)
    if tail * len(drawn) < _FEWEST_BEYOND:  # as if the statistic were normal
        spread = reach * float(drawn.std())
        return Interval(value, value - spread, value + spread, confidence)
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(value, float(low), float(high), confidence)


def _fewest(all_scores: Sequence[Scores]) -> int:
    return min(len(task) for scores in all_scores for task in scores)


def _reach(all_scores: Sequence[Scores], confidence: float) -> float:
    """Returns how many standard deviations of the resamples an interval reaches to each side.

    A resample of n values spreads less than n values do, by sqrt((n-1)/n), and knows nothing of
    how ill n values know their spread: sqrt(n/(n-1)) t in place of the normal quantile gives the mean
    of normal values the interval of Student's t. Of other statistics the share Phi(-reach) of the
    resamples lies beyond each end.
    """
    n = max(_fewest(all_scores), 2)
    freedom = sum(len(task) - 1 for scores in all_scores for task in scores)
    t = student_quantile(0.5 + confidence / 2, max(freedom, 1))
    return math.sqrt(n / (n - 1)) * t


def student_quantile(probability: float, freedom: int) -> float:
    """Returns the quantile of Student's t distribution.

    Args:
        probability: 0.5 to 1, both excluded.
        freedom: Degrees of freedom, from 1.
    """
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = student_cdf(middle, freedom) < probability
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


def student_cdf(t: float, freedom: int) -> float:
    """Returns the share of Student's t distribution below `t` >= 0, by its finite series.

    Abramowitz and Stegun, 26.7.3 (odd degrees of freedom) and 26.7.4 (even).
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 1.0
    for k in range(2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 0.5 + 0.5 * sine * total
