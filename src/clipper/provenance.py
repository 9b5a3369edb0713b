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


def provenance(*, is_resumed: bool = False) -> dict[str, Any]:
    """Returns versions, platform, git state of the working directory and the command line.

    Args:
        is_resumed: The working directory may be a folder from a stranger, in which git would run what
            its configuration names to find out what was changed: only the commit is told then.
    """
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "git": _git_state(not is_resumed),
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


def _git_state(is_own: bool) -> dict[str, Any] | None:
    def git(*words: str) -> str:
        result = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=5, check=True
        )
        return result.stdout.strip()

    try:
        found: dict[str, Any] = {"commit": git("rev-parse", "HEAD")}
        if is_own:
            found["dirty"] = bool(git("-c", "core.fsmonitor=false", "status", "--porcelain"))
        return found
    except (OSError, subprocess.SubprocessError):
        return None
