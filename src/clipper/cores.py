"""A process in, how many cores it may keep busy out: the CPUs it may run on, its share of their time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def num_cores() -> int:
    """Returns how many cores this process and its children may keep busy; at least 1.

    A container that is held to 1.5 CPUs' worth of time on a machine of 64 has one: a second process
    would stand still for a part of every period, and whoever waits for it as well.
    """
    cpus = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Returns how many CPUs' worth of time Linux lets this process's group have, or None for all.

    The least of the groups that it is in, one within the other, counts; cgroups of versions 1 and 2.

    Args:
        root: Where /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = []
    for line in lines:
        # hierarchy : controllers : path
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            limits = (_read_max(group) for group in _groups(root / "sys/fs/cgroup", path))
        elif "cpu" in controllers.split(","):
            mounts = (root / "sys/fs/cgroup" / name for name in (controllers, "cpu"))
            limits = (_read_cfs(group) for mount in mounts for group in _groups(mount, path))
        else:
            continue
        found += [limit for limit in limits if limit is not None]
    return min(found, default=None)


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """Yields the folders of a group and of those it is in; a container may see the mount alone."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _read_max(group: Path) -> float | None:
    return _ratio(*_words(group / "cpu.max"))


def _read_cfs(group: Path) -> float | None:
    return _ratio(*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us"))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def _ratio(*words: str) -> float | None:
    """Returns microseconds of each period; None for `max`, -1, or what is not two numbers."""
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    quota, period = (int(word) for word in words)
    return quota / period if quota and period else None
