"""Where a worker is, again and again, in; whether it hangs or is only slow out."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

_LOG = logging.getLogger("clipper")

_LEAST_TIMEOUT = 10.0
# a worker that does not move for so long is spoken of
_SLOW_SECONDS = 5.0
# environments may start a game or fetch a file before they can be reset
_ARRIVAL_SECONDS, _SLOW_ARRIVAL_SECONDS = 600.0, 30.0


class Pace:
    """Tells a hanging worker from a slow one by how long it stays where it is.

    Args:
        timeout: Seconds, or None for the larger of 10 s and 20 times the 99th percentile.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._num_moves = 0
        # steps that took long: the moves until then, and the seconds
        self._waits: deque[tuple[int, float]] = deque(maxlen=1000)
        self.begin()

    def begin(self) -> None:
        """Counts from now on."""
        self._place, self._since, self._is_told = -1, time.monotonic(), False

    @property
    def timeout(self) -> float:
        """Seconds after which a step counts as hanging."""
        if self._timeout is not None:
            return self._timeout
        # steps too short to be seen here are among the rest, since the first one that is kept
        is_full = len(self._waits) == self._waits.maxlen
        num_moves = self._num_moves - self._waits[0][0] if is_full else self._num_moves
        num_long = max(1, num_moves // 100)
        slowest = sorted((wait for _, wait in self._waits), reverse=True)
        percentile = slowest[num_long - 1] if len(slowest) >= num_long else 0.0
        return max(_LEAST_TIMEOUT, 20.0 * percentile)

    def look(self, place: int, is_done: bool, name: str) -> str | None:
        """Returns what is wrong, or None.

        Args:
            place: A number that grows with every step.
            is_done: True if no step is left.
            name: Of the worker, for the log.
        """
        now = time.monotonic()
        waited = now - self._since
        if place != self._place or is_done:
            if self._place >= 0:
                self._num_moves += max(place - self._place, 0)
                if waited > 0.2:
                    self._waits.append((self._num_moves, waited))
            self._place, self._since, self._is_told = place, now, False
            return None
        if waited > self.timeout:
            return f"did not move for {waited:.1f} s, which is more than {self.timeout:.1f} s"
        if waited > _SLOW_SECONDS and not self._is_told:
            self._is_told = True
            _LOG.warning(
                "%s is slow: it has been in a step for %.1f s (it is replaced after %.1f s)",
                name, waited, self.timeout,
            )  # fmt: skip
        return None


def arriving(name: str, timeout: float | None) -> Callable[[], str | None]:
    """Returns what says, asked again and again, why a process is not waited for any more, or None.

    One whose environments take long to be made is spoken of.

    Args:
        name: Of the worker, for the log.
        timeout: Seconds of patience if more than ten minutes, or None.
    """
    started, most = time.monotonic(), max(_ARRIVAL_SECONDS, timeout or 0.0)
    is_told = False

    def look() -> str | None:
        nonlocal is_told
        waited = time.monotonic() - started
        if waited > _SLOW_ARRIVAL_SECONDS and not is_told:
            is_told = True
            _LOG.warning(
                "%s is still making its environments after %.0f s (it is given up after %.0f s)",
                name, waited, most,
            )  # fmt: skip
        return f"made no environments in {most:.0f} s" if waited > most else None

    return look
