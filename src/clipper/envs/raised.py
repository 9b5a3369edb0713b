"""An error that an environment raised in; what our message says of it out."""

from __future__ import annotations

import traceback
from pathlib import Path

import gymnasium


def text_of(error: BaseException) -> str:
    """Returns what an error says in letters that any file and terminal can hold; "" if it cannot."""
    try:
        text = str(error)
    except Exception:
        return ""
    return text.encode(errors="backslashreplace").decode()


def brief(error: BaseException) -> str:
    """Returns what was raised, in a line that follows `but`."""
    # Gymnasium appends what it was asked for, which our message says already
    if isinstance(error, SystemExit):
        return "it called sys.exit"
    text = (
        text_of(error).strip().partition(" was raised from the environment creator")[0].splitlines()
    )
    return f"it raised {type(error).__name__}" + (f": {text[0].rstrip('.')}" if text else "")


def where_raised(error: BaseException) -> str | None:
    """Returns the file and the line it was raised in, or None if Gymnasium or Clipper raised it."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    if not frames or frames[-1].filename == gymnasium.envs.registration.__file__:
        return None
    last = frames[-1]
    if Path(last.filename).parent == Path(__file__).parent:  # a call of theirs that did not begin
        return None
    return f"raised in {last.filename}, line {last.lineno}."
