"""Finished runs in, rows of two CSV files out and back: one row per run, and its learning curve.

`results.csv` decides: a run whose row stands there is finished. Its curve is written before it, so
that a kill between the two leaves a curve without a row, which is dropped when the files are next
opened for writing, and never a row without a curve.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipper.agent_meta import is_plain
from clipper.checkpoint import check_format, dump_json, read_json, write_atomically
from clipper.errors import FileError
from clipper.experiments.rows import COLUMNS, CURVE_COLUMNS, CurvePoint, Row

RESULTS = "results.csv"
CURVES = "curves.csv"
SETTINGS = "sweep.json"
LOGS = "logs"
_RESULT = "result.json"
# a setting on a task has one or two thousand bytes
_MAX_SETTINGS_BYTES = 16 << 20


def read_rows(file: str | Path) -> list[Row]:
    """Returns the rows of a results file in its order; a last line cut by a kill is left out.

    Raises:
        FileError: It cannot be read, is no results file, or has a run twice.
    """
    path = Path(file)
    header, lines = _read_table(path)
    missing = [name for name in COLUMNS if name not in header]
    if header and missing:
        raise FileError(
            f"{path} must be the results of a sweep, but has no column {missing[0]}.",
            hint="`clipper sweep` writes them; compare takes run folders and sweep folders too.",
        )
    rows: dict[tuple[str, str, int], Row] = {}
    for number, cells in lines:
        try:
            row = Row.from_cells(dict(zip(header, cells, strict=True)))
        except ValueError as error:
            raise _bad_line(path, number, cells) from error
        if row.key in rows:
            raise FileError(
                f"{path} must have every run once, but line {number} has {row.setting}, {row.env}, "
                f"seed {row.seed} a second time.",
                hint="delete the line that does not count.",
            )
        rows[row.key] = row
    return list(rows.values())


def read_curve_points(file: str | Path) -> list[CurvePoint]:
    """Returns the points of a file of learning curves; [] if there is no such file.

    Raises:
        FileError: It cannot be read or is something else.
    """
    path = Path(file)
    if not path.exists():
        return []
    header, lines = _read_table(path)
    if header and tuple(header) != CURVE_COLUMNS:
        raise FileError(f"{path} must have the columns {', '.join(CURVE_COLUMNS)}, but has others.")
    points = []
    for number, cells in lines:
        try:
            points.append(CurvePoint.from_cells(cells))
        except ValueError as error:
            raise _bad_line(path, number, cells) from error
    return points


def _bad_line(path: Path, number: int, cells: Sequence[str]) -> FileError:
    return FileError(
        f"{path} must have a finished run in every line, but line {number} is "
        f"{','.join(cells)[:80]!r}.",
        hint="restore the file or delete the line.",
    )


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the columns and the complete lines with their numbers."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise FileError(f"{path} must be text, but is not UTF-8.") from None
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    whole = text[: text.rfind("\n") + 1]
    try:
        rows = list(csv.reader(whole.splitlines()))
    except csv.Error as error:
        raise FileError(f"{path} must be a CSV file, but {error}.") from None
    return (rows[0] if rows else []), list(enumerate(rows[1:], start=2))


def write_result(folder: Path, row: Row, curve: Iterable[CurvePoint]) -> None:
    """Writes what is kept of a finished run into its run folder.

    Raises:
        FileError: It cannot be written.
    """
    data = {"row": row.cells(), "curve": [point.cells() for point in curve]}
    write_atomically(folder / _RESULT, dump_json(data).encode())


def read_result(folder: Path) -> tuple[Row, list[CurvePoint]] | None:
    """Returns what `write_result` wrote, or None if the run of that folder has not finished.

    Raises:
        FileError: The file is damaged.
    """
    file = folder / _RESULT
    if not file.exists():
        return None
    data = read_json(file)
    try:
        row = Row.from_cells(dict(zip(COLUMNS, data["row"], strict=True)))
        return row, [CurvePoint.from_cells(cells) for cells in data["curve"]]
    except (KeyError, ValueError, TypeError):
        raise FileError(
            f"{file} must be the result of a run, but is not.", hint="remove it; the run is kept."
        ) from None


def described_settings(file: Path) -> list[dict[str, Any]]:
    """Returns the settings that a sweep's `sweep.json` describes, in their order; [] without the file.

    Raises:
        FormatError: It is of a newer format.
        FileError: It is damaged.
    """
    if not file.exists():
        return []
    data = read_json(file, _MAX_SETTINGS_BYTES)
    check_format(data, str(file))
    entries = data.get("settings")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("config"), dict)
        and is_plain(entry.get("setting"))
        and is_plain(entry.get("env"))
        for entry in entries
    ):
        raise FileError(
            f"{file} must describe the settings of a sweep, but does not.",
            hint="restore it, or remove it: the rows stay, and it is written for the runs asked for.",
        )
    return entries


class ResultsFiles:
    """The two files of a sweep's folder, open for writing by one process.

    Args:
        folder: Where they are, or will be.

    Raises:
        FileError: A file is damaged or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._results, self._curves = folder / RESULTS, folder / CURVES
        self.rows: dict[tuple[str, str, int], Row] = {}
        if self._results.exists():
            self.rows = {row.key: row for row in read_rows(self._results)}
            _cut_last_line(self._results)
        if self._curves.exists():
            points = read_curve_points(self._curves)
            kept = [point for point in points if point.key in self.rows]
            _cut_last_line(self._curves)
            if len(kept) < len(points):
                lines = _lines([CURVE_COLUMNS, *(point.cells() for point in kept)])
                write_atomically(self._curves, lines.encode())

    def add(self, row: Row, curve: Iterable[CurvePoint]) -> None:
        """Appends a finished run; when this returns, the row is on the disk.

        Raises:
            FileError: The disk is full or a file cannot be written.
        """
        _append(self._curves, CURVE_COLUMNS, (point.cells() for point in curve))
        _append(self._results, COLUMNS, [row.cells()])
        self.rows[row.key] = row


def _lines(rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _append(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Appends rows in one write and waits until they are on the disk."""
    try:
        with open(path, "ab") as file:
            head = [] if file.tell() else [columns]
            file.write(_lines([*head, *rows]).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(f"{path} must be writable, but {error.strerror or error}.") from error


def _cut_last_line(path: Path) -> None:
    """Cuts off a line that a kill left without its end, which would run into the next row."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        write_atomically(path, content[:whole])
