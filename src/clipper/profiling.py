"""The parts of a run as they happen in, where its time went out.

At every moment one part is on, and a part that begins within another interrupts it: the parts' seconds
sum to the whole exactly, with `other` for what no part claims. Whoever does the work names the part
by a `Profiler`, which without profiling gives back functions and objects as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast

PARTS: Mapping[str, str] = {
    "start": "environments made, workers started",
    "env": "step and reset of the environments",
    "act": "noise, actions, log-probabilities, values",
    "store": "bookkeeping of the collection",
    "workers": "waiting for worker processes",
    "estimate": "advantages and value targets",
    "improve": "minibatch updates, normalisers, metrics",
    "log": "metrics, callbacks, display, curve",
    "evaluate": "periodic evaluations",
    "save": "checkpoints, agents, the state to fall back on",
    "other": "what is left over",
}
"""What is told apart, in words, in the order of the tables."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


class Profiler(Protocol):
    """What those who do the work ask of a stopwatch."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Within the block this part is on."""
        ...

    def timed(self, name: str, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Returns the function so that this part is on while it runs."""
        ...

    def around(self, target: _T, **parts: str) -> _T:
        """Returns what behaves as `target`, with the named methods timed as the parts given."""
        ...

    def move(self, seconds: float, giver: str, taker: str) -> None:
        """Counts seconds that were counted to one part to another."""
        ...

    def result(self, num_steps: int) -> RunProfile | None:
        """Returns where the time went until now, in a run of so many steps."""
        ...


class NoStopwatch:
    """A profiler that costs nothing: what it is given it gives back."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()

    def timed(self, name: str, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Returns the function itself."""
        return function

    def around(self, target: _T, **parts: str) -> _T:
        """Returns the object itself, or the one that a stopwatch was put around."""
        return cast(_T, target.target) if isinstance(target, _Timed) else target

    def move(self, seconds: float, giver: str, taker: str) -> None:
        """Does nothing."""

    def result(self, num_steps: int) -> None:
        """Returns nothing."""


NO_STOPWATCH = NoStopwatch()


class Stopwatch:
    """Counts every nanosecond from its making on to one part; in one thread."""

    def __init__(self) -> None:
        self._nanoseconds = dict.fromkeys(PARTS, 0)
        self._on = "other"
        self._num_timed = 0
        self._since = time.perf_counter_ns()

    def _switch(self, name: str) -> str:
        """Begins a part and returns the one that was on."""
        now = time.perf_counter_ns()
        on = self._on
        self._nanoseconds[on] += now - self._since
        self._since = now
        self._on = name
        return on

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within the block this part is on."""
        before = self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def timed(self, name: str, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Returns the function so that this part is on while it runs."""
        clock, nanoseconds = time.perf_counter_ns, self._nanoseconds

        # `part` written out: this stands around every step of every environment
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            before = self._on
            now = clock()
            nanoseconds[before] += now - self._since
            self._since = now
            self._on = name
            try:
                return function(*args, **kwargs)
            finally:
                now = clock()
                nanoseconds[self._on] += now - self._since
                self._since = now
                # not a stack's top: where a signal raised in between, the next one out mends it
                self._on = before
                self._num_timed += 1

        return call

    def around(self, target: _T, **parts: str) -> _T:
        """Returns what behaves as `target`, with the named methods timed as the parts given."""
        plain = NO_STOPWATCH.around(target)
        return cast(
            _T, _Timed(plain, {k: self.timed(v, getattr(plain, k)) for k, v in parts.items()})
        )

    def move(self, seconds: float, giver: str, taker: str) -> None:
        """Counts seconds that were counted to one part to another."""
        self._nanoseconds[giver] -= round(1e9 * seconds)
        self._nanoseconds[taker] += round(1e9 * seconds)

    def result(self, num_steps: int) -> RunProfile:
        """Returns where the time went until now, in a run of so many steps."""
        self._switch(self._on)
        seconds = {name: 1e-9 * count for name, count in self._nanoseconds.items()}
        return RunProfile(seconds, num_steps, self._num_timed * _seconds_per_timed_call())


class _Timed:
    """An object some of whose methods are timed.

    Args:
        target: The object.
        methods: What stands for its methods of these names.
    """

    def __init__(self, target: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        self.target = target
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@dataclass(frozen=True, slots=True)
class RunProfile:
    """Where the time of a run went.

    Attributes:
        seconds: Of each of `PARTS`.
        num_steps: Transitions done in that time, over all environments.
        overhead_seconds: What the measuring itself took at least, spread over the parts: its cost in
            an empty loop, where the processor has all it needs at hand.
    """

    seconds: Mapping[str, float]
    num_steps: int
    overhead_seconds: float

    @property
    def whole_seconds(self) -> float:
        """The sum of all parts."""
        return sum(self.seconds.values())

    def share(self, seconds: float) -> float:
        """Returns the part of the whole that seconds are, 0 to 1."""
        return seconds / self.whole_seconds if self.whole_seconds else 0.0

    def microseconds_per_step(self, seconds: float) -> float:
        """Returns seconds as microseconds for every step, or NaN if there were none."""
        return 1e6 * seconds / self.num_steps if self.num_steps else float("nan")

    def __str__(self) -> str:
        """Returns the table that `clipper train --profile` prints."""
        lines = [f"{'part':<9}{'seconds':>10}{'share':>9}{'us/step':>11}"]
        rows = [(name, count, PARTS[name]) for name, count in self.seconds.items() if count > 0]
        for name, seconds, meaning in [*rows, ("whole", self.whole_seconds, "")]:
            per_step = self.microseconds_per_step(seconds)
            share = f"{100 * self.share(seconds):.1f} %"
            lines.append(
                f"{name:<9}{seconds:>10.3f}{share:>9}{per_step:>11.2f}  {meaning}".rstrip()
            )
        share = f"{100 * self.share(self.overhead_seconds):.1f} %"
        lines.append(f"measuring took at least {self.overhead_seconds:.3f} s of it ({share})")
        return "\n".join(lines)


def _seconds_per_timed_call(number: int = 2000) -> float:
    """Returns what timing a function adds to a call of it, on this machine now."""

    def nothing() -> None:
        pass

    def seconds(function: Callable[[], None]) -> float:
        started = time.perf_counter()
        for _ in range(number):
            function()
        return time.perf_counter() - started

    timed = Stopwatch().timed("env", nothing)
    # the least of a few: another process must not be taken for the cost of measuring
    least = min(seconds(timed) for _ in range(5)) - min(seconds(nothing) for _ in range(5))
    return max(0.0, least / number)
