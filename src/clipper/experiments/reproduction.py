"""What a study of the paper came to in; its table, picture, page and remarks out, in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipper.checkpoint import write_atomically
from clipper.experiments.comparison import Comparison
from clipper.experiments.page import Preface
from clipper.experiments.report import PAGE, write_report
from clipper.experiments.tables import Table
from clipper.plotting import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_AS_PRINTED = "Not as in the paper"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A table or figure of the paper, made of our runs.

    Attributes:
        title: Heading of the page.
        table: Ours beside the printed numbers.
        lines: What is to be said of it.
        csv: The table with all its digits.
        picture: Name of the PNG file.
        caption: What it shows.
        figure: The picture.
        comparison: All that can be said of the runs.
        notes: What a reader has to know of the runs.
        remarks: What is not as in the paper.
    """

    title: str
    table: Table
    lines: Sequence[str]
    csv: str
    picture: str
    caption: str
    figure: Figure
    comparison: Comparison
    notes: Sequence[str]
    remarks: Sequence[str]


def write_reproduction(found: Reproduction, folder: Path) -> list[Path]:
    """Writes `table.csv`, the picture and the page `report/report.html`, and returns their paths.

    Args:
        found: What is written.
        folder: The study's.

    Raises:
        FileError: A file cannot be written.
    """
    table, picture, report = folder / "table.csv", folder / found.picture, folder / "report"
    write_atomically(table, found.csv.encode())
    save_figure(found.figure, picture)
    preface = Preface(
        table=found.table,
        picture=(found.picture, found.caption, picture.read_bytes()),
        heading=NOT_AS_PRINTED,
        remarks=found.remarks,
    )
    write_report(found.comparison, report, found.title, preface)
    return [table, picture, report / PAGE]
