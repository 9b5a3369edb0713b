"""Writes the tables between their marks in the READMEs, and the bar chart."""

from __future__ import annotations

from pathlib import Path

import report
from store import Results
from works import ROWS

HERE = Path(__file__).resolve().parent
CHART = HERE / "speed.png"
TOP_README = HERE.parents[1] / "README.md"
IN_TOP_README = ("training", "cores")
COLOURS = {
    "clipper": "#c2410c",
    "sb3": "#64748b",
    "sbx": "#94a3b8",
    "tianshou": "#cbd5e1",
}


def write(results: Results) -> None:
    """Writes both tables and the chart."""
    origin = report.provenance(results)
    short = {name: by for name, by in results.items() if ROWS[name].kind in IN_TOP_README}
    picture = ""
    if draw(results, CHART):
        where = CHART.relative_to(TOP_README.parent).as_posix()
        picture = f"\n\n![Training speed beside the environments alone]({where})"
    put_between(TOP_README, f"{report.markdown(short, is_wide=False)}{picture}\n\n{origin}")
    put_between(HERE / "README.md", f"{report.markdown(results)}\n\n{origin}")


def put_between(path: Path, text: str, name: str = "speed") -> None:
    """Replaces what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->` in a file."""
    before, start, rest = path.read_text(encoding="utf-8").partition(f"<!-- {name}:")
    how, arrow, rest = rest.partition("-->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not (start and arrow and end):
        raise SystemExit(f"{path} has no marks for the table of {name}")
    path.write_text(f"{before}{start}{how}{arrow}{text}\n{end}{after}", encoding="utf-8")


def draw(results: Results, path: Path) -> bool:
    """Draws what each library leaves of the speed of the environments alone, if that was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in ROWS if "alone" in results.get(name, {})]
    if not names:
        return False
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 1.15 * len(names)), layout="constrained")
    height = 0.8 / len(COLOURS)
    for place, name in enumerate(names):
        entries = results[name]
        alone = report.median(entries["alone"])
        for i, (library, colour) in enumerate(COLOURS.items()):
            if library not in entries:
                continue
            speed, y = report.median(entries[library]), place + (i - 1.5) * height
            axes.barh(y, speed / alone, 0.9 * height, color=colour)
            words = f" {report.NAMES[library]} {report.figure(speed)}"
            label = axes.text(speed / alone, y, words, va="center", fontsize=8)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set_yticks(range(len(names)), [ROWS[name].title.replace(", ", "\n", 1) for name in names])
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1: env alone"])
    axes.set_xlabel("share of the environments' own speed left in training; steps/s, one core")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return True
