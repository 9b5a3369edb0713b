"""A sweep that is stopped or killed: no run is lost or doubled, and no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from clipper.checkpoint import checkpoints_in, read_checkpoint
from clipper.experiments import RunSpec, read_rows, run_sweep
from clipper.experiments.results import read_curve_points
from clipper.folder_lock import lock_file
from commands import SCRIPT, TINY
from commands import read_rows as read_cells

WORDS = [
    *("sweep", "CartPole-v1", "--grid", "clip_range=0.1,0.3", "--seeds", "0-2", "--jobs", "2"),
    *(TINY[:4] + TINY[7:]),
    *("--eval-every=0", "--total-timesteps=32000", "--out=s"),
]


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of six runs with one row written and more runs under way."""
    process = subprocess.Popen(
        [SCRIPT, *WORDS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_under_way() -> bool:
        assert process.poll() is None, process.communicate()
        rows = tmp_path / "s/results.csv"
        if not rows.exists() or rows.read_bytes().count(b"\n") < 2:
            return False
        going = [p for p in tmp_path.glob("s/runs/*/*/metrics.csv") if lines(p) > 3]
        finished = list(tmp_path.glob("s/runs/*/*/result.json"))
        return len(going) > len(finished)

    try:
        until(is_under_way, "no row was written")
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def check_whole(folder: Path, straight: Path) -> None:
    """Every run has one row, one curve and the parameters of a sweep that nothing befell."""
    rows = {row.key: row for row in read_rows(folder / "results.csv")}
    wanted = {row.key: row for row in read_rows(straight / "results.csv")}
    assert rows.keys() == wanted.keys()
    assert len(rows) == 6
    for key, row in rows.items():
        assert row.exact
        for name in ("parameters_sha256", "score", "score_all", "episodes", "steps", "config_hash"):
            assert getattr(row, name) == getattr(wanted[key], name), (key, name)
    found = [(p.key, p.step, p.mean_return) for p in read_curve_points(folder / "curves.csv")]
    straight_points = read_curve_points(straight / "curves.csv")
    assert sorted(found) == sorted((p.key, p.step, p.mean_return) for p in straight_points)
    for run in folder.glob("runs/*/*"):
        steps = [int(cells["step"]) for cells in read_cells(run / "metrics.csv")]
        assert steps == list(range(64, 32000 + 1, 64))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep, left alone."""
    folder = tmp_path_factory.mktemp("straight")
    done = subprocess.run([SCRIPT, *WORDS], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder / "s"


def go_on(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *WORDS], cwd=folder, capture_output=True, text=True, timeout=200)


def test_kill_9_of_the_sweep_loses_nothing(
    sweeping: subprocess.Popen[str], straight: Path, tmp_path: Path
) -> None:
    """Killed in the middle, its runs save and end; the same command at once makes the study whole."""
    children = children_of(sweeping)
    assert len(children) >= 2  # the server and a run
    sweeping.kill()
    sweeping.wait()
    done = go_on(tmp_path)
    assert done.returncode == 0, done.stderr
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert "6 of 6 runs have finished" in done.stdout
    assert "resumed at step" in "".join(p.read_text() for p in tmp_path.glob("s/runs/*/*/log.txt"))
    check_whole(tmp_path / "s", straight)


@pytest.mark.slow
def test_kill_9_of_everything_loses_nothing(
    sweeping: subprocess.Popen[str], straight: Path, tmp_path: Path
) -> None:
    """A power cut: sweep, server and runs at one instant, nobody saves."""
    everyone = [psutil.Process(sweeping.pid), *children_of(sweeping)]
    for process in everyone:
        process.send_signal(signal.SIGSTOP)
    for process in everyone:
        process.kill()
    sweeping.wait()
    done = go_on(tmp_path)
    assert done.returncode == 0, done.stderr
    check_whole(tmp_path / "s", straight)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_stops_all_runs_cleanly(
    number: signal.Signals,
    code: int,
    sweeping: subprocess.Popen[str],
    straight: Path,
    tmp_path: Path,
) -> None:
    """Every run saves where it is, nobody stays, and the command to go on is named."""
    children = children_of(sweeping)
    sweeping.send_signal(number)
    out, err = sweeping.communicate(timeout=60)
    assert sweeping.returncode == code, err
    assert "Traceback" not in err
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert "stopped: " in err
    assert "clipper sweep CartPole-v1" in out
    for run in tmp_path.glob("s/runs/*/*"):
        cells = read_cells(run / "metrics.csv")
        if not cells and not checkpoints_in(run / "checkpoints"):
            continue  # one that has only just begun
        last = int(cells[-1]["step"]) if cells else 0
        assert read_checkpoint(run / "checkpoints")[0].step == last
    assert go_on(tmp_path).returncode == 0
    check_whole(tmp_path / "s", straight)


def test_a_run_that_is_killed_is_a_failure_of_its_own(
    sweeping: subprocess.Popen[str], straight: Path, tmp_path: Path
) -> None:
    """Out of memory ends one run: the others go on, the exit code tells, and it is tried again."""
    server = psutil.Process(sweeping.pid).children()[0]
    server.children()[-1].kill()  # the newest: another may be done already
    out, err = sweeping.communicate(timeout=120)
    assert sweeping.returncode == 1, err
    assert "killed by SIGKILL" in out
    assert "5 of 6 runs have finished" in out
    assert go_on(tmp_path).returncode == 0
    check_whole(tmp_path / "s", straight)


def test_kill_9_of_the_server_is_told_as_what_it_is(
    sweeping: subprocess.Popen[str], straight: Path, tmp_path: Path
) -> None:
    """The process that starts the runs is killed: no defect is claimed, and the same command goes on."""
    server = psutil.Process(sweeping.pid).children()[0]
    children = children_of(sweeping)
    server.kill()
    _, err = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 1, err
    assert "must stay alive, but SIGKILL ended it." in err
    assert "the same command goes on" in err
    assert go_on(tmp_path).returncode == 0
    assert psutil.wait_procs(children, timeout=30)[1] == []
    check_whole(tmp_path / "s", straight)


def test_two_sweeps_do_not_share_a_folder(
    sweeping: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused while the first goes on."""
    from clipper.errors import FileError

    monkeypatch.setattr("clipper.experiments.sweep._LOCK_SECONDS", 0.5)
    with pytest.raises(FileError, match="another sweep is writing it"):
        run_sweep([RunSpec(setting="a", env="CartPole-v1", seed=0)], tmp_path / "s")
    assert sweeping.poll() is None


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    """A sweep that ends without a row removes its folder while another one waits for it."""
    from clipper.experiments import sweep

    place = tmp_path / "s"
    place.mkdir()
    holder = open(place / "lock", "a")  # noqa: SIM115 - closed by the thread
    assert lock_file(holder.fileno(), place)

    def end() -> None:
        time.sleep(0.5)
        (place / "lock").unlink()
        place.rmdir()
        holder.close()

    thread = threading.Thread(target=end)
    thread.start()
    with sweep._locked(place) as descriptor:
        thread.join()
        assert os.path.samestat(os.fstat(descriptor), (place / "lock").stat())
        assert (place / "logs").is_dir()
    assert not (place / "lock").exists()


def test_without_locks_a_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a run does: it is said that nothing keeps another sweep from writing there."""
    from clipper.experiments import sweep

    monkeypatch.setattr(sweep, "lock_file", lambda *_: None)
    with sweep._locked(tmp_path / "s"):
        assert (tmp_path / "s" / "logs").is_dir()
    assert "there are no locks on this file system" in caplog.text


def test_runs_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module remembers, and generators that nobody seeded, are new for every run.

    The environment rewards by a count that its module keeps and draws from numpy's global
    generator: in one process for all runs the second would see the first's count and draws.
    """
    (tmp_path / "leaky.py").write_text(
        "import json, os, random\nimport numpy as np\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "COUNT = 0\n"
        "class Leaky(CartPoleEnv):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        global COUNT\n"
        "        COUNT += 1\n"
        "        if COUNT == 2:\n"  # the second of this process: the first one is looked at
        "            note = [COUNT, np.random.random(), random.random(), os.getpid(),\n"
        "                    len(os.sched_getaffinity(0)), __import__('torch').get_num_threads()]\n"
        f"            with open({str(tmp_path / 'notes.txt')!r}, 'a') as file:\n"
        "                file.write(json.dumps(note) + '\\n')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"num_envs": 1, "num_steps": 32, "minibatch_size": 32, "num_epochs": 1}
    specs = [
        RunSpec(
            setting="a",
            env="leaky:Leaky",
            seed=seed,
            max_episode_steps=20,
            settings={**settings, "total_timesteps": 64, "eval_every": 0},
        )
        for seed in range(3)
    ]
    outcome = run_sweep(specs, tmp_path / "s", jobs=1)
    assert outcome.exit_code == 0, [run.message for run in outcome.runs]
    notes = [json.loads(line) for line in (tmp_path / "notes.txt").read_text().splitlines()]
    assert len(notes) == 3
    for i in (1, 2, 3):  # both draws and the process
        assert len({note[i] for note in notes}) == 3
    assert {note[5] for note in notes} == {1}  # threads of torch
    assert os.getpid() not in {note[3] for note in notes}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_server_may_fork() -> None:
    """With everything imported that runs need, the server has one thread, so that its fork is safe."""
    code = (
        "from clipper.experiments import server\n"
        "server._preload()\n"
        "assert server.can_fork()\n"
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        "assert not server.can_fork()\n"
    )
    from clipper.experiments.processes import _ONE_THREAD

    env = {**os.environ, **_ONE_THREAD}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_a_safe_fork_runs_are_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of a library's in the server: runs are started anew, to the same bits."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        f"open({str(tmp_path / 'starts')!r}, 'a').write('.')\n"
    )
    settings = {"num_envs": 2, "num_steps": 32, "minibatch_size": 64, "total_timesteps": 256}
    specs = [RunSpec(setting="a", env="CartPole-v1", seed=s, settings=settings) for s in (0, 1)]
    forked = run_sweep(specs, tmp_path / "forked", jobs=2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fresh = run_sweep(specs, tmp_path / "fresh", jobs=2)
    assert fresh.exit_code == 0, [run.message for run in fresh.runs]
    assert [r.parameters_sha256 for r in fresh.rows] == [r.parameters_sha256 for r in forked.rows]
    assert (
        len((tmp_path / "starts").read_text()) >= 4
    )  # the server, a look at the settings, two runs
