"""What a training holds while it runs: memory, file descriptors and threads, in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from commands import SCRIPT
from facts import note

MEGABYTE = 2**20
PEAK_MEGABYTES = 400
# what the allocator may take from iteration 100 to 500, 0.2 MB when this was written; a leak of 5 KB
# an iteration would be 2 MB
GROWTH_MEGABYTES = 2


@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX's")
def test_a_cartpole_run_stays_under_400_megabytes(tmp_path: Path) -> None:
    """The peak resident memory of `clipper train CartPole-v1`, curve and evaluations included.

    A process in between, which is small, asks for its child's peak: on Linux a process inherits the
    peak of the one that started it, and pytest's is large.
    """
    between = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = ["train", "CartPole-v1", "--total-timesteps=4096", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", between, SCRIPT, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    peak = int(done.stdout) * unit
    assert (tmp_path / "runs/CartPole-v1/run1-0/curve.png").is_file()
    assert 50 * MEGABYTE < peak < PEAK_MEGABYTES * MEGABYTE
    note("memory", most_peak_megabytes=round(peak / MEGABYTE))


def test_a_long_run_does_not_grow(tmp_path: Path) -> None:
    """Over 500 iterations that are written, shown, evaluated and saved nothing piles up.

    The numbers of file descriptors and threads are the same at each of the last 400 iterations, and
    the resident memory is at the end what it was after 100, but for GROWTH_MEGABYTES.
    """
    pytest.importorskip("psutil")
    script = """
    import json
    import psutil
    import clipper

    process = psutil.Process()
    count = getattr(process, "num_fds", None) or process.num_handles
    seen = []

    def look(report):
        seen.append((count(), process.num_threads(), process.memory_info().rss))

    agent = clipper.PPO(
        "CartPole-v1", num_envs=2, num_steps=8, minibatch_size=8, num_epochs=1,
        hidden_sizes=(8,), eval_every=160, eval_episodes=1, max_episode_steps=20,
    )
    # a checkpoint every second, not every 30 s
    agent.train(500 * 16, run_dir="run", callback=look, checkpoint_minutes=1 / 60)
    print(json.dumps(seen))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert len(seen) == 500
    descriptors, threads, resident = zip(*seen[100:], strict=True)
    assert len(set(descriptors)) == 1
    assert len(set(threads)) == 1
    # medians of 50 iterations at either end, so that one moment does not decide
    early, late = sorted(resident[:50])[25], sorted(resident[-50:])[25]
    assert late - early < GROWTH_MEGABYTES * MEGABYTE
