"""Where and with what a run was made, out."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from typing import Any


def provenance() -> dict[str, Any]:
    """Returns versions, platform, git state of the working directory and the command line."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "git": _git_state(),
        "command": [os.path.basename(sys.argv[0]) if sys.argv else "", *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Clipper, Python and the libraries results depend on."""
    found = {"python": platform.python_version()}
    for name in ("clipper-rl", "torch", "numpy", "gymnasium", "mujoco"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        result = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=5, check=True
        )
        return result.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
