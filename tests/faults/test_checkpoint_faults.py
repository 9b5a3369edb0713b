"""Laws of a save that fails at any call to the system, and of a checkpoint that is damaged later.

A checkpoint is written by some twenty calls, all that a run does to be gone on with and saved by some
seventy. Each of them
is refused in turn, by a full disk, a used up quota and a broken disk, and in each the process is killed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipper
import facts
from clipper.agent import Agent
from clipper.alarm_facts import Alarm
from clipper.checkpoint import (
    Checkpoint,
    CheckpointRules,
    checkpoints_in,
    parameters_sha256,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
)
from clipper.cli.main import main
from clipper.errors import FileError
from clipper.training_report import Outcome
from commands import read_rows
from failing_disk import dying, failing_disk, in_child, refusing


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the disk, whose calls count and fail all the same."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


ERRORS = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO}
MEMBERS = ("agent.safetensors", "training.safetensors", "state.json", "manifest.json")


def small(step: int) -> Checkpoint:
    """Returns a checkpoint every part of which says which one it is."""
    return Checkpoint(
        step=step,
        agent={"policy.w": np.full((2, 3), step, np.float32)},
        agent_meta={"format": 1, "step": step},
        training={"engine.m": np.arange(5.0) * step, "sampler.steps": np.array([step])},
        state={"training": {"step": step}, "best": 0.1 * step},
    )


def assert_is(found: Checkpoint, step: int) -> None:
    """Fails unless all of a checkpoint is that of `small`, to the last bit and type."""
    wanted = small(step)
    for arrays, others in ((found.agent, wanted.agent), (found.training, wanted.training)):
        assert arrays.keys() == others.keys()
        for name, array in arrays.items():
            assert array.tobytes() == others[name].tobytes()
            assert (array.dtype, array.shape) == (others[name].dtype, others[name].shape)
    assert found.step == step
    assert found.agent_meta == wanted.agent_meta
    assert found.state == {"format": 1, **wanted.state}


def raised_by(work: Callable[[], Any]) -> FileError | None:
    """Returns the error of ours that some work ends in, or None."""
    try:
        work()
    except FileError as error:
        return error
    return None


# ---- a checkpoint alone --------------------------------------------------------------------------


def save_over(folder: Path, first: int, fail: Any, last: int | None = None) -> list[str]:
    """Writes step 2 over step 1, with the calls from `first` on failing; returns the calls made."""
    with failing_disk(fail, first=first, last=last) as made:
        write_checkpoint(folder, small(2), keep=1)
    return made


def num_calls(tmp_path: Path) -> int:
    """Returns by how many calls a checkpoint is written and the one before it removed."""
    write_checkpoint(tmp_path / "counted", small(1))
    made = save_over(tmp_path / "counted", 0, dying)
    assert {"open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir"} <= set(made)
    return len(made)


def test_a_kill_in_any_call_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """A process ended by SIGKILL in the k-th call leaves the old or the new one, for every k.

    Even where one checkpoint alone is kept, and it is the one that is replaced.
    """
    last_old = 0
    total = num_calls(tmp_path)
    for k in range(1, total + 1):
        folder = tmp_path / f"at-{k}"
        write_checkpoint(folder, small(1))
        assert in_child(lambda k=k, f=folder: save_over(f, k, dying)) == -signal.SIGKILL
        found, problems = read_checkpoint(folder)
        assert problems == []
        assert_is(found, found.step)
        last_old = k if found.step == 1 else last_old
        write_checkpoint(folder, small(3))
        assert_is(read_checkpoint(folder)[0], 3)
        assert not [p.name for p in folder.iterdir() if "." in p.name], "leftovers"
    assert 10 < last_old < total  # both happen


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_refusal_of_any_call_loses_nothing(tmp_path: Path, name: str, lasting: bool) -> None:
    """The k-th call is refused, for every k: one error with path and cause, or the new checkpoint.

    The old one is whole in either case, and once the disk is well again so is the next.
    """
    refused = 0
    for k in range(1, num_calls(tmp_path) + 1):
        folder = tmp_path / f"at-{k}"
        write_checkpoint(folder, small(1))
        last = None if lasting else k
        error = raised_by(lambda f=folder, k=k, n=last: save_over(f, k, refusing(ERRORS[name]), n))
        if error is not None:
            refused += 1
            assert str(folder / "step-000000000002") in error.message
            assert os.strerror(ERRORS[name]) in error.message
            assert ".tmp" not in error.message
        found, problems = read_checkpoint(folder)
        assert problems == []
        assert_is(found, found.step)
        write_checkpoint(folder, small(3))
        assert_is(read_checkpoint(folder)[0], 3)
        assert not [p.name for p in folder.iterdir() if "." in p.name], "leftovers"
    assert refused > 10


# ---- a whole run ---------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (4,),
    "total_timesteps": 4 * 32,
    "eval_every": 64,
    "eval_episodes": 1,
}


def parameters(agent: Agent) -> str:
    """Returns the hash of an agent's policy."""
    state = agent.policy.state_dict()
    return parameters_sha256({f"policy.{k}": v.numpy() for k, v in state.items()})


def until(step: int) -> Callable[[Any], bool]:
    """Returns a callback that ends a run at a step."""
    return lambda report: report.step < step


@pytest.fixture(scope="module")
def straight() -> str:
    """Parameters of the run that nothing stopped."""
    agent = clipper.PPO("CartPole-v1", **SETTINGS)
    agent.train(progress=False)
    return parameters(agent)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after two of its four iterations."""
    run = tmp_path_factory.mktemp("half") / "run"
    agent = clipper.PPO("CartPole-v1", **SETTINGS)
    agent.train(progress=False, run_dir=run, callback=until(64), keep=1)
    return run


def go_on(run: Path, fail: Any, first: int, last: int | None = None) -> list[str]:
    """Goes on for an iteration with failing calls, that of taking the folder's lock the first of them;
    returns the calls that were made."""
    with failing_disk(fail, first=first, last=last) as made:
        agent = clipper.resume(run)
        try:
            agent.train(progress=False, callback=until(96), checkpoint_every=32)
        finally:
            agent.close()
    return made


def assert_goes_on(run: Path, straight: str, k: int) -> None:
    """Fails unless a run goes on to the end as the one that nothing stopped, with all of its rows."""
    agent = clipper.resume(run)
    assert agent.step in (64, 96), k
    agent.train(progress=False)
    assert parameters(agent) == straight, k
    assert agent.inexact is None, k
    steps = [row["step"] for row in read_rows(run / "metrics.csv")]
    assert steps == ["32", "64", "96", "128"], k
    meta = read_tensors(run / "best.safetensors")[1]
    assert meta["score"] == agent.best, k
    assert parameters_sha256(read_tensors(run / "agent.safetensors")[0]) == straight, k
    assert len(checkpoints_in(run / "checkpoints")) == 1, k


def calls_of(half: Path, tmp_path: Path) -> list[str]:
    """Returns the calls that an iteration and its save make."""
    run = Path(shutil.copytree(half, tmp_path / "counted"))
    made = go_on(run, dying, 0)
    assert len(made) > 40
    assert made[:2] == ["mkdir", "open"], "the lock, before anything is changed"
    assert made.count("rename") >= 2
    return made


def test_every_file_of_a_run_is_among_those_that_fail(half: Path, tmp_path: Path) -> None:
    """Negative control: the calls in which a disk fails are those of all files that a run writes."""
    run = Path(shutil.copytree(half, tmp_path / "run"))
    opened: set[str] = set()

    def note(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "open":
            opened.add(Path(args[0]).name.removeprefix(".").partition(".tmp-")[0])
        return original(*args)

    go_on(run, note, 1)
    assert opened >= {"lock", "log.txt", "config.json", "metrics.csv", "episodes.csv", *MEMBERS}


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_in_any_call_goes_on(
    every: int, half: Path, straight: str, tmp_path: Path
) -> None:
    """After a SIGKILL in any call of an iteration and its save the run ends with the same bits."""
    for k in range(1, len(calls_of(half, tmp_path)) + 1, every):
        run = Path(shutil.copytree(half, tmp_path / f"at-{k}"))
        assert in_child(lambda k=k, run=run: go_on(run, dying, k)) == -signal.SIGKILL
        assert_goes_on(run, straight, k)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_whose_disk_refuses_any_call_goes_on(
    every: int, lasting: bool, name: str, half: Path, straight: str, tmp_path: Path
) -> None:
    """A refusal stops a run by our error, with a path and the cause, or not at all; no bit is lost."""
    made = calls_of(half, tmp_path)
    for k in range(1, len(made) + 1, every):
        run = Path(shutil.copytree(half, tmp_path / f"at-{k}"))
        last = None if lasting else k
        error = raised_by(lambda r=run, k=k, n=last: go_on(r, refusing(ERRORS[name]), k, n))
        if error is not None:
            assert str(run) in error.message
            assert os.strerror(ERRORS[name]) in error.message
        elif lasting:
            # all had been written but for the removal of what is not needed any more
            assert set(made[k - 1 :]) <= {"unlink", "rmdir"}
        assert_goes_on(run, straight, k)


class Episode:
    """A disk that is full for some iterations of a run; a callback.

    Args:
        first: Step of the iteration whose files are the first that are refused.
        last: Step of the last one.
    """

    def __init__(self, first: int, last: int) -> None:
        self._steps = range(first, last + 1)
        self._open: Any = None
        self.shown: dict[int, dict[str, str]] = {}

    def __call__(self, report: Any) -> None:
        """Fills the disk before an iteration is written, or makes room."""
        self.shown[report.step] = dict(report.unwritten)
        if report.step in self._steps and self._open is None:
            self._open = failing_disk(refusing(errno.ENOSPC), first=1)
            self._open.__enter__()
        elif report.step not in self._steps:
            self.end()

    def end(self) -> None:
        """Makes room."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def train_while_full(run: Path, disk: Episode, **more: Any) -> tuple[Agent, Outcome]:
    """Trains with a checkpoint after every iteration."""
    agent = clipper.PPO("CartPole-v1", **{**SETTINGS, **more})
    try:
        return agent, agent.train(progress=False, run_dir=run, callback=disk, checkpoint_every=1)
    finally:
        disk.end()


def train_by_command(disk: Episode, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Trains the same by `clipper train` in the working directory; returns its exit code."""
    monkeypatch.setattr("clipper.progress.ProgressDisplay.__call__", lambda _, r: disk(r))
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items() if k != "hidden_sizes"]
    try:
        return main(["train", "CartPole-v1", "--name=full", "--hidden-sizes=4", *words, *flags])
    finally:
        disk.end()


def test_training_goes_on_while_the_disk_is_full(
    straight: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A periodic save that fails is said once, shown until it is made up for, and tried again.

    When there is room again all rows are there, the checkpoint is the last one, and nothing that was
    learnt has changed.
    """
    disk = Episode(64, 96)
    with caplog.at_level(logging.WARNING, logger="clipper"):
        agent, outcome = train_while_full(tmp_path / "run", disk, eval_every=0)
    assert parameters(agent) == straight
    assert outcome.unwritten == {}
    assert disk.shown[32] == disk.shown[64] == {}
    assert set(disk.shown[96]) == set(disk.shown[128]) == {"a row or line", "a checkpoint"}
    assert "No space left on device" in disk.shown[128]["a checkpoint"]
    said = [record.getMessage() for record in caplog.records]
    refused = [text for text in said if "No space left on device" in text]
    assert len(refused) == 2, said
    assert all("goes on, and tries again" in text for text in refused)
    assert sum("is written now" in text for text in said) == 2
    assert [row["step"] for row in read_rows(tmp_path / "run/metrics.csv")] == [
        "32",
        "64",
        "96",
        "128",
    ]
    assert read_checkpoint(tmp_path / "run/checkpoints")[0].step == 128


def test_a_best_agent_that_was_not_written_is_not_the_best(tmp_path: Path) -> None:
    """The mark to beat is that of the file, so that the next one that beats it is kept.

    The evaluation after 64 steps finds the disk full. That after 128 is kept, whatever its score.
    """
    agent, outcome = train_while_full(tmp_path / "run", Episode(32, 32))
    assert outcome.unwritten == {}
    meta = read_tensors(tmp_path / "run/best.safetensors")[1]
    assert (meta["step"], meta["score"]) == (128, agent.best)


def test_a_last_save_that_fails_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with exit code 5: what, why, up to where the run is kept, and how to go on."""
    monkeypatch.chdir(tmp_path)
    code = train_by_command(Episode(128, 128), monkeypatch, "--checkpoint-every=32")
    said = capsys.readouterr()
    assert code == 5, said.err
    assert "must be writable, but No space left on device" in said.err
    assert "everything up to step 96 is kept" in said.err
    assert main(["resume", "runs/CartPole-v1/full-0", "--quiet"]) == 0
    assert read_checkpoint(tmp_path / "runs/CartPole-v1/full-0/checkpoints")[0].step == 128


def test_a_run_that_learnt_is_never_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint but the first could be written: the rows and the best agent stay where they are."""
    monkeypatch.chdir(tmp_path)
    code = train_by_command(Episode(96, 128), monkeypatch)
    said = capsys.readouterr()
    assert code == 5, said.err
    assert "no checkpoint could be written; what else was is in" in said.err
    run = tmp_path / "runs/CartPole-v1/full-0"
    assert [row["step"] for row in read_rows(run / "metrics.csv")][:2] == ["32", "64"]
    assert (run / "best.safetensors").exists()


def test_an_alarm_ends_no_run_whose_disk_is_full(
    straight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says waits for room, as rows do."""
    alarm = Alarm("kl", 1.0, "it moves too far", ("lower learning_rate",))
    late = (lambda past: alarm if past.progress > 0.7 else None,)
    monkeypatch.setattr("clipper.alarms.RULES", late)
    agent, outcome = train_while_full(tmp_path / "run", Episode(64, 96), eval_every=0)
    assert parameters(agent) == straight
    assert outcome.unwritten == {}


def test_a_best_agent_that_is_gone_is_no_mark_to_beat(tmp_path: Path) -> None:
    """After its file was damaged the next evaluation writes another, whatever it finds."""
    agent = clipper.PPO("CartPole-v1", **SETTINGS)
    agent.train(64, progress=False, run_dir=tmp_path / "run")
    agent.close()
    best = tmp_path / "run/best.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    agent = clipper.resume(tmp_path / "run")
    assert agent.best is None
    agent.train(128, progress=False)
    agent.close()
    assert read_tensors(best)[1]["step"] in (96, 128)


# ---- when checkpoints are written ----------------------------------------------------------------


def test_checkpoints_are_written_by_steps_and_kept_by_number(tmp_path: Path) -> None:
    """One after each iteration that passes a multiple, beside the first and the last; N stay.

    48 is passed at step 64, 96 at step 96; a resumed run goes on by the rules it was begun with.
    """
    run = tmp_path / "run"
    agent = clipper.PPO("CartPole-v1", **SETTINGS)
    rules = {"checkpoint_every": 48, "checkpoint_minutes": 0, "keep": 9}
    agent.train(progress=False, run_dir=run, **rules)
    steps = [int(p.name[5:]) for p in checkpoints_in(run / "checkpoints")]
    assert steps == [0, 64, 96, 128]
    more = clipper.resume(run)
    more.train(8 * 32, progress=False)
    steps = [int(p.name[5:]) for p in checkpoints_in(run / "checkpoints")]
    assert steps == [0, 64, 96, 128, 160, 192, 256]  # passes 144, 192 and 240
    last = clipper.resume(run)
    last.train(9 * 32, progress=False, keep=1)
    assert [int(p.name[5:]) for p in checkpoints_in(run / "checkpoints")] == [288]


def test_checkpoints_are_written_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One when the last is older than so many minutes: never at 0, always at next to nothing."""
    monkeypatch.setattr("clipper.checkpoint._SHARE", 0)
    for minutes, steps in ((0, [0, 128]), (1e-9, [0, 32, 64, 96, 128])):
        run = tmp_path / f"run-{minutes}"
        agent = clipper.PPO("CartPole-v1", **SETTINGS)
        agent.train(progress=False, run_dir=run, checkpoint_minutes=minutes, keep=9)
        assert [int(p.name[5:]) for p in checkpoints_in(run / "checkpoints")] == steps


def test_checkpoints_by_time_cost_a_percent() -> None:
    """What takes long to write is written so much the rarer, but every ten minutes or as asked."""
    rules = CheckpointRules(checkpoint_minutes=0.5)
    due = [rules.is_due(0, 1, since, cost) for since, cost in (
        (29, 0.1), (31, 0.1), (31, 0.4), (41, 0.4), (499, 5), (501, 5), (599, 60), (601, 60),
    )]  # fmt: skip
    assert due == [False, True] * 4
    rare = CheckpointRules(checkpoint_minutes=30)
    assert not rare.is_due(0, 1, 1799, 60)
    assert rare.is_due(0, 1, 1801, 60)
    never = CheckpointRules(checkpoint_minutes=0)
    assert not never.is_due(0, 1, 1e9, 60)
    assert CheckpointRules(checkpoint_every=10).is_due(5, 12, 0, 60)


def test_a_slow_save_makes_the_next_ones_rarer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 0.1 s: by time there is one in ten seconds at most, however often it is asked for."""
    write = write_checkpoint
    monkeypatch.setattr(
        "clipper.run_keeper.write_checkpoint", lambda *given: (time.sleep(0.1), write(*given))[1]
    )
    agent = clipper.PPO("CartPole-v1", **{**SETTINGS, "total_timesteps": 640})
    agent.train(progress=False, run_dir=tmp_path, checkpoint_minutes=1e-9, keep=99)
    assert len(checkpoints_in(tmp_path / "checkpoints")) == 2


def test_the_best_is_not_replaced_by_a_worse_one_after_a_kill(half: Path, tmp_path: Path) -> None:
    """A kill after an evaluation and before the next checkpoint: the file's score is the mark to beat.

    The run is set back to a checkpoint that knows nothing of the best agent in the folder, whose score
    no CartPole agent reaches.
    """
    run = Path(shutil.copytree(half, tmp_path / "run"))
    agent = clipper.resume(run)
    keeper = agent._run._store
    assert keeper is not None
    keeper.save_best(501.0)
    agent.close()
    before = (run / "best.safetensors").read_bytes()
    more = clipper.resume(run)
    more.train(progress=False)
    assert more.best == 501.0
    assert (run / "best.safetensors").read_bytes() == before


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    write_checkpoint(tmp_path, small(1))
    write_checkpoint(tmp_path, small(2))
    return tmp_path


def assert_found(folder: Path, member: str, content: bytes) -> None:
    """Puts damaged content in the place of a member of step 2; fails if it is taken for whole."""
    path = folder / "step-000000000002" / member
    before = path.read_bytes()
    path.write_bytes(content)
    found, problems = read_checkpoint(folder)
    if found.step == 2:
        assert_is(found, 2)  # not a number differs: what was changed does not matter
        assert problems == []
    else:
        assert_is(found, 1)
        assert problems[0].startswith("step-000000000002: ")
        os.rename(folder / "step-000000000002.bad", folder / "step-000000000002")
    path.write_bytes(before)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_no_truncated_member_is_taken_for_whole(every: int, member: str, two: Path) -> None:
    """Cut to any length a member is found, and the checkpoint before it is read."""
    content = (two / "step-000000000002" / member).read_bytes()
    for size in range(0, len(content), every):
        assert_found(two, member, content[:size])
    facts.note("cuts", lengths=len(range(0, len(content), every)))


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_taken_for_whole(count: int, member: str, two: Path) -> None:
    """Any bit of any member: found, or without any effect on what is read."""
    content = (two / "step-000000000002" / member).read_bytes()
    rng = np.random.default_rng(len(content))
    for bit in rng.integers(0, 8 * len(content), count).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_found(two, member, bytes(damaged))
    facts.note("flips", bits=count)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_flipped_bit_of_a_format_is_no_newer_version(member: str, two: Path) -> None:
    """A digit that has become a larger one is damage, and the checkpoint before it is read."""
    content = (two / "step-000000000002" / member).read_bytes()
    (at,) = (found.end() - 1 for found in re.finditer(rb'"format\\?": ?\d', content))
    for bit in range(8):
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        assert_found(two, member, bytes(damaged))


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_an_agent_file_is_taken_for_whole(
    count: int, half: Path, tmp_path: Path
) -> None:
    """An agent file alone has a sum too: any bit is found, or without any effect on what is read."""
    content = (half / "agent.safetensors").read_bytes()
    arrays, meta = read_tensors(half / "agent.safetensors")
    damaged = tmp_path / "agent.safetensors"
    rng = np.random.default_rng(1)
    refused = 0
    for bit in rng.integers(0, 8 * len(content), count).tolist():
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(changed)
        try:
            found, found_meta = read_tensors(damaged)
        except FileError:
            refused += 1
            continue
        assert found_meta == meta
        assert {k: v.tobytes() for k, v in found.items()} == {
            k: v.tobytes() for k, v in arrays.items()
        }
    assert refused > 0.95 * count
