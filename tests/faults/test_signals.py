"""Signals at the worst moments: a run stops in time, nothing is lost, no process stays behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import clipper
import clipper.progress
import facts
from clipper.checkpoint import read_checkpoint, read_tensors
from commands import SCRIPT, TINY, read_rows
from libraries import NEEDS_ENGINE

LONG = ["--total-timesteps=64000000", "--name=s", "--eval-every=0", "--quiet"]
TRAIN = ["train", "CartPole-v1", *TINY, *LONG]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# commands take seconds to start, and hear both in the same way
ONE_OF_BOTH = pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
RUN = Path("runs/CartPole-v1/s-0")
# what a signal may take, and what a second one may
SECONDS, SECONDS_OF_TWO, SECONDS_OF_KILL = 10.0, 2.0, 5.0


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Waits and returns how long."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, what
        time.sleep(0.02)
    return time.monotonic() - started


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own; what is left of it is killed in the end."""
    process = subprocess.Popen(
        words if words[0] == sys.executable else [SCRIPT, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def on_a_terminal(folder: Path, words: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """The command on a terminal of its own, and the other end of that."""
    ours, theirs = os.openpty()
    # the first terminal that the leader of a session opens is the one that ends it
    take = "import os, sys; os.setsid(); os.close(os.open(os.ttyname(0), os.O_RDWR)); "
    process = subprocess.Popen(
        [sys.executable, "-c", take + "os.execv(sys.argv[1], sys.argv[1:])", SCRIPT, *words],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    return process, ours


def within(begun: float, limit: float, name: str) -> None:
    """Notes how long it took, and holds it to the limit."""
    seconds = time.monotonic() - begun
    facts.note(f"signals_{name}", most_seconds=seconds)
    assert seconds < limit


def has_rows(folder: Path, count: int = 3) -> bool:
    metrics = folder / RUN / "metrics.csv"
    return metrics.exists() and metrics.read_bytes().count(b"\n") > count


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def shared_memory() -> set[str]:
    """Names of shared memory that would outlive its processes."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def assert_goes_on(run: Path, steps: int) -> None:
    """The newest checkpoint, the agent and the rows are of one step, and the run can be resumed."""
    assert read_checkpoint(run / "checkpoints")[0].step == steps
    assert read_tensors(run / "agent.safetensors")[1]["step"] == steps
    agent = clipper.resume(run)
    assert agent.inexact is None
    agent.train(steps + 64, progress=False)
    agent.close()
    found = [int(row["step"]) for row in read_rows(run / "metrics.csv")]
    assert found == list(range(64, steps + 65, 64))


@ONE_OF_BOTH
def test_a_run_with_workers_stops_with_all_of_them(number: signal.Signals, tmp_path: Path) -> None:
    """130 or 143 within ten seconds, from the last finished iteration; workers and memory are gone."""
    before = shared_memory()
    words = [word for word in TRAIN if not word.startswith("--num-envs")]
    with started(tmp_path, *words, "--num-envs=2", "--workers=1") as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        workers = tree(process)
        assert workers
        process.send_signal(number)
        begun = time.monotonic()
        out, err = process.communicate(timeout=30)
        within(begun, SECONDS, "once")
        assert process.returncode == CODES[number], err
        assert "Traceback" not in err
        assert f"stopped by {number.name}" in out
    until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
    assert shared_memory() <= before
    steps = int(read_rows(tmp_path / RUN / "metrics.csv")[-1]["step"])
    assert_goes_on(tmp_path / RUN, steps)


def test_a_terminal_that_closes_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    """The kernel tells the run and none of its output arrives any more: it saves and is 129."""
    words = [word for word in TRAIN if word != "--quiet" and not word.startswith("--num-envs")]
    process, terminal = on_a_terminal(tmp_path, [*words, "--num-envs=2", "--workers=1"])
    try:
        until(lambda: has_rows(tmp_path), "no rows were written")
        workers = tree(process)
        os.close(terminal)
        assert process.wait(timeout=SECONDS) == 129
    finally:
        process.kill()
        process.wait()
    until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
    assert "stopped by SIGHUP" in (tmp_path / RUN / "log.txt").read_text().splitlines()[-1]
    assert_goes_on(tmp_path / RUN, int(read_rows(tmp_path / RUN / "metrics.csv")[-1]["step"]))


def test_a_hang_up_is_nothing_to_a_run_under_nohup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does, inherited
    try:
        with started(tmp_path, *TRAIN) as process:
            until(lambda: has_rows(tmp_path), "no rows were written")
            process.send_signal(signal.SIGHUP)
            time.sleep(1.0)  # in which it would have ended
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 143
    assert "stopped by SIGTERM" in out


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGHUP),
        pytest.param((signal.SIGHUP, signal.SIGTERM), marks=pytest.mark.slow),
        pytest.param((signal.SIGHUP, signal.SIGHUP), marks=pytest.mark.slow),
    ],
)
def test_a_hang_up_hastens_nothing(numbers: tuple[signal.Signals, ...], tmp_path: Path) -> None:
    """Systems send one beside what else they send, shells twice: the run still saves."""
    with started(tmp_path, *TRAIN) as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        for number in numbers:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode in {129, 143}, err
    assert "stopped by SIG" in out
    assert_goes_on(tmp_path / RUN, int(read_rows(tmp_path / RUN / "metrics.csv")[-1]["step"]))


@pytest.mark.parametrize("algorithm", ["ppo", "cem"])
def test_a_machine_that_stops_tells_everyone_at_once(algorithm: str, tmp_path: Path) -> None:
    """SIGTERM to the workers too, as at a shutdown: the run saves as if it alone had been told."""
    words = TRAIN
    if algorithm == "cem":
        words = ["train", "CartPole-v1", "--algo=cem", "--preset=none", "--hidden-sizes=4"]
        words += ["--population-size=4", *LONG]
    words = [word for word in words if not word.startswith("--num-envs")]
    with started(tmp_path, *words, "--num-envs=2", "--workers=1") as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        workers = tree(process)
        for each in (*workers, process):
            each.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 143, err
        assert "Traceback" not in err
        assert "is lost" not in err
        assert "stopped by SIGTERM" in out
    until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
    steps = int(read_rows(tmp_path / RUN / "metrics.csv")[-1]["step"])
    assert read_checkpoint(tmp_path / RUN / "checkpoints")[0].step == steps


STUCK = """
import time
from gymnasium.envs.classic_control import CartPoleEnv
class Stuck(CartPoleEnv):
    count = 0
    def step(self, action):
        Stuck.count += 1
        if Stuck.count > 2000:
            time.sleep(600)
        return super().step(action)
"""


def test_a_stuck_worker_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Its step lasts ten minutes; where its environments were is known, and it is killed."""
    (tmp_path / "stuck.py").write_text(STUCK)
    words = ["train", "stuck:Stuck", *TINY, *LONG, "--isolate", "--env-timeout=600"]
    with started(tmp_path, *words) as process:
        until(lambda: any(tmp_path.glob("runs/*/s-0/metrics.csv")), "no run was begun")
        (run,) = tmp_path.glob("runs/*/s-0")
        sizes: list[int] = []

        def is_stuck() -> bool:
            sizes.append((run / "metrics.csv").stat().st_size)
            return sizes[-1] > 1000 and len(sizes) > 50 and len(set(sizes[-50:])) == 1

        until(is_stuck, "it was never stuck")
        workers = tree(process)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        out, err = process.communicate(timeout=30)
        within(begun, SECONDS, "once")
        assert process.returncode == 130, err
        assert "stopped by SIGINT" in out
    until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
    steps = int(read_rows(run / "metrics.csv")[-1]["step"])
    assert steps > 1000
    assert read_checkpoint(run / "checkpoints")[0].step == steps


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_display_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of stderr goes away while an agent is trained: it is trained to its end."""
    shown = clipper.progress.ProgressDisplay._show
    monkeypatch.setattr("clipper.progress.ProgressDisplay.__call__", shown)
    agent = clipper.PPO("CartPole-v1", preset="none", num_steps=8, minibatch_size=8, eval_every=0)
    agent.train(
        total_timesteps=4 * 8 * agent.config.num_envs,
        callback=lambda report: monkeypatch.setattr(sys, "stderr", Gone()),
    )
    agent.close()
    assert agent.step == 4 * 8 * agent.config.num_envs


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """After SIGKILL nobody asks them any more: they are gone within five seconds."""
    before = shared_memory()
    with started(tmp_path, *TRAIN, "--workers=1", "--isolate") as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        workers = tree(process)
        assert workers
        process.kill()
        process.wait()
        seconds = until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
        facts.note("signals_killed", most_seconds=seconds)
    assert shared_memory() <= before


DEAF = """
import collections, itertools, os
from gymnasium.envs.classic_control import CartPoleEnv
class Deaf(CartPoleEnv):
    steps = 0
    def step(self, action):
        Deaf.steps += 1
        if Deaf.steps > 500:
            # a loop in C that looks at no signal and keeps all other threads from running; it makes
            # the folder itself, so that no signal sent after that is heard before the loop begins
            began = map(os.mkdir, ["deaf"])
            collections.deque(itertools.chain(began, itertools.repeat(0)), maxlen=0)
        return super().step(action)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends the process on Linux alone")
def test_a_worker_deep_in_a_call_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """No thread of its own can see to it while an environment's C code keeps Python's lock."""
    (tmp_path / "deaf_env.py").write_text(DEAF)
    words = ["train", "deaf_env:Deaf", *TINY, *LONG, "--isolate", "--env-timeout=600"]
    with started(tmp_path, *words) as process:
        until(lambda: (tmp_path / "deaf").exists(), "the environment did not come so far")
        workers = tree(process)
        process.kill()
        process.wait()
        until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)


ENDLESS = """
import sys, time
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
class Endless(CartPoleEnv):
    def step(self, action):
        obs, *_ = super().step(action)
        open("moving", "w").close()
        time.sleep(0.001)
        return obs * 0, 1.0, False, False, {}
    def render(self):
        return super().render()
gymnasium.register("Endless-v0", Endless, max_episode_steps=10**9)
"""


def test_a_signal_in_an_evaluation_takes_its_iteration_back(tmp_path: Path) -> None:
    """The evaluation belongs to its iteration: what is kept is the one before, and it is exact."""
    with started(tmp_path, *TRAIN[:-2], "--eval-every=640", "--eval-episodes=5000") as process:
        # the tenth iteration is followed by 10,000 episodes
        until(lambda: has_rows(tmp_path, 9), "no rows were written")
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, err = process.communicate(timeout=30)
        within(begun, SECONDS, "once")
        assert process.returncode == 143, err
    assert len(read_rows(tmp_path / RUN / "metrics.csv")) == 9
    assert read_checkpoint(tmp_path / RUN / "checkpoints")[0].step == 9 * 64


SAVING = """
import os, signal, sys, time
from clipper import run_keeper
from clipper.cli.main import entry
write = run_keeper.write_checkpoint
count = 0
when, seconds, words = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
def slow(*arguments, **keywords):
    global count
    count += 1
    if count == when:
        open("saving", "w").close()
        time.sleep(seconds)
    write(*arguments, **keywords)
run_keeper.write_checkpoint = slow
sys.argv[1:] = words
entry()
"""


def test_a_signal_during_a_save_waits_for_it(tmp_path: Path) -> None:
    """The checkpoint that is being written becomes whole; then the run stops as always."""
    words = [sys.executable, "-c", SAVING, "1", "2.0", *TRAIN]
    with started(tmp_path, *words) as process:
        until(lambda: (tmp_path / "saving").exists(), "nothing was saved")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
    assert read_checkpoint(tmp_path / RUN / "checkpoints")[0].step == 0


@pytest.mark.parametrize("number", CODES)
def test_a_signal_waits_until_torch_is_loaded(number: signal.Signals, tmp_path: Path) -> None:
    """An error out of the start of its C++ would end the process with SIGABRT: here it ends cleanly."""
    (tmp_path / "torch.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), {int(number)})\nopen('loaded', 'w').close()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "clipper", "train", "CartPole-v1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (CODES[number], "stopped.\n")
    assert (tmp_path / "loaded").exists()


@NEEDS_ENGINE
@pytest.mark.parametrize(
    "pause", [0.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.002, 0.1))]
)
def test_one_signal_that_comes_twice_is_one(pause: float, tmp_path: Path) -> None:
    """As `timeout` sends it, to the command and to its group: the run is saved all the same."""
    with started(tmp_path, *TRAIN) as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped by SIGINT" in (tmp_path / RUN / "log.txt").read_text().splitlines()[-1]
    assert_goes_on(tmp_path / RUN, int(read_rows(tmp_path / RUN / "metrics.csv")[-1]["step"]))


@ONE_OF_BOTH
def test_a_second_signal_ends_it_at_once(number: signal.Signals, tmp_path: Path) -> None:
    """While the first one's save hangs, the second is gone within two seconds; the run goes on."""
    words = [sys.executable, "-c", SAVING, "2", "60", *TRAIN, "--workers=1"]
    with started(tmp_path, *words) as process:
        until(lambda: has_rows(tmp_path), "no rows were written")
        workers = tree(process)
        process.send_signal(number)
        until(lambda: (tmp_path / "saving").exists(), "nothing was saved")
        time.sleep(0.6)
        process.send_signal(number)
        begun = time.monotonic()
        process.wait(timeout=30)
        within(begun, SECONDS_OF_TWO, "twice")
        assert process.returncode == -number
        until(lambda: gone(workers), "a worker stayed", SECONDS_OF_KILL)
    # the older checkpoint is the first one, of step 0, and what was written after it is cut off
    run = tmp_path / RUN
    assert read_checkpoint(run / "checkpoints")[0].step == 0
    agent = clipper.resume(run)
    assert agent.inexact is None
    agent.train(128, progress=False)
    agent.close()
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64", "128"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python alone hears the second one")
@ONE_OF_BOTH
def test_a_second_signal_ends_what_hears_none(number: signal.Signals, tmp_path: Path) -> None:
    """A step in this very process never returns from C: Python learns of no signal; two are enough."""
    (tmp_path / "deaf_env.py").write_text(DEAF)
    words = ["train", "deaf_env:Deaf", *TINY, *LONG, "--checkpoint-every=64"]
    with started(tmp_path, *words) as process:
        until(lambda: (tmp_path / "deaf").exists(), "the environment did not come so far")
        process.send_signal(number)
        time.sleep(0.6)
        assert process.poll() is None
        process.send_signal(number)
        begun = time.monotonic()
        process.wait(timeout=30)
        within(begun, SECONDS_OF_TWO, "twice")
        assert process.returncode == -number
    (run,) = (tmp_path / "runs").glob("*/s-0")
    assert read_checkpoint(run / "checkpoints")[0].step == 448


def test_a_long_update_hears_the_signal(tmp_path: Path) -> None:
    """An update of minutes in C++ is left between two minibatches; the iteration is taken back."""
    words = ["train", "CartPole-v1", "--num-envs=8", "--num-steps=2048", "--minibatch-size=64"]
    words += ["--num-epochs=500", *LONG]
    with started(tmp_path, *words) as process:
        until(lambda: (tmp_path / RUN / "checkpoints" / "step-0").exists() or any(
            (tmp_path / RUN / "checkpoints").glob("step-*")), "no checkpoint")  # fmt: skip
        time.sleep(3.0)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, err = process.communicate(timeout=60)
        within(begun, SECONDS, "once")
        assert process.returncode == 143, err
    assert read_checkpoint(tmp_path / RUN / "checkpoints")[0].step == 0
    agent = clipper.resume(tmp_path / RUN)
    assert agent.inexact is None
    agent.close()


@pytest.fixture(scope="module")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that has learnt nothing."""
    file = tmp_path_factory.mktemp("agent") / "agent.safetensors"
    clipper.PPO("CartPole-v1", hidden_sizes=(8,)).save(file)
    return file


@ONE_OF_BOTH
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--episodes=1"],
        ["evaluate", "--episodes=1", "--isolate"],
        ["render", "--out=film.gif"],
    ],
    ids=["evaluate", "isolated", "render"],
)
def test_playing_stops_too(
    words: list[str], number: signal.Signals, agent_file: Path, tmp_path: Path
) -> None:
    """130 or 143 in the middle of an episode, one line on stderr, no process and no half file."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    verb, *rest = words
    code = "import sys; sys.path.insert(0, '.'); from clipper.cli.main import entry; entry()"
    command = [sys.executable, "-c", code, verb, str(agent_file), *rest]
    command += ["--env=endless:Endless-v0"]
    with started(tmp_path, *command) as process:
        until(lambda: (tmp_path / "moving").exists() or process.poll() is not None, "it began")
        time.sleep(0.5)
        children = tree(process)
        assert bool(children) == ("--isolate" in words)
        process.send_signal(number)
        begun = time.monotonic()
        out, err = process.communicate(timeout=30)
        within(begun, SECONDS, "once")
        assert process.returncode == CODES[number], err
        assert (out, err.strip().splitlines()[-1]) == ("", "stopped.")
        assert "Traceback" not in err
    until(lambda: gone(children), "a process stayed", SECONDS_OF_KILL)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "endless.py",
        "moving",
    ]
