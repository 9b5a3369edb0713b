"""What is kept of a finished run: a row, and a hundred points of its learning curve."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from clipper.curves import Curve, rolling_mean
from clipper.metrics import RecentEpisodes

CURVE_POINTS = 100


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

    def cells(self) -> list[str]:
        """Returns the point as cells of a CSV file, in the order of its columns."""
        return [_cell(getattr(self, name)) for name in CURVE_COLUMNS]

    @classmethod
    def from_cells(cls, cells: Sequence[str]) -> Self:
        """Returns the point that `cells` wrote.

        Raises:
            ValueError: A cell is not what it must be, or there are not as many as columns.
        """
        kinds = _CURVE_KINDS.items()
        return cls(
            **{name: _read(kind, cell) for (name, kind), cell in zip(kinds, cells, strict=True)}
        )


def curve_points(key: tuple[str, str, int], curve: Curve, last_step: int) -> list[CurvePoint]:
    """Returns a run's learning curve at evenly spaced steps, from the first episode's end on.

    Args:
        key: Setting, environment and seed.
        curve: What its run folder says.
        last_step: Transitions of the whole run.
    """
    setting, env, seed = key
    means = rolling_mean(curve.returns, RecentEpisodes.WINDOW)
    points: list[CurvePoint] = []
    for k in range(1, CURVE_POINTS + 1):
        step = last_step * k // CURVE_POINTS
        ended = int(np.searchsorted(curve.steps, step, side="right"))
        if ended and (not points or step > points[-1].step):
            points.append(
                CurvePoint(
                    setting=setting,
                    env=env,
                    seed=seed,
                    step=step,
                    wall_seconds=round(float(curve.wall_seconds[ended - 1]), 3),
                    mean_return=float(f"{means[ended - 1]:.6g}"),
                )
            )
    return points


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
