"""Run folders in, pictures of their learning curves out.

matplotlib is imported where it draws, so that a command that draws nothing does not wait for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from clipper.curves import Array, Curve, aggregate, read_curve, rolling_mean
from clipper.errors import ConfigError, FileError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

SUFFIXES = (".png", ".svg", ".pdf")

# Okabe and Ito's palette, told apart by colour-blind readers; without its yellow, pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
STYLES: tuple[LineStyleType, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
    (0, (1, 3)),
)
# of a legend, and how many of its lines a panel's height has room for
INCHES_PER_LINE, FEW_LINES = 0.2, 3
# of a picture's title
_LETTERS_PER_INCH = 10.0
_HEALTH = (
    ("policy/entropy", "entropy (nats)"),
    ("policy/approx_kl", "approx. KL (nats)"),
    ("value/explained_variance", "explained variance"),
)


def check_picture_path(path: str | Path) -> Path:
    """Returns the path if its suffix is one that can be drawn.

    Raises:
        ConfigError: It is another one.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"a picture's file name must end in .png, .svg or .pdf, but is {target.name!r}.",
            hint=f"write {target.with_suffix('.png') if target.name else 'curve.png'}.",
        )
    return target


def plot_run(run_dir: str | Path, out: str | Path) -> None:
    """Draws one run: every episode's return, their rolling mean, evaluations, signs of health.

    Raises:
        ConfigError: The suffix of `out` is not .png, .svg or .pdf.
        FileError: The run cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure

    target = check_picture_path(out)
    curve = read_curve(run_dir)
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    grid = figure.add_gridspec(len(_HEALTH), 2, width_ratios=(2.4, 1))
    main = figure.add_subplot(grid[:, 0])
    _draw_returns(main, curve)
    title = plain(f"{curve.env} · {curve.name} · seed {curve.seed}")
    figure.suptitle(title, x=0.01, ha="left")
    for row, (path, label) in enumerate(_HEALTH):
        axes = figure.add_subplot(grid[row, 1], sharex=main)
        _draw_metric(axes, curve, path, label)
        if row < len(_HEALTH) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("environment steps")
    save_figure(figure, target)


def plot_runs(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    x: Literal["steps", "wall"] = "steps",
    title: str | None = None,
) -> None:
    """Draws runs together: a panel per environment, per name the mean and range over its seeds.

    Seeds that have no stretch in common are drawn each for itself.

    Args:
        run_dirs: Run folders; those of one environment and name are seeds of one setting.
        out: Ends in .png, .svg or .pdf.
        x: Against transitions, or against training time.
        title: Above all panels.

    Raises:
        ConfigError: `out` or `x` is something else, or there are no runs.
        FileError: A run cannot be read, none has finished an episode, or the picture cannot be
            written.
    """
    from matplotlib.figure import Figure

    target = check_picture_path(out)
    if x not in ("steps", "wall"):
        raise ConfigError(f"x must be steps or wall, but is {x!r}.")
    if not run_dirs:
        raise ConfigError("run_dirs must name at least one run folder, but is empty.")
    curves = [read_curve(run) for run in run_dirs]
    if not any(len(curve.returns) for curve in curves):
        raise FileError(
            "at least one run must have finished an episode, but none has.",
            hint="wait until the first episodes have ended.",
        )
    envs = list(dict.fromkeys(curve.env for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    columns = 2 if len(envs) == 4 else min(len(envs), 3)
    rows = -(-len(envs) // columns)
    width = 8.0 if columns == 1 else 5.2
    figure = Figure(figsize=(width * columns, 5 * rows), dpi=120, layout="constrained")
    lines = 0
    for i, env in enumerate(envs):
        axes = figure.add_subplot(rows, columns, i + 1)
        drawn = _draw_settings(axes, [c for c in curves if c.env == env], names, x, width)
        lines = max(lines, drawn)
        axes.set_title(plain(env), loc="left")
    # a long legend makes the picture higher, and no panel lower
    figure.set_figheight(rows * (5 + INCHES_PER_LINE * max(lines - FEW_LINES, 0)))
    if title is not None:
        letters = int(width * columns * _LETTERS_PER_INCH)
        figure.suptitle("\n".join(textwrap.wrap(plain(title), letters)))
    save_figure(figure, target)


def _draw_returns(axes: Axes, curve: Curve) -> None:
    """Draws the main panel of one run."""
    window = _window([curve])
    mean = rolling_mean(curve.returns, window)
    evaluations = [
        ("eval/return_stochastic", "evaluation, sampled actions", 8, "none"),
        ("eval/return_deterministic", "evaluation, most likely action", 5, COLOURS[1]),
    ]
    marks = [curve.measured(path)[1] for path, *_ in evaluations]
    low, high = _limits(curve.returns, [mean[window - 1 :], *marks])
    outside = int(((curve.returns < low) | (curve.returns > high)).sum())
    label = "training episode" + (f" ({outside} outside the picture)" if outside else "")
    alpha = min(0.8, max(0.15, 800 / max(len(curve.returns), 1)))
    axes.plot(
        curve.steps, curve.returns, ".", ms=3, mew=0, color="#777777", alpha=alpha, rasterized=True
    )
    axes.plot([], [], ".", ms=5, mew=0, color="#777777", label=label)
    axes.plot(curve.steps, mean, color=COLOURS[0], lw=2, label=f"mean of last {window} episodes")
    for path, text, size, face in evaluations:
        steps, values = curve.measured(path)
        if len(values):
            axes.plot(steps, values, "o", ms=size, mfc=face, mec=COLOURS[1], label=text)
    axes.set_ylim(low, high)
    ends = [*curve.steps[-1:], *curve.metrics.get("step", [])[-1:]]
    axes.set_xlim(0, 1.02 * max([10.0, *ends]))
    if not len(curve.returns):
        _note(axes, "no episode has ended yet")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("episode return (raw reward)")
    dress(axes)
    plain_numbers(axes)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, frameon=False, fontsize=9, borderpad=0
    )


def _draw_metric(axes: Axes, curve: Curve, path: str, label: str) -> None:
    """Draws a small panel of one metric over the iterations."""
    steps, values = curve.measured(path)
    if len(values):
        axes.plot(steps, values, color=COLOURS[2], lw=1.2)
    else:
        _note(axes, "not measured")
    if path == "value/explained_variance" and len(values):
        axes.axhline(1, color="#999999", lw=0.8, ls=":")
        axes.set_ylim(max(-1.0, min(0.0, float(values.min()))) - 0.1, 1.1)
    axes.set_title(label, loc="left", fontsize=9)
    axes.tick_params(labelsize=8)
    dress(axes)
    plain_numbers(axes)


def _draw_settings(axes: Axes, curves: list[Curve], names: list[str], x: str, width: float) -> int:
    """Draws a panel of `plot_runs`, `width` inches wide: all runs of one environment.

    Returns:
        How many lines its legend has.
    """
    window = _window(curves)
    seconds, unit = time_unit(max((c.wall_seconds[-1] for c in curves if len(c.steps)), default=0))
    has_band = False
    for name in dict.fromkeys(curve.name for curve in curves):
        group = [c for c in curves if c.name == name]
        going = [c for c in group if len(c.returns)]
        number = names.index(name)
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        color = COLOURS[number % len(COLOURS)]
        label = plain(_setting(name, group, going))
        if not going:
            axes.plot([], [], color=color, ls=style, label=label)
            continue
        lines = [
            (c.steps if x == "steps" else c.wall_seconds / seconds, rolling_mean(c.returns, window))
            for c in going
        ]
        band = aggregate(lines)
        if band is None:  # no stretch in common, as of runs that have just begun
            for i, (places, returns) in enumerate(lines):
                text = "" if i else f"{label}, each a line"
                axes.plot(places, returns, color=color, ls=style, lw=1.2, label=text)
            continue
        marker = "o" if band.x[0] == band.x[-1] else None  # a point alone is no line
        axes.plot(band.x, band.mean, color=color, ls=style, lw=1.8, marker=marker, label=label)
        if len(going) > 1:
            has_band = True
            axes.fill_between(band.x, band.low, band.high, color=color, alpha=0.18, lw=0)
    axes.set_xlabel("environment steps" if x == "steps" else f"training time ({unit})")
    axes.set_ylabel(f"return, mean of last {window} episodes")
    axes.set_xlim(left=0)
    if not any(len(c.returns) for c in curves):
        axes.set_xlim(0, 10)
        _note(axes, "no episode has ended yet")
    dress(axes, engineering=x == "steps")
    plain_numbers(axes)
    title = "line: mean over seeds, band: lowest to highest seed" if has_band else None
    return _legend_below(axes, width, title)


def _legend_below(axes: Axes, width: float, title: str | None) -> int:
    """Puts the legend under a panel `width` inches wide, in columns that do not squeeze it.

    Returns:
        How many lines it has.
    """
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.5 + 0.08 * max(map(len, labels))  # inches, at this size of letters
    columns = max(1, min(3, len(labels), int(width / widest)))
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=columns,
        frameon=False,
        fontsize=9,
        title=title,
        title_fontsize=9,
    )
    return -(-len(labels) // columns) + (title is not None)


def _setting(name: str, group: list[Curve], going: list[Curve]) -> str:
    """Returns the legend of the runs of one name."""
    waiting = len(group) - len(going)
    name = name if len(name) <= 40 else f"{name[:25]}…{name[-14:]}"
    if len(group) == 1:
        text = f"{name} (seed {group[0].seed}"
    else:
        kind = "seeds" if len({c.seed for c in group}) == len(group) else "runs"
        text = f"{name} ({len(going)} {kind}"
    return text + (f"; {waiting} without episodes)" if waiting else ")")


def dress(axes: Axes, *, engineering: bool = True) -> None:
    """Gives a panel its grid and leaves out the frame; `engineering` writes x as 200k and 1.5M."""
    from matplotlib.ticker import EngFormatter

    if engineering:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1.5M
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plain_numbers(axes: Axes) -> None:
    """Writes every number of the y axis in full: a factor of all would stand where the legend is."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#777777", transform=axes.transAxes)


def _limits(returns: Array, shown: list[Array]) -> tuple[float, float]:
    """Returns an axis range with all that must be seen and all but the most extreme episodes."""
    finite = returns[np.isfinite(returns)]
    bulk = np.quantile(finite, (0.01, 0.99)) if len(finite) else np.zeros(0)
    values = np.concatenate([bulk, *shown])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def _window(curves: Sequence[Curve]) -> int:
    """Returns how many episodes to average: about a tenth of a run's, 10 to 100."""
    counts = [len(curve.returns) for curve in curves if len(curve.returns)]
    return int(np.clip(10 * round(np.median(counts) / 100), 10, 100)) if counts else 100


def time_unit(longest: float) -> tuple[float, str]:
    """Returns the seconds in a unit that suits the longest time, and the unit's sign."""
    if longest < 180:
        return 1.0, "s"
    return (60.0, "min") if longest < 3 * 3600 else (3600.0, "h")


def plain(text: str) -> str:
    """Returns text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, target: Path) -> None:
    """Writes a picture so that a reader sees the old or the new file, never a part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=target.suffix.lower()[1:])
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"{target} must be writable, but {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
