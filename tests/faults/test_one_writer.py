"""Laws of a run folder's lock: one process at a time, told at once, and nothing stale after a kill."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clipper
from clipper.errors import FileError, FolderTaken
from clipper.run_folder import RunFolder, check_free
from commands import SCRIPT, TINY, read_rows, run_apart

fcntl = pytest.importorskip("fcntl")

ENDLESS = [
    "train",
    "CartPole-v1",
    *TINY,
    "--total-timesteps=64000000",
    "--eval-every=0",
    "--name=w",
]


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for something that a process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training without end, that has written some rows."""
    process = subprocess.Popen(
        [SCRIPT, *ENDLESS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "runs/CartPole-v1/w-0/metrics.csv"
    try:
        until(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 3, process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "words",
    [["resume", "runs/CartPole-v1/w-0"], ["train", "CartPole-v1", *TINY, "--name=w"]],
    ids=["resume", "train"],
)
def test_a_second_writer_is_told_within_two_seconds(
    words: list[str], writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Exit code 5 after less than 2 s of CPU, at most 2 s of an idle machine; the first goes on.

    By the clock it has five times as long, for the machine is not idle: the other run trains on it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    said = run_apart(*words, cwd=tmp_path)
    wall_seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 5
    assert "Traceback" not in said.err
    if words[0] == "resume":
        owner = f"its number is {writer.pid} on {socket.gethostname()}"
        assert f"another process is writing it ({owner})" in said.err
    else:
        assert "must not exist yet, but does" in said.err
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
    assert wall_seconds < 10.0
    rows = len(read_rows(tmp_path / "runs/CartPole-v1/w-0/metrics.csv"))
    until(lambda: len(read_rows(tmp_path / "runs/CartPole-v1/w-0/metrics.csv")) > rows, writer)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_lock_ends_with_its_process(
    name: str, writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Killed or ended, a process holds nobody up: the run is gone on with at once."""
    run = tmp_path / "runs/CartPole-v1/w-0"
    assert (run / "lock").read_text() == f"{writer.pid} {socket.gethostname()}\n"
    with pytest.raises(clipper.ClipperError, match=f"its number is {writer.pid} on "):
        check_free(run)
    writer.send_signal(getattr(signal, name))
    writer.communicate(timeout=30)
    assert (run / "lock").exists() == (name == "SIGKILL")
    check_free(run)
    folder = RunFolder(run)
    assert (run / "lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    folder.close()
    assert not (run / "lock").exists()


def test_a_folder_that_was_copied_with_its_lock_is_free(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    """What stands in the file is for people: the lock is the system's, on that one file.

    The writer is held while it is copied, for its files come and go.
    """
    writer.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(writer.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    copied = shutil.copytree(tmp_path / "runs/CartPole-v1/w-0", tmp_path / "copied")
    assert (tmp_path / "copied/lock").read_text().startswith(f"{writer.pid} ")
    RunFolder(Path(copied)).close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("12\n", "(its number is 12)"), ("12 a-b.c\n", "(its number is 12 on a-b.c)")],
    ids=["first", "now"],
)
def test_the_owner_is_named_in_every_form(text: str, shown: str, tmp_path: Path) -> None:
    """The first locks had a number alone; on a network drive the machine says where to look for it."""
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run/lock").write_text(text)
    with pytest.raises(FolderTaken) as caught:
        check_free(tmp_path / "run")
    assert caught.value.message.endswith(f"another process is writing it {shown}.")
    folder.close()


def refusing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the system refuse every lock with an error of that number."""

    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("name", ["EWOULDBLOCK", "EAGAIN", "EACCES"])
def test_a_lock_of_another_is_told_by_its_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These alone mean that somebody else has it."""
    refusing(getattr(errno, name), monkeypatch)
    with pytest.raises(FolderTaken, match="another process is writing it"):
        RunFolder(tmp_path / "run")
    with pytest.raises(FolderTaken, match="another process is writing it"):
        check_free(tmp_path / "run")


@pytest.mark.parametrize("name", ["ENOLCK", "EIO", "EINTR"])
def test_a_lock_that_cannot_be_taken_is_nobodys(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock service that is down is said with the system's reason, not as another process."""
    refusing(getattr(errno, name), monkeypatch)
    for work in (lambda: RunFolder(tmp_path / "run"), lambda: check_free(tmp_path / "run")):
        with pytest.raises(FileError, match=os.strerror(getattr(errno, name))) as caught:
            work()
        assert not isinstance(caught.value, FolderTaken)
        assert "another process" not in str(caught.value)


@pytest.mark.parametrize("name", ["ENOSYS", "ENOTSUP", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_written_and_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be kept out there, which is no reason not to train: a warning and a line say so."""
    refusing(getattr(errno, name), monkeypatch)
    with caplog.at_level(logging.WARNING, logger="clipper"):
        folder = RunFolder(tmp_path / "run")
    check_free(tmp_path / "run")
    assert [record.getMessage().count("no locks") for record in caplog.records] == [1]
    assert not (tmp_path / "run/log.txt").exists(), "a folder that nothing was written to is new"
    folder.log("begun")
    folder.log("ended")
    lines = (tmp_path / "run/log.txt").read_text().splitlines()
    assert ["no locks" in line for line in lines] == [True, False, False]
    folder.close()


@pytest.mark.parametrize("text", ["", "x" * 100, "-1", "12\x1b[2J", "٣", "12 a\x1b[2J", "12 a b"])
def test_a_lock_of_strange_content_is_a_lock(text: str, tmp_path: Path) -> None:
    """A number is shown if there is one, and nothing else of what somebody may have written."""
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run/lock").write_text(text)
    with pytest.raises(clipper.ClipperError) as caught:
        check_free(tmp_path / "run")
    assert caught.value.message.endswith("another process is writing it.")
    folder.close()


@pytest.mark.slow
def test_ten_runs_without_a_name_that_start_at_once_have_ten_folders(tmp_path: Path) -> None:
    """Ten shells at the same moment: run1 to run10, each with all of its rows."""
    words = ["train", "CartPole-v1", *TINY, "--quiet"]
    started = [
        subprocess.Popen(
            [SCRIPT, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(10)
    ]
    for process in started:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    runs = tmp_path / "runs/CartPole-v1"
    assert sorted(p.name for p in runs.iterdir()) == sorted(f"run{i}-0" for i in range(1, 11))
    for run in runs.iterdir():
        assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64", "128"]
