"""Shared libraries for tests: `walk.c` compiled with macros."""

from __future__ import annotations

import atexit
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

import clipper
from clipper.engine import kernels

NEEDS_ENGINE = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))
_COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(source: Path, to: Path, *flags: str) -> Path:
    """Returns a shared library of a C file, with warnings as errors."""
    if _COMPILER is None:
        pytest.skip("there is no C compiler")
    command = [_COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-shared"]
    command += ["-fPIC", f"-I{clipper.native_include()}", *flags, str(source), "-o", str(to), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


@cache
def walk(*macros: str) -> str:
    """Returns the file of the walk with these macros, as `NAN_AT=3`."""
    flags = [f"-D{macro}" for macro in macros]
    folder = Path(mkdtemp(prefix="clipper-walk-"))
    # a library stays loaded as long as the process lives
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(compiled(Path(__file__).with_name("walk.c"), folder / "libwalk.so", *flags))
