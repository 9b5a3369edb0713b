"""Observations one by one in, mean, spread and extremes of their numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.envs.check_parts import Part

# of one part; images are measured by nobody
_MOST_COLUMNS = 4096


class Columns:
    """Running mean, spread and extremes of the Box parts of observations.

    Args:
        parts: Of the observation.
    """

    def __init__(self, parts: Sequence[Part] = ()) -> None:
        self._at = [
            (i, part)
            for i, part in enumerate(parts)
            if isinstance(part.space, spaces.Box)
            and 0 < int(np.prod(part.space.shape)) <= _MOST_COLUMNS
        ]
        self.count = 0
        self._means: dict[str, NDArray[np.float64]] = {}
        self._squares: dict[str, NDArray[np.float64]] = {}
        self._lows: dict[str, NDArray[np.float64]] = {}
        self._highs: dict[str, NDArray[np.float64]] = {}

    def add(self, obs: Sequence[NDArray[Any] | None]) -> None:
        """Adds an observation; one that breaks its space's promise is left out."""
        rows = []
        for i, part in self._at:
            array = obs[i]
            if array is None or array.shape != part.space.shape:
                return
            row = array.reshape(-1).astype(np.float64)
            if not (np.abs(row) <= np.finfo(np.float32).max).all():
                return
            rows.append((part.name, row))
        self.count += 1
        for name, row in rows:
            if name not in self._means:
                self._means[name], self._squares[name] = row.copy(), np.zeros_like(row)
                self._lows[name], self._highs[name] = row.copy(), row.copy()
                continue
            # Welford 1962
            delta = row - self._means[name]
            self._means[name] += delta / self.count
            self._squares[name] += delta * (row - self._means[name])
            np.minimum(self._lows[name], row, out=self._lows[name])
            np.maximum(self._highs[name], row, out=self._highs[name])

    def parts(self) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[Any]]]:
        """Returns name, mean, standard deviation and whether constant of each part's columns."""
        return [
            (
                name,
                mean,
                np.sqrt(self._squares[name] / max(1, self.count)),
                self._lows[name] == self._highs[name],
            )
            for name, mean in self._means.items()
        ]
