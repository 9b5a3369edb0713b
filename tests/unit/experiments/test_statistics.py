"""Aggregates, intervals, comparisons: against scipy, brute force, simulations of what they state."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from clipper.experiments import statistics as st


def equal(n: int) -> np.ndarray:
    return np.full(n, 1 / n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 21, 40])
def test_iqm_is_the_trimmed_mean_of_scipy(n: int) -> None:
    """Each value four times over, a quarter off either end is whole values: scipy's trimmed mean."""
    values = np.random.default_rng(n).normal(size=n)
    expected = scipy.stats.trim_mean(np.repeat(values, 4), 0.25)
    assert st.interquartile_mean(values, equal(n)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", [(3, 6), (1, 4, 2), (5, 5), (2, 3, 7)])
def test_tasks_weigh_the_same_however_many_seeds(sizes: tuple[int, ...]) -> None:
    """Ragged tasks are those with every value repeated until all have as many: IQM, mean, median."""
    rng = np.random.default_rng(0)
    scores = [rng.normal(i, 1, size=n) for i, n in enumerate(sizes)]
    common = 4 * math.lcm(*sizes)
    flat = np.concatenate([np.repeat(s, common // len(s)) for s in scores])
    assert st.aggregate(scores, "iqm") == pytest.approx(
        scipy.stats.trim_mean(flat, 0.25), rel=1e-12
    )
    assert st.aggregate(scores, "mean") == pytest.approx(np.mean(flat), rel=1e-12)
    assert st.aggregate(scores, "median") == pytest.approx(np.median(flat), rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30, 101, 400])
def test_students_distribution_is_scipys(freedom: int) -> None:
    """The finite series and its inverse are scipy's cdf and ppf."""
    for t in (0.0, 0.1, 1.0, 2.5, 12.0):
        assert st.student_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), abs=1e-12)
    for p in (0.6, 0.95, 0.975, 0.9995):
        found = st.student_quantile(p, freedom)
        assert found == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-9)


@pytest.mark.parametrize(("name", "function"), [("mean", np.mean), ("median", np.median)])
def test_one_task_is_scipys_bootstrap(name: str, function: object) -> None:
    """At the level that n = 12 seeds call for, scipy's percentile interval is ours.

    Phi(-sqrt(12/11) t) with t = 2.2010 (11 degrees) is 0.010752: a level of 0.978496.
    """
    values = np.random.default_rng(3).gamma(2.0, size=12)
    ours = st.bootstrap_interval([values], name, resamples=100_000)
    theirs = scipy.stats.bootstrap(
        (values,),
        function,
        confidence_level=0.978496,
        method="percentile",
        n_resamples=100_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * spread)
    assert ours.value == pytest.approx(function(values))  # type: ignore[operator]


def test_seeds_are_drawn_within_their_tasks() -> None:
    """Tasks with one score each, seeds all alike, leave nothing to chance: intervals of no width.

    Drawn over all runs together, the mean would spread over 0 to 10.
    """
    scores = [np.full(5, 0.0), np.full(5, 10.0)]
    for name in st.STATISTICS:
        interval = st.bootstrap_interval(scores, name)
        assert interval.low == interval.high == interval.value == 5.0


def test_every_resample_of_a_small_task_is_counted() -> None:
    """Two seeds a and b: a resample's mean is a, (a+b)/2 or b with chances 1/4, 1/2, 1/4."""
    drawn = st._resampled([np.array([0.0, 1.0])], np.random.default_rng(0), 40_000)
    means, counts = np.unique(drawn.mean(1), return_counts=True)
    assert means.tolist() == [0.0, 0.5, 1.0]
    assert counts / 40_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_probability_of_improvement_counts_all_pairs() -> None:
    """Over all pairs of a task's runs; ties count half: scipy's Mann-Whitney U over n m."""
    rng = np.random.default_rng(5)
    first = [rng.integers(0, 5, size=n).astype(float) for n in (4, 7)]
    second = [rng.integers(0, 5, size=n).astype(float) for n in (6, 3)]
    by_hand = [
        sum((x > y) + 0.5 * (x == y) for x, y in itertools.product(a, b)) / (len(a) * len(b))
        for a, b in zip(first, second, strict=True)
    ]
    assert st.probability_of_improvement(first, second) == pytest.approx(np.mean(by_hand))
    for a, b, expected in zip(first, second, by_hand, strict=True):
        u = scipy.stats.mannwhitneyu(a, b).statistic
        assert u / (len(a) * len(b)) == pytest.approx(expected)
    opposite = st.probability_of_improvement(second, first)
    assert st.probability_of_improvement(first, second) + opposite == pytest.approx(1.0)


def test_improvement_interval_is_that_of_drawn_runs() -> None:
    """Runs drawn and compared one by one have the interval that counting how often has."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.5, 1, size=8), rng.normal(0, 1, size=8)
    ours = st.improvement_interval([a], [b], resamples=40_000)
    drawn = [
        st.probability_of_improvement([rng.choice(a, 8)], [rng.choice(b, 8)]) for _ in range(8000)
    ]
    tail = scipy.stats.norm.cdf(-math.sqrt(8 / 7) * scipy.stats.t.ppf(0.975, 14))
    assert (ours.low, ours.high) == pytest.approx(np.quantile(drawn, (tail, 1 - tail)), abs=0.02)


def test_runs_that_part_wholly_leave_doubt() -> None:
    """Five runs above five others: the rank test's chance is 1/252, and p = 1/2 just possible there.

    At a tail of 1/252 the interval ends at 1/2, at the usual 0.025 nearer to 1: 0.025^(1/7.977).
    """
    above, below = [np.arange(5.0) + 10], [np.arange(5.0)]
    edge = st.improvement_interval(above, below, confidence=1 - 2 / 252)
    assert (edge.value, edge.low, edge.high) == (1.0, pytest.approx(0.5), 1.0)
    usual = st.improvement_interval(above, below)
    assert usual.low == pytest.approx(0.025 ** (1 / math.log2(252)))
    mirrored = st.improvement_interval(below, above)
    assert (mirrored.low, mirrored.high) == (0.0, pytest.approx(1 - usual.low))


@pytest.mark.parametrize("shift", [0.5, 1.5, 2.5])
def test_improvement_intervals_hold_the_truth(shift: float) -> None:
    """Normal scores a shift apart: P(X > Y) = Phi(shift / sqrt 2); 95 of 100 intervals hold it."""
    rng = np.random.default_rng(7)
    truth = scipy.stats.norm.cdf(shift / math.sqrt(2))
    hits = 0
    for i in range(600):
        a, b = rng.normal(shift, 1, size=8), rng.normal(0, 1, size=8)
        hits += truth in st.improvement_interval([a], [b], resamples=1000, seed=i)
    print(shift, hits / 600)
    assert hits / 600 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 600)


def test_profile_is_the_share_of_runs_above() -> None:
    """Scores 1, 2, 3 of one task and 2 of another: above 1.5 are 2/3 and 1, mean 5/6."""
    scores = [np.array([1.0, 2.0, 3.0]), np.array([2.0])]
    found = st.performance_profile(scores, np.array([0.0, 1.5, 2.0, 3.0]))
    assert found == pytest.approx([1.0, 5 / 6, (1 / 3 + 0) / 2, 0.0])
    low, high = st.profile_band(scores, np.array([0.0, 1.5, 3.0]))
    assert (low <= [1.0, 5 / 6, 0.0]).all()
    assert (high >= [1.0, 5 / 6, 0.0]).all()


def test_one_seed_has_no_interval() -> None:
    """Where a task has one seed nothing is known of the spread, and nothing is claimed."""
    interval = st.bootstrap_interval([np.array([1.0, 2.0]), np.array([3.0])])
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    difference, error = st.difference_interval([np.array([1.0])], [np.array([2.0])])
    assert difference.value == -1.0
    assert math.isnan(error)
    assert st.further_seeds(-1.0, error, 1) == math.inf


SIMULATIONS = 1000


def coverage(name: str, n: int, tasks: int, kind: str) -> float:
    """Returns the share of simulated studies whose 95 % interval holds the true aggregate."""
    rng = np.random.default_rng(100 * n + tasks)
    draw = {
        "normal": lambda size: rng.normal(size=size),
        "skewed": lambda size: rng.gamma(2.0, size=size) - 2.0,
    }[kind]
    shifts = np.arange(tasks, dtype=float)
    population = np.concatenate([draw(400_000) + s for s in shifts])
    truth = float(st.STATISTICS[name](population, equal(len(population))))
    hits = 0
    for i in range(SIMULATIONS):
        scores = [draw(n) + s for s in shifts]
        hits += truth in st.bootstrap_interval(scores, name, resamples=1000, seed=i)
    return hits / SIMULATIONS


@pytest.mark.parametrize(
    ("name", "n", "tasks", "kind", "least"),
    [
        ("mean", 10, 1, "normal", 0.95),
        ("mean", 5, 4, "normal", 0.95),
        ("iqm", 10, 1, "normal", 0.95),
        ("iqm", 5, 4, "skewed", 0.95),
        ("median", 10, 1, "normal", 0.95),
        # a resample of five values cannot leave their range: documented as 90 %
        ("mean", 5, 1, "normal", 0.90),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    name: str, n: int, tasks: int, kind: str, least: float
) -> None:
    """Of 1000 simulated studies about 95 % have an interval with the true aggregate in it.

    The share itself is known to 3 standard deviations of sqrt(0.95 0.05 / 1000) = 0.0069.
    """
    assert least - 0.021 <= coverage(name, n, tasks, kind) <= 0.98


def test_as_many_seeds_as_advised_tell_settings_apart() -> None:
    """Half a standard deviation apart, 10 seeds each: 53 more, and 63 find it 4 times out of 5.

    n = 2 (1.960 + 0.842)^2 / 0.5^2 = 62.8, less the 10 there are.
    """
    assert st.further_seeds(0.5, math.sqrt(2 / 10), 10) == 53
    # n = 2 (2.807 + 0.842)^2 / 0.5^2 = 106.5 where ten rivals are compared at once
    assert st.further_seeds(0.5, math.sqrt(2 / 10), 10, confidence=0.995) == 97
    rng = np.random.default_rng(0)
    found = 0
    for i in range(400):
        a, b = rng.normal(0.5, 1, size=63), rng.normal(0, 1, size=63)
        interval, _ = st.difference_interval([a], [b], "mean", resamples=1000, seed=i)
        found += 0 not in interval
    assert found / 400 == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 400))


@pytest.mark.parametrize(("n", "confidence"), [(2, 0.95), (3, 0.95), (3, 0.995), (2, 0.995)])
def test_a_few_seeds_have_the_interval_of_students_t(n: int, confidence: float) -> None:
    """Resamples of two or three values do not reach so far: the interval is mean +- t s / sqrt(n)."""
    values = np.random.default_rng(n).normal(size=n)
    found = st.bootstrap_interval([values], "mean", confidence=confidence)
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * scipy.stats.sem(values)
    assert found.low == pytest.approx(values.mean() - reach, abs=0.05 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.05 * reach)


def test_the_error_of_a_difference_is_welchs() -> None:
    """Standard error of a difference of means: sqrt(s_a^2 / n + s_b^2 / n), s with n - 1."""
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, size=9), rng.normal(1, 2, size=9)
    difference, error = st.difference_interval([a], [b], "mean", resamples=40_000)
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert error == pytest.approx(math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 9), rel=0.02)


def test_equal_settings_need_no_end_of_seeds() -> None:
    """No number of seeds tells apart what does not differ."""
    assert st.further_seeds(0.0, 1.0, 5) == math.inf


def test_settings_that_do_not_differ_are_rarely_told_apart() -> None:
    """Two samples of one population: the interval of their difference holds 0 in 95 of 100."""
    rng = np.random.default_rng(4)
    wrong = 0
    for i in range(600):
        scores = [[rng.normal(size=6) for _ in range(2)] for _ in range(2)]
        wrong += 0 not in st.difference_interval(*scores, resamples=800, seed=i)[0]
    assert wrong / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
