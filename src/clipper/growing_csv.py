"""Rows in, a CSV file out: whole rows or none, and new columns when new names come."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipper.checkpoint import write_atomically
from clipper.errors import FileError
from clipper.files import file_error, lines_of, write_all

_MEND = (
    "its first line is damaged: mend it, or move the file away; the run goes on without its rows."
)


class GrowingCsv:
    """A CSV file whose columns may grow: a new name makes it be written anew with that column.

    Rows wait in memory until `flush`, which writes all of them or, if it fails, none.

    Args:
        path: The file; if it is there its rows are kept.
        columns: Those it begins with.
        needed: Those that a file which is there must have.

    Raises:
        FileError: The file cannot be opened, or its header is damaged.
    """

    def __init__(self, path: Path, columns: Sequence[str] = (), needed: Sequence[str] = ()) -> None:
        self._path = path
        self._columns = list(columns)
        self._waiting: list[Mapping[str, Any]] = []
        self._num_written = 0
        if path.exists():
            rows = self._read()
            if rows:
                self._check_header(rows[0], needed)
                self._columns = list(rows[0])
            self._num_written = max(len(rows) - 1, 0)
            if rows and not self._ends_whole(rows):
                write_atomically(path, _csv_text(rows))
        self._open()
        if not self._num_written and self._columns and path.stat().st_size == 0:
            try:
                self._write(_csv_text([self._columns]))
            except BaseException:
                self.close()
                raise

    @property
    def num_rows(self) -> int:
        """Rows below the header, those that wait included."""
        return self._num_written + len(self._waiting)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which `flush` writes."""
        self._waiting.append(row)

    def cut_back(self, num_rows: int) -> str | None:
        """Drops all rows but the first so many; returns what is wrong if there are fewer."""
        self.flush()
        if num_rows < self._num_written:
            self._replace(self._columns, self._read()[1 : num_rows + 1])
        if num_rows > self._num_written:
            return f"{self._path.name} held {self._num_written} of the run's {num_rows} rows"
        return None

    def flush(self) -> None:
        """Writes the rows that wait.

        Raises:
            FileError: The file cannot be written; the rows go on waiting and it is as it was.
        """
        names = dict.fromkeys([*self._columns, *(name for row in self._waiting for name in row)])
        columns = list(names)
        rows = [[row.get(name, "") for name in columns] for row in self._waiting]
        if columns != self._columns:
            width = len(columns) - len(self._columns)
            old = [row + [""] * width for row in self._read()[1:]]
            self._replace(columns, [*old, *rows])
        elif rows:
            self._write(_csv_text(rows))
            self._num_written += len(rows)
            self._waiting.clear()

    def sync(self) -> None:
        """Waits until every row is on the disk."""
        self.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _open(self) -> None:
        self._torn_at: int | None = None
        try:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def _write(self, content: bytes) -> None:
        """Appends to the file; what was written of it before a failure is cut off again."""
        file = self._file.fileno()
        try:
            if self._torn_at is not None:
                os.ftruncate(file, self._torn_at)
            self._torn_at = os.fstat(file).st_size
            try:
                write_all(file, content)
            except OSError:
                os.ftruncate(file, self._torn_at)  # if it is refused too, the next write does it
                self._torn_at = None
                raise
            self._torn_at = None
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def _read(self) -> list[list[str]]:
        if not self._path.exists():
            return []
        # a power cut can leave bytes at the end that are no text
        lines = (line.decode(errors="replace") for line in lines_of(self._path))
        try:
            rows = list(csv.reader(lines))
        except csv.Error as error:
            raise FileError(f"{self._path} must be a CSV file, but {error}.") from error
        # a line cut off by a kill has too few cells, and the checkpoint does not count it
        whole = [row for row in rows if len(row) == len(rows[0])]
        if len(whole) == 1 and len(rows) > 2:
            raise FileError(
                f"{self._path} must have as many columns as its rows have cells, but has "
                f"{len(rows[0])}, and {len(rows[1])} cells below.",
                hint=_MEND,
            )
        return whole

    def _check_header(self, header: Sequence[str], needed: Sequence[str]) -> None:
        """Raises if the header is not one that was written here: rows must not be lost by it."""
        missing = [name for name in needed if name not in header]
        if missing:
            raise FileError(
                f"{self._path} must have the column {missing[0]}, but has not.", hint=_MEND
            )

    def _ends_whole(self, rows: list[list[str]]) -> bool:
        """True unless a kill cut the last line, which would run into the next row."""
        count, is_whole = 0, False
        for line in lines_of(self._path):
            count, is_whole = count + 1, line.endswith(b"\n")
        return is_whole and count == len(rows)

    def _replace(self, columns: list[str], body: Sequence[Sequence[Any]]) -> None:
        """Writes the file anew; all rows that wait must be among these."""
        write_atomically(self._path, _csv_text([columns, *body]))
        self.close()
        self._columns = columns
        self._num_written = len(body)
        self._waiting.clear()
        self._open()


def _csv_text(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
