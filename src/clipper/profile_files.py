"""Where the time of a run went in, a table and a picture of it in its folder out."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from clipper.errors import FileError
from clipper.plotting import plain, save_figure
from clipper.profiling import PARTS, RunProfile

COLUMNS = ("part", "seconds", "share", "microseconds_per_step")
# of Okabe and Ito's palette: collecting blue, learning orange, keeping green
_GROUPS = (
    ("collecting", "#0072B2", ("start", "env", "act", "store", "workers")),
    ("learning", "#D55E00", ("estimate", "improve")),
    ("keeping", "#009E73", ("log", "evaluate", "save")),
    ("left over", "#999999", ("other",)),
)


def write_profile(profile: RunProfile, folder: Path, title: str) -> None:
    """Writes `profile.csv` and `profile.png`.

    Raises:
        FileError: They cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, seconds in [*profile.seconds.items(), ("whole", profile.whole_seconds)]:
        share, per_step = profile.share(seconds), profile.microseconds_per_step(seconds)
        writer.writerow([name, f"{seconds:.6f}", f"{share:.6f}", f"{per_step:.4f}"])
    target = folder / "profile.csv"
    temporary = folder / f".profile.csv.tmp-{os.getpid()}"
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{target} must be writable, but {error.strerror or error}.") from error
    draw_profile(profile, folder / "profile.png", title)


def draw_profile(profile: RunProfile, target: Path, title: str) -> None:
    """Draws a bar for every part that took time, in the order of the table.

    Raises:
        FileError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    names = [name for name, seconds in profile.seconds.items() if seconds > 0]
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(names)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for label, colour, members in _GROUPS:
        rows = [name for name in names if name in members]
        shares = [100 * profile.share(profile.seconds[name]) for name in rows]
        axes.barh([names.index(name) for name in rows], shares, color=colour, label=label)
    for row, name in enumerate(names):
        seconds = profile.seconds[name]
        per_step = profile.microseconds_per_step(seconds)
        share = 100 * profile.share(seconds)
        text = f"{share:.1f} %   {_seconds(seconds)}   {per_step:.3g} µs a step"
        axes.annotate(
            text, (share, row), (5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(names)), [f"{name}: {PARTS[name]}" for name in names])
    axes.invert_yaxis()
    # room for the numbers beside the longest bar
    longest = max(100 * profile.share(profile.seconds[name]) for name in names)
    axes.set_xlim(0, 1.5 * longest)
    axes.set_xlabel("share of the time (%)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=9, borderpad=0
    )
    whole = profile.whole_seconds
    per_step = profile.microseconds_per_step(whole)
    text = f"{title} · {_seconds(whole)} for {profile.num_steps:,} steps, {per_step:,.3g} µs a step"
    figure.suptitle(plain(text), x=0.01, ha="left")
    save_figure(figure, target)


def _seconds(seconds: float) -> str:
    """Returns seconds in a unit that suits them."""
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
