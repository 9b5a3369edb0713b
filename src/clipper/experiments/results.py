"""Finished runs in, rows of two CSV files out and back: one row per run, and its learning curve.

`results.csv` decides: a run whose row stands there is finished. Its curve is written before it, so
that a kill between the two leaves a curve without a row, which is dropped when the files are next
opened for writing, and never a row without a curve.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clipper.checkpoint import dump_json, parse_json, write_atomically
from clipper.errors import FileError

RESULTS = "results.csv"
CURVES = "curves.csv"
CURVE_POINTS = 100
_RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is kept of a finished run.

    Attributes:
        setting: Name of the setting.
        env: Name of the environment.
        seed: The run's seed.
        algo: Name of the algorithm.
        score: Mean return of the last 100 training episodes, NaN if none ended.
        score_all: Mean return of all training episodes, NaN if none ended.
        episodes: Training episodes that ended.
        eval_mean: Mean return of the final evaluation, NaN without one.
        eval_episodes: Its episodes, 0 without one.
        steps: Transitions trained on.
        wall_seconds: Training time.
        cpu_seconds: CPU time of all threads, start of the run and final evaluation included.
        config_hash: Hash of all that decides what is learnt, but for the seed.
        parameters_sha256: SHA-256 of the last policy's parameters.
        engine: What computed, as `native avx2`.
        exact: False if the run was resumed in a way that changes bits.
        version: Version of Clipper.
        commit: Git commit of the working directory, with `+` if it had changes; may be empty.
    """

    setting: str
    env: str
    seed: int
    algo: str
    score: float
    score_all: float
    episodes: int
    eval_mean: float
    eval_episodes: int
    steps: int
    wall_seconds: float
    cpu_seconds: float
    config_hash: str
    parameters_sha256: str
    engine: str
    exact: bool
    version: str
    commit: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells runs of a sweep apart."""
        return self.setting, self.env, self.seed

    def cells(self) -> list[str]:
        """Returns the row as cells of a CSV file; NaN is an empty one, floats are exact."""
        return [_cell(getattr(self, name)) for name in COLUMNS]

    @classmethod
    def from_cells(cls, cells: typing.Mapping[str, str]) -> Self:
        """Returns the row that `cells` wrote.

        Raises:
            ValueError: A cell is not what it must be.
            KeyError: A column is missing.
        """
        return cls(**{name: _read(kind, cells[name]) for name, kind in _KINDS.items()})


_KINDS = typing.get_type_hints(Row)
COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A point of a finished run's learning curve.

    Attributes:
        setting: Name of the setting.
        env: Name of the environment.
        seed: The run's seed.
        step: Transitions.
        wall_seconds: Training time.
        mean_return: Mean return of the last 100 training episodes there, or of as many as had ended.
    """

    setting: str
    env: str
    seed: int
    step: int
    wall_seconds: float
    mean_return: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells runs of a sweep apart."""
        return self.setting, self.env, self.seed


CURVE_COLUMNS = tuple(field.name for field in dataclasses.fields(CurvePoint))
_CURVE_KINDS = typing.get_type_hints(CurvePoint)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def _read(kind: type[Any], cell: str) -> Any:
    if kind is bool:
        if cell not in ("true", "false"):
            raise ValueError(cell)
        return cell == "true"
    if kind is float:
        return float(cell) if cell else math.nan
    return kind(cell)


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
            points.append(_point(cells))
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
    rows = list(csv.reader(whole.splitlines()))
    return (rows[0] if rows else []), list(enumerate(rows[1:], start=2))


def write_result(folder: Path, row: Row, curve: Iterable[CurvePoint]) -> None:
    """Writes what is kept of a finished run into its run folder.

    Raises:
        FileError: It cannot be written.
    """
    data = {"row": row.cells(), "curve": [_point_cells(point) for point in curve]}
    write_atomically(folder / _RESULT, dump_json(data).encode())


def read_result(folder: Path) -> tuple[Row, list[CurvePoint]] | None:
    """Returns what `write_result` wrote, or None if the run of that folder has not finished.

    Raises:
        FileError: The file is damaged.
    """
    file = folder / _RESULT
    if not file.exists():
        return None
    data = parse_json(file.read_text(encoding="utf-8"), str(file))
    try:
        row = Row.from_cells(dict(zip(COLUMNS, data["row"], strict=True)))
        return row, [_point(cells) for cells in data["curve"]]
    except (KeyError, ValueError, TypeError):
        raise FileError(
            f"{file} must be the result of a run, but is not.", hint="remove it; the run is kept."
        ) from None


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
                lines = _lines([CURVE_COLUMNS, *map(_point_cells, kept)])
                write_atomically(self._curves, lines.encode())

    def add(self, row: Row, curve: Iterable[CurvePoint]) -> None:
        """Appends a finished run; when this returns, the row is on the disk.

        Raises:
            FileError: The disk is full or a file cannot be written.
        """
        _append(self._curves, CURVE_COLUMNS, map(_point_cells, curve))
        _append(self._results, COLUMNS, [row.cells()])
        self.rows[row.key] = row


def _point(cells: Sequence[str]) -> CurvePoint:
    kinds = _CURVE_KINDS.items()
    return CurvePoint(
        **{name: _read(kind, cell) for (name, kind), cell in zip(kinds, cells, strict=True)}
    )


def _point_cells(point: CurvePoint) -> list[str]:
    return [_cell(getattr(point, name)) for name in CURVE_COLUMNS]


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
