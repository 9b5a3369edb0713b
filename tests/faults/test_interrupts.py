"""A run that is stopped by a signal, or was killed in the middle of a line: it can go on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import clipper
from clipper.checkpoint import read_checkpoint, read_tensors
from commands import SCRIPT, TINY, read_rows

WORDS = ["train", "CartPole-v1", *TINY, "--total-timesteps=64000000", "--name=s", "--eval-every=0"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training without end, in a process of its own, that has written some iterations."""
    process = subprocess.Popen(
        [SCRIPT, *WORDS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "runs/CartPole-v1/s-0/metrics.csv"
    deadline = time.monotonic() + 60
    try:
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 4:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_stops_cleanly(
    name: str, code: int, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    """The exit code is 128 and the signal's: the summary is printed and the run complete.

    The last finished iteration is in the agent, the checkpoint and the rows; the run goes on from
    it, with every iteration once.
    """
    running.send_signal(getattr(signal, name))
    out, err = running.communicate(timeout=30)
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert out.startswith(f"stopped by {name} (")
    assert "clipper resume runs/CartPole-v1/s-0 --total-timesteps 64000000" in out
    run = tmp_path / "runs/CartPole-v1/s-0"
    assert sorted(path.name for path in run.iterdir()) == [
        "agent.safetensors",
        "checkpoints",
        "config.json",
        "curve.png",
        "episodes.csv",
        "log.txt",
        "metrics.csv",
    ]
    steps = [int(row["step"]) for row in read_rows(run / "metrics.csv")]
    assert steps == [64 * (i + 1) for i in range(len(steps))]
    assert read_tensors(run / "agent.safetensors")[1]["step"] == steps[-1]
    assert read_checkpoint(run / "checkpoints")[0].step == steps[-1]
    assert f"stopped by {name}" in (run / "log.txt").read_text().splitlines()[-1]
    agent = clipper.resume(run)
    agent.train(steps[-1] + 128, progress=False)
    more = [int(row["step"]) for row in read_rows(run / "metrics.csv")]
    assert more == [*steps, steps[-1] + 64, steps[-1] + 128]


def test_a_stopped_run_ends_as_one_that_was_not(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Stopped at any moment and resumed, a run has the rows of one that went on: nothing is lost.

    The budget stays the run's own, so schedules do; it is stopped again by a callback.
    """
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    run = tmp_path / "runs/CartPole-v1/s-0"
    stopped_at = int(read_rows(run / "metrics.csv")[-1]["step"])
    end = stopped_at + 5 * 64
    resumed = clipper.resume(run)
    resumed.train(progress=False, callback=lambda report: report.step < end)
    config = json.loads((run / "config.json").read_text())["config"]
    straight = clipper.PPO("CartPole-v1", **config)
    whole = tmp_path / "whole"
    straight.train(progress=False, callback=lambda report: report.step < end, run_dir=whole)
    assert resumed.inexact is None

    def without_times(path: Path) -> list[dict[str, str]]:
        rows = read_rows(path)
        return [
            {name: cell for name, cell in row.items() if "wall" not in name and "time/" not in name}
            for row in rows
        ]

    for name in ("metrics.csv", "episodes.csv"):
        assert without_times(run / name) == without_times(whole / name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations."""
    run = tmp_path_factory.mktemp("finished") / "run"
    settings = {"num_envs": 2, "num_steps": 32, "num_epochs": 1, "hidden_sizes": (8,)}
    agent = clipper.PPO("CartPole-v1", minibatch_size=64, eval_every=0, **settings)
    agent.train(128, progress=False, run_dir=run)
    return run


def cut_line(line: bytes, how: str) -> bytes:
    """Returns what a kill may leave of a line that ends in `\\r\\n`."""
    assert line.endswith(b"\r\n")
    cell = line.index(b",")
    return {
        "in the first cell": line[: max(cell - 1, 1)],
        "after a comma": line[: cell + 1],
        "in the last cell": line[:-4],  # as many cells as a whole line has
        "before the line end": line[:-2],
        "in the line end": line[:-1],
    }[how]


@pytest.mark.parametrize("name", ["metrics.csv", "episodes.csv"])
@pytest.mark.parametrize("whole_rows", [0, 2])
@pytest.mark.parametrize(
    "how",
    [
        "in the first cell",
        "after a comma",
        "in the last cell",
        "before the line end",
        "in the line end",
    ],
)
def test_a_line_cut_by_a_kill_is_cut_off_on_resume(
    how: str,
    whole_rows: int,
    name: str,
    finished: Path,
    tmp_path: Path,
) -> None:
    """Rows after the last checkpoint, the last of them cut anywhere, do not survive a resume.

    A process killed after a checkpoint leaves whole rows and perhaps a part of one. The resumed run
    has the checkpoint's rows as they were, byte for byte, and then its own.
    """
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / name).read_bytes()
    lines = before.splitlines(keepends=True)
    # as if the iterations had been done once more, past the checkpoint
    (run / name).write_bytes(before + b"".join(lines[1:2] * whole_rows) + cut_line(lines[1], how))
    agent = clipper.resume(run)
    assert (run / name).read_bytes() == before
    agent.train(192, progress=False)
    after = (run / name).read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\r\n")
    assert {line.count(b",") for line in after.splitlines()} == {lines[0].count(b",")}
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64", "128", "192"]
