"""A comparison in, a folder of its tables, pictures and page out; the whole folder or nothing."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

from clipper.errors import FileError
from clipper.experiments.comparison import Comparison
from clipper.experiments.figures import draw_curves, draw_improvement, draw_profiles, draw_scores
from clipper.experiments.page import Preface, page_of
from clipper.experiments.tables import pairs_csv, summary_csv

PAGE = "report.html"
_PICTURES = ("scores.png", "curves_steps.png", "curves_time.png", "profiles.png", "improvement.png")
_OURS = (PAGE, "summary.csv", "pairs.csv", *_PICTURES)


def write_report(
    comparison: Comparison, folder: str | Path, title: str, preface: Preface | None = None
) -> list[Path]:
    """Writes `report.html`, PNG and CSV files into a folder and returns their paths.

    An older report in the folder is replaced when the new one is complete on the disk.

    Args:
        comparison: What is reported.
        folder: Where; a new folder, an empty one, or one of an older report.
        title: Heading of the page.
        preface: What stands on the page before the comparison, or None.

    Raises:
        FileError: The folder holds something else, or cannot be written.
    """
    target = Path(folder).resolve()  # "." has no name beside which to write
    _tidy(target)
    _check_replaceable(target)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        pictures = _pictures(comparison)
        for name, (_, content) in pictures.items():
            (temporary / name).write_bytes(content)
        (temporary / "summary.csv").write_text(summary_csv(comparison), encoding="utf-8")
        if comparison.pairs:
            (temporary / "pairs.csv").write_text(pairs_csv(comparison), encoding="utf-8")
        page = page_of(comparison, pictures, title, preface)
        (temporary / PAGE).write_text(page, encoding="utf-8")
        if target == Path.cwd():
            _move_into(temporary, target)
        else:
            if target.exists():
                os.rename(target, old)
            os.rename(temporary, target)
    except OSError as error:
        raise FileError(f"{target} must be writable, but {error.strerror or error}.") from error
    finally:
        _tidy(target)
    return sorted(Path(folder).iterdir(), key=lambda path: (path.name != PAGE, path.name))


def _move_into(temporary: Path, target: Path) -> None:
    """Puts a report's files into the working directory, which must not be renamed under the user.

    The page, which needs no other file, comes first: it is whole at any moment.
    """
    os.replace(temporary / PAGE, target / PAGE)
    for name in _OURS[1:]:
        if (temporary / name).exists():
            os.replace(temporary / name, target / name)
        else:
            (target / name).unlink(missing_ok=True)


def _tidy(target: Path) -> None:
    """Removes what a report that was killed left, and gives an older one its name back."""
    for old in target.parent.glob(f".{target.name}.old-*"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.rename(old, target)
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _check_replaceable(target: Path) -> None:
    """Raises unless a folder is new, empty or holds a report alone, for all in it is replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise FileError(f"{target} must be a folder, but is a file.", hint="choose another --out.")
    names = sorted(path.name for path in target.iterdir())
    others = names if PAGE not in names else [name for name in names if name not in _OURS]
    if others:
        raise FileError(
            f"{target} must be a new folder or that of a report, but holds {others[0]}.",
            hint="choose another --out.",
        )


def _pictures(comparison: Comparison) -> dict[str, tuple[str, bytes]]:
    """Returns the PNG files by name, each with what it shows."""
    drawn = [
        ("Scores", draw_scores(comparison)),
        ("Learning curves against steps", draw_curves(comparison, "steps")),
        ("Learning curves against training time", draw_curves(comparison, "wall")),
        ("Performance profiles", draw_profiles(comparison)),
        (
            "Probability of improvement",
            draw_improvement(comparison) if comparison.pairs else None,
        ),
    ]
    found = {}
    for name, (text, figure) in zip(_PICTURES, drawn, strict=True):
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            found[name] = (text, buffer.getvalue())
    return found
