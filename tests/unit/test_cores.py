"""How many cores a process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipper import cores
from clipper.cores import cpu_quota, num_cores
from clipper.engine.native import alone_for

TWO = "200000 100000\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    """Writes files of /proc and /sys, and returns where."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        # version 2, from within a container, and from without
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": TWO}, 2.0),
        ({"proc/self/cgroup": "0::/a:b/c\n", "sys/fs/cgroup/a:b/c/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": TWO}, 2.0),
        # the least of those around it
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "700000 100000",
                "sys/fs/cgroup/a/cpu.max": TWO,
            },
            2.0,
        ),
        # a container whose own group is all that it sees, under the name it has outside
        ({"proc/self/cgroup": "0::/docker/12\n", "sys/fs/cgroup/cpu.max": TWO}, 2.0),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": TWO}, 2.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        # version 1
        (
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/docker/12\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        # what is no such file
        ({"proc/self/cgroup": "nonsense\n\n0::\n", "sys/fs/cgroup/cpu.max": "1 0"}, None),
    ],
)
def test_the_share_of_time_that_a_group_has(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    """Microseconds of each period, as Linux's documents of both versions say."""
    assert cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "number"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (64.0, 3)])
def test_whole_cores_of_those_there_are(
    monkeypatch: pytest.MonkeyPatch, quota: float, number: int
) -> None:
    """A part of a core is none for a second process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 7}, raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert num_cores() == number


def test_here_there_is_one_at_least() -> None:
    """Whatever this machine is."""
    assert 1 <= num_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("num_minibatches", "iterations"), [(1, 50), (200, 50), (1000, 10), (10**6, 1)]
)
def test_how_long_one_thread_goes_on_alone(num_minibatches: int, iterations: int) -> None:
    """20,000 tasks, two of each minibatch: 20,000 / 2,000 = 10; at most 50 iterations."""
    assert alone_for(num_minibatches) == iterations
