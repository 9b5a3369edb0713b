"""Standard output for our results alone: what an environment prints meanwhile goes to standard error."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def prints_elsewhere() -> Iterator[None]:
    """Lets all that Python and libraries print go to standard error, until it is left.

    `--json` promises one object; an environment, or a library in C that it calls, may print what it
    wants.
    """
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    try:
        sys.stdout.flush()
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # C keeps lines of its own
        os.dup2(kept, 1)
        os.close(kept)
