"""A disk that fails on purpose: one of the calls that change it is not done, or the process dies in it.

Every such call of Clipper's writers is one of `os`, or `open` for the files that grow and the lock;
both are wrapped here.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# calls that change the disk, or wait until it has changed
CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Failure = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]


@contextlib.contextmanager
def failing_disk(fail: Failure, *, first: int, last: int | None = None) -> Iterator[list[str]]:
    """Lets calls number `first` to `last` (from 1; None: all that follow) fail; yields their names.

    Args:
        fail: Takes a call's name, the call and its arguments; is done in its place.
        first: The first one that fails; 0 for none.
        last: The last one.
    """
    made: list[str] = []
    originals = {(os, name): getattr(os, name) for name in CALLS}
    originals[builtins, "open"] = builtins.open

    def wrapped(module: Any, name: str) -> Callable[..., Any]:
        original = originals[module, name]

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not _is_to_write(args[1] if len(args) > 1 else "r"):
                return original(*args, **kwargs)
            made.append(name)
            if first and first <= len(made) <= (last or len(made)):
                return fail(name, functools.partial(original, **kwargs), args)
            return original(*args, **kwargs)

        return call

    try:
        for module, name in originals:
            setattr(module, name, wrapped(module, name))
        yield made
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)


def _is_to_write(how: int | str) -> bool:
    """True if a file is opened to be changed: flags of `os.open`, or the mode of `open`."""
    return bool(how & _WRITING if isinstance(how, int) else set(how) & set("wax+"))


def refusing(number: int) -> Failure:
    """Returns what raises the system's error of that number; of a write half is done before."""

    def fail(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "write" and len(args[1]) > 1:
            original(args[0], bytes(args[1])[: len(args[1]) // 2])
        raise OSError(number, os.strerror(number))

    return fail


def dying(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Ends the process by SIGKILL in the middle of a write, or in the place of another call."""
    if name == "write" and len(args[1]) > 1:
        original(args[0], bytes(args[1])[: len(args[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], Any]) -> int:
    """Does some work in a forked process; returns its exit code, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are idle in these tests
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
