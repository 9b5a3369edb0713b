"""SIGINT and SIGTERM, remembered; raised as KeyboardInterrupt only where that loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Remembers SIGINT and SIGTERM, and raises KeyboardInterrupt only where that is allowed."""

    is_patient = False
    """True where someone else ends the process if saving takes too long: a second signal waits too."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._may_raise = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Takes the first signal; a second one ends the process as it would without us."""
        if self.number is not None and self.is_patient:
            return
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
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
    """Takes over SIGINT and SIGTERM for the length of the block, in the main thread."""
    interrupt = Interrupt()
    with handled(interrupt.handle):
        yield interrupt


@contextmanager
def handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Gives SIGINT and SIGTERM to a handler for the length of the block, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
