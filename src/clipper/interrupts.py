"""Signals that ask for an end, raised as KeyboardInterrupt only where that loses nothing."""

from __future__ import annotations

import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal was closed, or the connection to it lost; None on Windows."""


GRACE_SECONDS = 0.5
"""A second signal that comes sooner is the first one once more: shells and `timeout` send it twice."""


def asking() -> tuple[int, ...]:
    """Returns the signals that ask for an end: a hang-up is none of them under `nohup`."""
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers += (HANGUP,)
    return numbers


class Interrupt:
    """Remembers the first signal, and raises KeyboardInterrupt only where that is allowed."""

    end_at_second: Callable[[int, float], None] | None = None
    """Has the kernel end the process at a second signal after so many seconds; the engine brings it."""
    is_patient = False
    """True where someone else ends the process if saving takes too long: a second signal waits too."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._heard_at = -math.inf
        self._may_raise = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Takes the first signal; a second one ends the process as it would without us.

        A hang-up never is a second one, nor the one before it: shells and systems that end a
        session send it beside others, or twice.
        """
        if self.number is not None and (self.is_patient or number == HANGUP):
            return
        if self.number == number and time.monotonic() - self._heard_at < GRACE_SECONDS:
            return
        if self.number not in (None, HANGUP):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number, self._heard_at = number, time.monotonic()
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Within this block a signal raises; one that came before raises at its start."""
        if self.number is not None:
            raise KeyboardInterrupt
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Takes over the signals that ask for an end, within the block and in the main thread."""
    interrupt = Interrupt()
    with handled(interrupt.handle) as are_ours:
        if are_ours and not interrupt.is_patient:
            for number in asking():
                if number == HANGUP:
                    continue
                if Interrupt.end_at_second is not None:
                    Interrupt.end_at_second(number, GRACE_SECONDS)
                else:
                    _let_a_second_one_end_it(number)
        yield interrupt


def _let_a_second_one_end_it(number: int) -> None:
    """Has the kernel give a signal to its handler once, and end the process at the next.

    Python's part of a handler waits until C code returns to Python, and that of an environment may
    never. The flag is SA_RESETHAND, which Python cannot set; glibc's `__sysv_signal` does. It knows no
    grace: this is for where there is no engine.
    """
    try:
        libc = ctypes.CDLL(None)
        handler_of, hand_over = libc.signal, getattr(libc, "__sysv_signal")
    except (OSError, AttributeError, TypeError):
        return
    for function in (handler_of, hand_over):
        function.argtypes, function.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        hand_over(number, handler_of(number, None))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """Gives the signals that ask for an end to a handler, within the block and in the main thread.

    Yields False where that is not possible, in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    previous = {number: signal.signal(number, handle) for number in asking()}
    try:
        yield True
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
