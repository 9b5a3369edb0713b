"""The numbers that are printed in the PPO paper, from the files in `reference/`, each with its source.

`table1.csv`, `table2.csv`, `table6.csv` and `settings.csv` are the paper's tables; `figure3.csv` are
readings of its Figure 3 by others; `environments.csv` is what has changed since in the tasks.
"""

from __future__ import annotations

import csv
import io
from importlib import resources


def printed_rows(name: str) -> list[dict[str, str]]:
    """Returns the rows of a file of printed numbers, by the name of the column.

    Args:
        name: The file's, as `table1.csv`; the columns paper, table and url say where a row is from.
    """
    file = resources.files("clipper.experiments").joinpath("reference", name)
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def printed_table1() -> dict[str, float]:
    """Returns the average normalised score of every setting in Table 1."""
    return {row["setting"]: float(row["score"]) for row in printed_rows("table1.csv")}
