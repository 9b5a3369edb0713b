"""The rows of a run in, one after the other, and its alarms out; kept in checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipper.alarm_cures import advise
from clipper.alarm_facts import KEPT, WINDOW, Alarm, Past, Row
from clipper.alarms import alarms_of
from clipper.errors import FileError
from clipper.files import is_count, is_number

# what the row that later returns are compared with has at least
_BASE = ("rollout/episode_return", "rollout/episode_return_std", "rollout/episodes")
# what a watch did not know once
_NEWER = {"best_return", "begins_trained"}
# alarms that are kept to be told of in the end
_MOST_TOLD = 100


class AlarmWatch:
    """The rows of a run one after the other in, its alarms out; a function of the rows alone.

    Attributes:
        begins_trained: True if the policy was trained before the first row.
        raised: The steps at which an alarm began, and its text, in order; the last hundred.
    """

    def __init__(self) -> None:
        self._series: dict[str, list[float]] = {}
        self._first: Row | None = None
        self._base: Row | None = None
        self._largest_reward = 0.0
        self._best_return: float | None = None
        self._num_rows = 0
        self._last_on: dict[str, int] = {}
        self.begins_trained = False
        self.raised: list[tuple[int, str]] = []

    def look(
        self,
        step: int,
        metrics: Row,
        progress: float,
        settings: Mapping[str, Any] | None = None,
    ) -> tuple[list[Alarm], list[Alarm]]:
        """Returns the alarms of a row, and those of them that were not on in the last `WINDOW` rows.

        Args:
            step: Transitions done.
            metrics: The row.
            progress: Share of the run that is done, 0 to 1.
            settings: The run's, to name no other and those first that stand out; None for all there are.
        """
        row = {k: metrics[k] for k in KEPT if math.isfinite(metrics.get(k, math.nan))}
        for name, value in row.items():
            series = self._series.setdefault(name, [])
            series.append(value)
            del series[:-WINDOW]
        if self._first is None:
            self._first = row
        if self._base is None and set(_BASE) <= set(row) and row["rollout/episodes"] >= 20:
            self._base = row
        now = row.get("rollout/episode_return")
        if self._base is not None and now is not None:
            best = self._best_return
            self._best_return = now if best is None else max(best, now)
        past = Past(
            row,
            self._series,
            self._first,
            self._base,
            self._largest_reward,
            self._best_return,
            progress,
            bool(settings and settings.get("normalize_reward")),
            self.begins_trained,
        )
        found = [alarm for alarm in alarms_of(past) if self._is_news(alarm)]
        if settings is not None:
            found = [advise(alarm, settings) for alarm in found]
        self._largest_reward = max(self._largest_reward, abs(row.get("rollout/reward_mean", 0.0)))
        self._num_rows += 1
        new = [
            alarm
            for alarm in found
            if self._num_rows - self._last_on.get(alarm.name, -WINDOW) > WINDOW
        ]
        self._last_on |= {alarm.name: self._num_rows for alarm in found}
        if new:
            told = [(step, str(alarm)) for alarm in new]
            self.raised = (self.raised + told)[-_MOST_TOLD:]
        return found, new

    def _is_news(self, alarm: Alarm) -> bool:
        """True but for what a rule says last of all, where another spoke not long ago."""
        spoken = {n for n, last in self._last_on.items() if self._num_rows - last < WINDOW}
        return alarm.name != "no_progress" or spoken <= {alarm.name}

    def to_json(self) -> dict[str, Any]:
        """Returns what the watch knows as JSON values."""
        return {
            "series": {name: list(series) for name, series in self._series.items()},
            "first": self._first and dict(self._first),
            "base": self._base and dict(self._base),
            "largest_reward": self._largest_reward,
            "best_return": self._best_return,
            "begins_trained": self.begins_trained,
            "num_rows": self._num_rows,
            "last_on": dict(self._last_on),
            "raised": [list(each) for each in self.raised],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AlarmWatch:
        """Returns the watch that `to_json` wrote.

        Raises:
            FileError: It is something else.
        """
        if not _is_watch(data):
            raise FileError("the alarms of a run must be what its rows said, but are not.")
        watch = cls()
        watch._series = {name: list(series) for name, series in data["series"].items()}
        watch._first, watch._base = data["first"], data["base"]
        watch._largest_reward, watch._best_return = data["largest_reward"], data.get("best_return")
        watch.begins_trained = data.get("begins_trained", False)
        watch._num_rows, watch._last_on = data["num_rows"], dict(data["last_on"])
        watch.raised = [(step, text) for step, text in data["raised"]]
        return watch


def _is_watch(data: Any) -> bool:
    """True for what `AlarmWatch.to_json` returns."""
    return (
        isinstance(data, Mapping)
        and set(data) | _NEWER == set(AlarmWatch().to_json())
        and isinstance(data["series"], Mapping)
        and all(
            name in KEPT
            and isinstance(series, list)
            and 0 < len(series) <= WINDOW
            and all(map(is_number, series))
            for name, series in data["series"].items()
        )
        and (data["first"] is None or _is_row(data["first"]))
        and (data["base"] is None or _is_row(data["base"], _BASE))
        and is_number(data["largest_reward"])
        and (data.get("best_return") is None or is_number(data["best_return"]))
        and isinstance(data.get("begins_trained", False), bool)
        and is_count(data["num_rows"])
        and isinstance(data["last_on"], Mapping)
        and all(map(is_count, data["last_on"].values()))
        and isinstance(data["raised"], list)
        and len(data["raised"]) <= _MOST_TOLD
        and all(_is_told(each) for each in data["raised"])
    )


def _is_row(row: Any, needed: Sequence[str] = ()) -> bool:
    return (
        isinstance(row, Mapping)
        and set(needed) <= set(row) <= set(KEPT)
        and all(map(is_number, row.values()))
    )


def _is_told(each: Any) -> bool:
    is_pair = isinstance(each, list) and len(each) == 2
    return is_pair and is_count(each[0]) and isinstance(each[1], str)
