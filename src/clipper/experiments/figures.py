"""A comparison in; its pictures out: scores, profiles, improvement, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipper.curves import Array, aggregate
from clipper.experiments.comparison import METRICS, Comparison
from clipper.experiments.rows import CurvePoint
from clipper.experiments.statistics import Interval, performance_profile, profile_band
from clipper.plotting import (
    COLOURS,
    FEW_LINES,
    INCHES_PER_LINE,
    STYLES,
    dress,
    plain,
    plain_numbers,
    time_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

_LONGEST_NAME = 44


def draw_scores(comparison: Comparison) -> Figure:
    """Draws every setting's interquartile mean with its interval, and every seed: a panel a task."""
    settings = _settings(comparison)
    has_overall = bool(comparison.overall)
    envs = list(comparison.collection.envs)
    figure, panels = _panels(len(envs) + has_overall, 1.1 + 0.34 * len(settings))
    if has_overall:
        scores = comparison.normalised
        found = {o.setting: o.iqm for o in comparison.overall}
        _draw_intervals(panels[0], settings, {s: np.concatenate(scores[s]) for s in scores}, found)
        panels[0].set_title("all tasks", loc="left", fontweight="bold")
        panels[0].set_xlabel("normalised score")
    for axes, env in zip(panels[has_overall:], envs, strict=True):
        of_task = {s: x for (s, e), x in comparison.summaries.items() if e == env}
        seeds = {s: x.scores for s, x in of_task.items()}
        _draw_intervals(axes, settings, seeds, {s: x.iqm for s, x in of_task.items()})
        axes.set_title(plain(env), loc="left")
        axes.set_xlabel("return")
    columns = _columns(len(panels))
    for i, axes in enumerate(panels):
        if i % columns:  # named at the left already
            axes.tick_params(labelleft=False)
    text = f"{METRICS[comparison.metric][1]}: interquartile mean, 95 % interval, dots: runs"
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)
    return figure


def _draw_intervals(
    axes: Axes,
    settings: Sequence[str],
    seeds: Mapping[str, Array],
    intervals: Mapping[str, Interval],
) -> None:
    for row, name in enumerate(settings):
        if name not in intervals:
            continue
        found, colour = intervals[name], _colour(row)
        jitter = np.linspace(-0.2, 0.2, len(seeds[name])) if len(seeds[name]) > 1 else [0.0]
        axes.plot(seeds[name], row + np.array(jitter), ".", ms=4, mew=0, color=colour, alpha=0.45)
        if not math.isnan(found.low):
            axes.plot(
                [found.low, found.high],
                [row, row],
                color=colour,
                lw=5,
                alpha=0.35,
                solid_capstyle="butt",
            )
        axes.plot([found.value], [row], "|", ms=15, mew=2.5, color=colour)
    axes.set_yticks(range(len(settings)), [_short(name) for name in settings])
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
    dress(axes, engineering=False)
    axes.grid(axis="y", visible=False)


def draw_improvement(comparison: Comparison) -> Figure:
    """Draws the probability that a run of a setting scores above one of the baseline."""
    from matplotlib.figure import Figure

    pairs = comparison.pairs
    figure = Figure(figsize=(8, 1.5 + 0.36 * len(pairs)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.5, color="#999999", lw=1, ls=":")
    settings = _settings(comparison)
    for row, pair in enumerate(pairs):
        found, colour = pair.improvement, _colour(settings.index(pair.setting))
        if not math.isnan(found.low):
            axes.plot(
                [found.low, found.high],
                [row, row],
                color=colour,
                lw=5,
                alpha=0.35,
                solid_capstyle="butt",
            )
        axes.plot([found.value], [row], "|", ms=15, mew=2.5, color=colour)
    axes.set_yticks(range(len(pairs)), [_short(pair.setting) for pair in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(plain(f"P(a run scores above one of {_short(pairs[0].baseline)})"))
    dress(axes, engineering=False)
    axes.grid(axis="y", visible=False)
    share = f"{100 * comparison.confidence:.4g} % intervals"
    figure.suptitle(f"probability of improvement, {share}", x=0.01, ha="left", fontsize=10)
    return figure


def draw_profiles(comparison: Comparison) -> Figure | None:
    """Draws for every setting the share of runs above each normalised score, with its 95 % band.

    Returns:
        None if there is one run alone.
    """
    from matplotlib.figure import Figure

    pooled = np.concatenate([x for scores in comparison.normalised.values() for x in scores])
    if len(pooled) < 2:
        return None
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    low_end, high_end = max(float(pooled.min()), -2.0), min(float(pooled.max()), 3.0)
    thresholds = np.linspace(low_end, high_end if low_end < high_end else low_end + 1.0, 201)
    for row, name in enumerate(_settings(comparison)):
        scores = comparison.normalised[name]
        low, high = profile_band(scores, thresholds)
        share = performance_profile(scores, thresholds)
        axes.plot(thresholds, share, color=_colour(row), ls=_style(row), lw=1.8, label=_short(name))
        axes.fill_between(thresholds, low, high, color=_colour(row), alpha=0.12, lw=0)
    axes.set_xlabel("normalised score")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    dress(axes, engineering=False)
    _legend(figure, [axes], "performance profiles; band: 95 % interval at each score")
    return figure


def draw_curves(comparison: Comparison, x: str) -> Figure | None:
    """Draws learning curves, a panel a task: mean over seeds, band from the lowest to the highest.

    Args:
        comparison: What is drawn.
        x: `steps` or `wall`.

    Returns:
        None if there is no curve.
    """
    points = comparison.collection.points
    envs = [env for env in comparison.collection.envs if any(p.env == env for p in points)]
    if not envs:
        return None
    figure, panels = _panels(len(envs), 3.6)
    by_run: dict[tuple[str, str, int], list[CurvePoint]] = {}
    for point in points:
        by_run.setdefault(point.key, []).append(point)
    for axes, env in zip(panels, envs, strict=True):
        _draw_task(axes, comparison, env, by_run, x)
    what = "mean return of the last 100 episodes; line: mean over seeds, band: lowest to highest"
    _legend(figure, panels, what)
    return figure


def _draw_task(
    axes: Axes,
    comparison: Comparison,
    env: str,
    by_run: Mapping[tuple[str, str, int], Sequence[CurvePoint]],
    x: str,
) -> None:
    longest = max(p.wall_seconds for key, run in by_run.items() if key[1] == env for p in run)
    seconds, unit = time_unit(longest)
    place: Callable[[Any], float] = (
        (lambda p: p.step) if x == "steps" else (lambda p: p.wall_seconds / seconds)
    )
    for row, name in enumerate(_settings(comparison)):
        runs = [run for (s, e, _), run in by_run.items() if (s, e) == (name, env)]
        lines = [
            (np.array([place(p) for p in run], float), np.array([p.mean_return for p in run]))
            for run in runs
        ]
        band = aggregate(lines) if lines else None
        # seeds with no stretch in common are drawn each for itself
        for steps, returns in [] if band is not None else lines:
            axes.plot(steps, returns, color=_colour(row), ls=_style(row), lw=1)
        if band is not None:
            axes.plot(band.x, band.mean, color=_colour(row), ls=_style(row), lw=1.6)
            axes.fill_between(band.x, band.low, band.high, color=_colour(row), alpha=0.13, lw=0)
        axes.plot([], [], color=_colour(row), ls=_style(row), label=_short(name))
    axes.set_title(plain(env), loc="left")
    axes.set_xlabel("environment steps" if x == "steps" else f"training time ({unit})")
    axes.set_ylabel("return")
    axes.set_xlim(left=0)
    dress(axes, engineering=x == "steps")
    plain_numbers(axes)


def _settings(comparison: Comparison) -> list[str]:
    return list(comparison.normalised)


def _panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure of so many panels, two or three beside each other, `height` inches each."""
    from matplotlib.figure import Figure

    columns = _columns(number)
    rows = -(-number // columns)
    width = 8.0 if columns == 1 else 4.6 * columns
    figure = Figure(figsize=(width, 0.9 + height * rows), dpi=120, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(number)]


def _columns(number: int) -> int:
    """Returns how many of so many panels stand beside each other."""
    return number if number < 3 else 2 if number == 4 else 3


def _legend(figure: Figure, panels: Sequence[Axes], title: str) -> None:
    """Puts one legend for all panels below them."""
    handles, labels = panels[0].get_legend_handles_labels()
    widest = 0.7 + 0.075 * max(map(len, labels))
    most = max(1, min(4, len(labels), int(figure.get_size_inches()[0] / widest)))
    lines = -(-len(labels) // most)
    columns = -(-len(labels) // lines)  # as many in every line
    # a long legend makes the picture higher, and no panel lower
    figure.set_figheight(figure.get_figheight() + INCHES_PER_LINE * max(lines - FEW_LINES, 0))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)


def _colour(row: int) -> str:
    return COLOURS[row % len(COLOURS)]


def _style(row: int) -> LineStyleType:
    return STYLES[row // len(COLOURS) % len(STYLES)]


def _short(name: str) -> str:
    """Returns a setting's name as a picture has room for it."""
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 15]}…{name[-14:]}"
    return plain(name)
