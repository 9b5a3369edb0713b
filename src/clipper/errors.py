"""Every error Clipper raises on purpose, and the exit code the command line gives for it.

A message is one sentence (what must hold, what was found); the hint says what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClipperError(Exception):
    """Root of all errors of Clipper; `except ClipperError` catches every one.

    Args:
        message: One sentence: what must hold and what was found.
        hint: What to do about it, shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class ConfigError(ClipperError, ValueError):
    """A setting is unknown, of the wrong type, out of range or at odds with another."""

    exit_code = 2


class SpaceError(ClipperError, ValueError):
    """An observation or action space is not supported, or a value does not belong to it."""

    exit_code = 2


class EnvironmentUnknown(ClipperError, LookupError):
    """No environment could be found or made under the name that was given."""

    exit_code = 2


class EnvironmentFault(ClipperError, RuntimeError):
    """An environment raised, or broke the Gymnasium contract, while it was reset or stepped."""

    exit_code = 3


class NumericsError(ClipperError, ArithmeticError):
    """A number that must be finite is NaN or infinite; nothing was learnt from it."""

    exit_code = 4


class FileError(ClipperError, OSError):
    """A file or folder is missing, damaged, unwritable, in use, or of an unknown format."""

    exit_code = 5


class FolderTaken(FileError):
    """A run folder belongs to another run, or another process is writing it."""


class FormatError(FileError):
    """A file is of a format that this version does not read; it may be whole."""


class InvariantBreach(ClipperError, AssertionError):
    """A law of the algorithm was broken: a defect in Clipper or in a user's module."""

    exit_code = 6


def nearest(name: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """Returns a hint naming the known names closest to a misspelt one, or None.

    Args:
        name: What was typed.
        known: What could have been meant.
        prefix: Put before each name, for example `--`.
    """
    lowered = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    if not found:
        return None
    # of what was begun rightly nothing else is meant
    found = [f for f in found if f.startswith(name.lower())] or found
    names = [f"{prefix}{lowered[f]}" for f in found]
    return f"did you mean {' or '.join(names)}?"
