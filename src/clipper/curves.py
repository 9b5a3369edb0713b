"""Run folders in, the numbers of their learning curves out."""

from __future__ import annotations

import csv
import math
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.agent_meta import is_plain
from clipper.errors import FileError
from clipper.files import MAX_JSON_BYTES, lines_of, parse_json, read_plain, refuse_links

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a run folder's CSV files say; E finished training episodes, I iterations.

    Attributes:
        env: Name of the environment.
        name: Name of the run, the same for all seeds of one setting.
        seed: The run's seed.
        steps: Transitions over all environments when an episode ended, [E], ascending.
        wall_seconds: Training time when its iteration ended, in seconds, [E].
        returns: Its return, raw rewards, [E].
        metrics: Columns of `metrics.csv` by path, [I] each, NaN where not measured.
    """

    env: str
    name: str
    seed: int
    steps: Array
    wall_seconds: Array
    returns: Array
    metrics: Mapping[str, Array]

    def measured(self, path: str) -> tuple[Array, Array]:
        """Returns the steps at which a metric was measured, and its values there."""
        values = self.metrics.get(path, np.zeros(0))
        known = np.isfinite(values)
        steps = self.metrics.get("step", np.full(len(values), np.nan))
        return steps[known], values[known]


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean and range of several curves on one grid; all arrays have the grid's length."""

    x: Array
    mean: Array
    low: Array
    high: Array


def find_runs(path: str | Path) -> list[Path]:
    """Returns the run folders at or below a path, in the order a person would list them.

    Raises:
        FileError: There is none.
    """
    top = Path(path)
    runs = []
    for folder, below, files in os.walk(top):
        if "config.json" in files and "episodes.csv" in files:
            runs.append(Path(folder))
            below.clear()  # a run folder holds no other runs
    if not runs:
        found = "is no folder" if not os.path.isdir(top) else "has none at or below it"
        raise FileError(
            f"{top} must be a run folder or hold some, but {found}.",
            hint="a run folder has config.json and episodes.csv; `clipper train` makes one.",
        )
    return sorted(runs, key=lambda run: [_natural(part) for part in run.parts])


def read_curve(run_dir: str | Path) -> Curve:
    """Returns the episodes and metrics of a run, finished or still going.

    A last line that is not complete is left out, for the run may be writing it.

    Raises:
        FileError: A file is missing or is not what a run writes.
    """
    folder = Path(run_dir)
    if os.path.isdir(folder):
        refuse_links(folder)
    file = folder / "config.json"
    config = _read_config(file)
    env, name, seed = (config.get(key) for key in ("env", "name", "seed"))
    if not is_plain(env) or not is_plain(name) or type(seed) is not int:
        raise FileError(
            f"{file} must be a JSON object with env, name and seed, but is not.",
            hint="give the folder of a run of this version of Clipper.",
        )
    episodes = _read_columns(folder / "episodes.csv")
    needed = ("step", "wall_seconds", "episode_return")
    missing = [column for column in needed if column not in episodes]
    if episodes and missing:
        raise FileError(
            f"{folder / 'episodes.csv'} must have the columns {', '.join(needed)}, "
            f"but has no {', '.join(missing)}."
        )
    steps, wall_seconds, returns = (episodes.get(column, np.zeros(0)) for column in needed)
    order = np.argsort(steps, kind="stable")
    file = folder / "metrics.csv"
    metrics = _read_columns(file) if file.exists() else {}
    if metrics and ("step" not in metrics or np.isnan(metrics["step"]).any()):
        raise FileError(
            f"{file} must have the column step with a number in every row, but has not."
        )
    return Curve(
        env=env,
        name=name,
        seed=seed,
        steps=steps[order],
        wall_seconds=wall_seconds[order],
        returns=returns[order],
        metrics=metrics,
    )


def rolling_mean(values: Array, window: int) -> Array:
    """Returns at each place the mean of the last `window` values, or of as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def aggregate(curves: Sequence[tuple[Array, Array]], num_points: int = 400) -> Band | None:
    """Returns mean, minimum and maximum of curves (x, y) where all of them are known.

    Between its points a curve is taken as straight. None if there is no such place.

    Args:
        curves: x ascending and y, at least one point each; of equal x the last point counts.
        num_points: Points of the grid, evenly spaced.
    """
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if low > high:
        return None
    grid = np.linspace(low, high, num_points)
    rows = []
    for x, y in curves:
        last = np.append(x[1:] != x[:-1], True)
        rows.append(np.interp(grid, x[last], y[last]))
    table = np.stack(rows)
    return Band(x=grid, mean=table.mean(0), low=table.min(0), high=table.max(0))


def _natural(text: str) -> list[tuple[int, str]]:
    """Returns a key that sorts run2 before run10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"([0-9]+)", text)]


def _read_config(file: Path) -> dict[str, Any]:
    """Returns what a `config.json` holds.

    Raises:
        FileError: It cannot be read, is no text, or is no strict JSON.
    """
    try:
        text = read_plain(file, MAX_JSON_BYTES).decode()
    except UnicodeDecodeError:
        raise FileError(f"{file} must be text, but is not UTF-8.") from None
    try:
        return parse_json(text, str(file))
    except FileError:
        return {}  # said with what it must hold


def _read_columns(file: Path) -> dict[str, Array]:
    """Returns the columns of a CSV file of numbers, NaN for empty cells; {} for an empty file."""
    header: list[str] | None = None
    table = array("d")
    short: list[str] | None = None  # the last line, if a kill cut it off
    try:
        for number, row in enumerate(csv.reader(_whole_lines(file)), start=1):
            if header is None:
                header = row
                continue
            if short is not None:
                raise _bad_line(file, len(header), number - 1, short)
            if len(row) < len(header):
                short = row
                continue
            try:
                if len(row) != len(header):
                    raise ValueError
                table.extend([float(cell) if cell else math.nan for cell in row])
            except ValueError:
                raise _bad_line(file, len(header), number, row) from None
    except UnicodeDecodeError:
        raise FileError(f"{file} must be text, but is not UTF-8.") from None
    except csv.Error as error:
        raise FileError(f"{file} must be a CSV file, but {error}.") from None
    if not header:
        return {}
    columns = np.array(table).reshape(-1, len(header))
    return {column: columns[:, i] for i, column in enumerate(header)}


def _whole_lines(file: Path) -> Iterator[str]:
    """Yields the lines of a file but the last if it has no end: a run still going may be in it."""
    for line in lines_of(file):
        if line.endswith(b"\n"):
            yield line.decode()


def _bad_line(file: Path, num_columns: int, number: int, row: Sequence[str]) -> FileError:
    return FileError(
        f"{file} must have {num_columns} numbers in every line, "
        f"but line {number} is {','.join(row)[:80]!r}.",
        hint="restore the file or delete the line.",
    )
