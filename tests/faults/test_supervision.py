"""An environment that raises, dies or hangs in a worker: the run goes on, and says what happened."""

from __future__ import annotations

import fcntl
import importlib
import json
import logging
import math
import mmap
import os
import re
import resource
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

import clipper
import facts
from clipper.cli.main import main
from clipper.cut_rollout import cut_off
from clipper.envs.make import env_source
from clipper.errors import EnvironmentFault, FileError, NumericsError
from clipper.fault_file import read_fault, write_fault
from clipper.faults import Fault
from clipper.mailbox import readable
from clipper.pace import Pace
from clipper.randomness import EpisodeSeeds, Purpose, derived_seed
from clipper.run_folder import read_config
from clipper.training_report import Report
from clipper.workers import ProcessSampler
from commands import read_rows
from helpers import DictEnv, collected, flat_parameters, policy_for

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 4,
    "num_steps": 24,
    "num_epochs": 1,
    "minibatch_size": 32,
    "hidden_sizes": (8,),
    "total_timesteps": 4 * 96,
    "eval_every": 0,
    "seed": 1,
}
WAYS = ("raise", "kill", "segfault", "exit", "hang")


class Failing(DictEnv):
    """Fails in the `at`-th step after it was made, as long as there are lives left in a file."""

    def __init__(self, way: str, at: int, lives: str, home: int) -> None:
        super().__init__()
        self.way, self.at, self.lives, self.home = way, at, Path(lives), home
        self.count = 0

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count == self.at and os.getpid() != self.home and self.lives.stat().st_size:
            self.lives.write_bytes(self.lives.read_bytes()[1:])
            if self.way == "raise":
                raise OSError("the cable is out \udcff")  # as of names that are not UTF-8
            if self.way == "exit":
                os._exit(7)
            if self.way == "hang":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL if self.way == "kill" else signal.SIGSEGV)
        return super().step(action)


def failing(tmp_path: Path, way: str, *, lives: int, at: int = 30) -> dict[str, Any]:
    (tmp_path / "lives").write_bytes(b"x" * lives)
    home = os.getpid()
    return {"way": way, "at": at, "lives": str(tmp_path / "lives"), "home": home}


@pytest.mark.parametrize("way", WAYS)
def test_the_run_goes_on(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The batches keep their size, the step count is exact, and the fault is told and kept."""
    agent = clipper.PPO(
        Failing,
        env_kwargs=failing(tmp_path, way, lives=1),
        workers=1,
        env_timeout=0.5 if way == "hang" else None,
        **SMALL,
    )
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    assert agent.step == SMALL["total_timesteps"]
    assert "a worker was replaced" in str(agent.inexact)
    words = {
        "raise": "the cable is out",
        "kill": "ended with SIGKILL",
        "segfault": "ended with SIGSEGV",
        "exit": "ended with exit code 7",
        "hang": "did not move for 0.",
    }
    assert words[way] in caplog.text
    (file,) = (tmp_path / "run" / "faults").iterdir()
    fault = read_fault(file)
    assert fault.index in (2, 3)
    assert fault.seed == EpisodeSeeds(1).of(fault.index, fault.episode)
    assert 1 <= fault.step == len(fault.actions) <= 30
    command = f"to see it again: clipper replay {file} --env MODULE:ENV"
    assert command in (tmp_path / "run" / "log.txt").read_text()
    assert command in caplog.text
    # the lines of Python that it was in, also where C code crashed or waits
    report = json.loads(file.read_text())["report"]
    assert ("in step" in report) == (way in ("raise", "segfault", "hang"))
    assert report.rstrip() in caplog.text
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [float(row["rollout/env_faults"] or 0) for row in rows] == [0, 1, 0, 0]
    # both environments of the worker lost an open episode, no episode is played twice
    episodes = [(r["env"], r["episode"]) for r in read_rows(tmp_path / "run" / "episodes.csv")]
    assert len(set(episodes)) == len(episodes)


BRITTLE = """
from gymnasium.envs.classic_control import CartPoleEnv

class Brittle(CartPoleEnv):
    def reset(self, **options):
        self.count = 0
        return super().reset(**options)
    def step(self, action):
        self.count += 1
        if self.count == 8:
            raise OSError("the cable is out")
        return super().step(action)
"""


def test_the_command_that_is_printed_shows_the_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the error of the third fault, which ends the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "brittle_env.py").write_text(BRITTLE)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items() if k != "hidden_sizes"]
    assert main(["train", "brittle_env:Brittle", "--isolate", "--hidden-sizes=8", *flags]) == 3
    said = capsys.readouterr().err
    (command,) = re.findall("to see it again: (clipper replay .*)", said)
    assert main(shlex.split(command)[1:]) == 3
    assert "the cable is out" in capsys.readouterr().out


def test_what_was_collected_before_is_kept(tmp_path: Path) -> None:
    """Rows up to the last good step are those of an undisturbed run; there the episodes end."""
    policy = policy_for(lambda: DictEnv())
    shape = policy_for(lambda: DictEnv())
    kwargs = failing(tmp_path, "kill", lives=1)
    config = clipper.PPOConfig().replace(hidden_sizes=(8,))
    found = []
    for lives in (0, 1):
        (tmp_path / "lives").write_bytes(b"x" * lives)
        source = env_source(Failing, env_kwargs=kwargs)
        sampler = ProcessSampler(source, 4, 1, 5, policy, config)
        found.append(collected(sampler, policy_for(lambda: DictEnv()), 24))
        faults = sampler.take_faults()
        sampler.close()
    assert shape.obs_layout.size == policy.obs_layout.size
    undisturbed, disturbed = found
    (fault,) = faults
    assert fault.how == "ended with SIGKILL"
    good = 29 - 24  # rows of the second rollout before its 30th step
    assert torch.equal(undisturbed[0].obs, disturbed[0].obs)
    a, b = undisturbed[1], disturbed[1]
    assert b.rewards.shape == (24, 4)
    # this process's own environments know nothing of it
    assert torch.equal(a.obs[:, :2], b.obs[:, :2])
    for name in ("obs", "actions", "rewards", "log_probs", "values"):
        assert torch.equal(getattr(a, name)[:good, 2:], getattr(b, name)[:good, 2:]), name
    done = b.terminated | b.truncated
    assert done[good - 1, 2:].all()
    cut = b.truncated[good - 1, 2:]
    assert cut.any()
    # the successor's value is that of the observation which the undisturbed run went on from
    assert torch.equal(b.next_values[good - 1, 2:][cut], a.next_values[good - 1, 2:][cut])
    records = {(e.env, e.index): e for e in b.episodes}
    for env in (2, 3):
        if cut[env - 2]:
            assert any(e.truncated for (i, _), e in records.items() if i == env)


class Spoiling(Failing):
    """Gives NaN five steps before it fails."""

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, math.nan if self.count == self.at - 5 else reward, *rest


def test_rows_of_a_lost_worker_are_looked_at_too(tmp_path: Path) -> None:
    """What is kept of it did not go through its own checks: NaN in it stops the run all the same."""
    agent = clipper.PPO(
        Spoiling,
        env_kwargs=failing(tmp_path, "kill", lives=9, at=12),
        workers=1,
        isolate=True,
        **SMALL,
    )
    with pytest.raises(
        NumericsError, match=r"reward must be finite, but is nan in step 7 of episode 0"
    ):
        agent.train(progress=False)
    agent.close()
    assert agent.step == 0


def test_three_faults_of_one_environment_end_the_run(tmp_path: Path) -> None:
    """What is learnt until then is saved, and the error says what to look at."""
    agent = clipper.PPO(
        Failing, env_kwargs=failing(tmp_path, "kill", lives=9, at=10), workers=1, **SMALL
    )
    with pytest.raises(EnvironmentFault, match="must not fail 3 times within an hour"):
        agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    assert agent.step % 96 == 0
    assert agent.step > 0
    kept = (tmp_path / "run" / "checkpoints").iterdir()
    assert agent.step == max(int(file.name.removeprefix("step-")) for file in kept)
    assert read_config(tmp_path / "run")["env_is_named"] is False
    assert len(list((tmp_path / "run" / "faults").iterdir())) == 3


def test_a_resumed_run_remembers_faults(tmp_path: Path) -> None:
    """Two faults before a resume and one after it are three within an hour."""
    kwargs = failing(tmp_path, "exit", lives=2)
    first = clipper.PPO(Failing, env_kwargs=kwargs, workers=1, **SMALL)
    first.train(progress=False, run_dir=tmp_path / "run")
    first.close()
    assert not (tmp_path / "lives").read_bytes()
    (tmp_path / "lives").write_bytes(b"x")
    second = clipper.resume(
        tmp_path / "run", env=partial(Failing, **kwargs), workers=1, trust_env=True
    )
    with pytest.raises(EnvironmentFault, match="must not fail 3 times within an hour"):
        second.train(8 * 96, progress=False)
    second.close()


def children() -> set[int]:
    """Returns the processes that this one has started."""
    return {child.pid for child in psutil.Process().children()}


@pytest.mark.parametrize("algorithm", ["PPO", pytest.param("CEM", marks=pytest.mark.slow)])
def test_a_worker_that_dies_while_nothing_is_collected_costs_no_checkpoint(
    algorithm: str, tmp_path: Path
) -> None:
    """What the environments were is known without it: PPO goes on to the bits of the undisturbed run.

    CEM's workers keep their candidates' actions to themselves: its run goes on from new episodes, and
    says so.
    """
    settings = SMALL
    if algorithm == "CEM":
        settings = {k: SMALL[k] for k in ("preset", "hidden_sizes", "eval_every", "seed")}
        settings |= {"num_envs": 4, "population_size": 8, "total_timesteps": 900}
    ends = []
    for folder in ("straight", "killed"):
        others = children()
        agent = getattr(clipper, algorithm)(DictEnv, workers=1, **settings)

        def at_second(report: Report, folder: str = folder, others: set[int] = others) -> None:
            if report.iteration == 2 and folder == "killed":
                (pid,) = children() - others
                os.kill(pid, signal.SIGKILL)
                report.stop()

        agent.train(progress=False, run_dir=tmp_path / folder, callback=at_second)
        agent.close()
        if folder == "killed":
            agent = clipper.resume(tmp_path / folder, env=DictEnv, workers=1)
            assert agent.step < settings["total_timesteps"]
            agent.train(progress=False)
            agent.close()
        ends.append((agent.step, agent.inexact, flat_parameters(agent.policy)))
    (_, _, straight), (step, inexact, killed) = ends
    assert step == settings["total_timesteps"]
    if algorithm == "PPO":
        assert inexact is None
        assert torch.equal(straight, killed)
    else:
        assert "began new episodes" in inexact


def test_a_rollout_that_ends_with_its_worker_leaves_the_new_episode_known(tmp_path: Path) -> None:
    """REINFORCE's rollout is over where its episode is cut: a run stopped there goes on from there."""
    kwargs = failing(tmp_path, "kill", lives=1)
    agent = clipper.VPG(
        Failing, env_kwargs=kwargs, workers=1, isolate=True, preset="none", one_episode=True,
        num_envs=1, num_steps=40, hidden_sizes=(8,), total_timesteps=400, eval_every=0, seed=1,
    )  # fmt: skip
    agent.train(
        progress=False,
        run_dir=tmp_path / "run",
        callback=lambda report: report.stop() if "rollout/env_faults" in report.metrics else None,
    )
    agent.close()
    assert not (tmp_path / "lives").read_bytes()
    agent = clipper.resume(
        tmp_path / "run", env=partial(Failing, **kwargs), workers=1, isolate=True, trust_env=True
    )
    agent.train(progress=False)
    agent.close()
    assert "a worker was replaced" in str(agent.inexact)
    assert "could not be replayed" not in str(agent.inexact)


def test_environments_that_are_never_made_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A constructor that hangs in a worker is spoken of, and ends the run."""
    monkeypatch.setattr("clipper.pace._ARRIVAL_SECONDS", 4.0)
    monkeypatch.setattr("clipper.pace._SLOW_ARRIVAL_SECONDS", 1.0)
    home = os.getpid()

    def stuck() -> DictEnv:
        if os.getpid() != home:
            time.sleep(600)
        return DictEnv()

    agent = clipper.PPO(stuck, workers=1, isolate=True, **SMALL)
    with pytest.raises(EnvironmentFault, match="must stay alive, but made no environments in 4 s"):
        agent.train(progress=False)
    assert "is still making its environments after" in caplog.text
    agent.close()


@pytest.mark.parametrize("way", ["segfault", pytest.param("hang", marks=pytest.mark.slow)])
def test_a_worker_that_is_lost_in_a_replay_is_replaced(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on from new episodes of its environments, and says so with the fault."""
    kwargs = failing(tmp_path, way, lives=0, at=1)
    first = clipper.PPO(Failing, env_kwargs=kwargs, workers=1, **SMALL)
    first.train(progress=False, run_dir=tmp_path / "run")
    first.close()
    before = read_rows(tmp_path / "run" / "episodes.csv")
    (tmp_path / "lives").write_bytes(b"x")
    timeout = 0.5 if way == "hang" else None
    second = clipper.resume(
        tmp_path / "run",
        env=partial(Failing, **kwargs),
        workers=1,
        env_timeout=timeout,
        trust_env=True,
    )
    with caplog.at_level(logging.WARNING, "clipper"):
        second.train(8 * 96, progress=False)
    second.close()
    assert second.step == 8 * 96
    assert not (tmp_path / "lives").read_bytes()
    what = "did not move" if way == "hang" else "ended with SIGSEGV"
    for said in (caplog.text, str(second.inexact)):
        assert what in said
        assert "while its episodes were replayed" in said
    (file,) = (tmp_path / "run" / "faults").iterdir()
    fault = read_fault(file)
    assert fault.index in (2, 3)
    assert fault.seed == EpisodeSeeds(1).of(fault.index, fault.episode)
    assert len(fault.actions) == fault.step == 1
    # the episodes that were open are not played a second time
    rows = read_rows(tmp_path / "run" / "episodes.csv")
    assert rows[: len(before)] == before
    episodes = [(row["env"], row["episode"]) for row in rows]
    assert len(set(episodes)) == len(episodes)
    assert (str(fault.index), str(fault.episode)) not in episodes


def test_a_worker_that_is_lost_while_scoring_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CEM goes on with every candidate scored; environment, episode, seed and step are told."""
    kwargs = failing(tmp_path, "kill", lives=1, at=30)
    agent = clipper.CEM(
        Failing, env_kwargs=kwargs, workers=1, preset="none", num_envs=2, population_size=8,
        hidden_sizes=(8,), total_timesteps=600, eval_every=0, seed=1,
    )  # fmt: skip
    scored = []
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(
            progress=False,
            run_dir=tmp_path / "run",
            callback=lambda report: scored.append("search/score_mean" in report.metrics),
        )
    agent.close()
    assert scored[0]
    (file,) = (tmp_path / "run" / "faults").iterdir()
    fault = read_fault(file)
    assert (fault.index, fault.how) == (1, "ended with SIGKILL")
    assert fault.seed == EpisodeSeeds(1).of(1, fault.episode)
    # episodes of at most 20 steps: the 30th step is not one of the first
    assert fault.episode > 0
    assert 1 <= fault.step <= 20
    assert f"environment 1 failed in episode {fault.episode}" in caplog.text
    # no episode was played twice
    rows = read_rows(tmp_path / "run" / "episodes.csv")
    episodes = [(row["env"], row["episode"]) for row in rows]
    assert len(set(episodes)) == len(episodes)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS)
def test_thirty_faults_of_a_kind(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often workers are lost, batches keep their size and no process stays behind."""
    monkeypatch.setattr("clipper.faults.MOST_FAULTS", 1000)
    children = set(psutil.Process().children())
    agent = clipper.PPO(
        Failing,
        env_kwargs=failing(tmp_path, way, lives=30, at=6),
        workers=1,
        env_timeout=0.5 if way == "hang" else None,
        **{**SMALL, "total_timesteps": 8 * 96},
    )
    agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    assert not (tmp_path / "lives").read_bytes()
    assert agent.step == 8 * 96
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert sum(float(row["rollout/env_faults"] or 0) for row in rows) == 30
    assert [int(row["step"]) for row in rows] == [96 * (i + 1) for i in range(8)]
    episodes = [(r["env"], r["episode"]) for r in read_rows(tmp_path / "run" / "episodes.csv")]
    assert len(set(episodes)) == len(episodes)
    assert set(psutil.Process().children()) <= children
    facts.note("worker_faults", faults=30)


def test_a_crash_in_an_evaluation_is_an_error(tmp_path: Path) -> None:
    """With `isolate` it names episode, step and seed, the agent is unharmed and can be asked again."""
    clipper.PPO(DictEnv, **SMALL).save(tmp_path / "agent.safetensors")
    for way, words in (("segfault", "SIGSEGV"), ("hang", "did not move")):
        kwargs = failing(tmp_path, way, lives=1, at=5)
        agent = clipper.load(
            tmp_path / "agent.safetensors",
            env=partial(Failing, **kwargs),
            isolate=True,
            env_timeout=1.0,
        )
        with pytest.raises(EnvironmentFault, match="neither end its process nor hang") as caught:
            agent.evaluate(2, seed=3)
        seed = int(derived_seed(3, Purpose.EVALUATION_SEED, 0, 0))
        assert f"evaluation episode 0, step 5, seed {seed}" in caught.value.message
        assert words in caught.value.message
        # it has no lives left
        expected = clipper.load(tmp_path / "agent.safetensors", env=partial(Failing, **kwargs))
        assert agent.evaluate(2, seed=3).returns == expected.evaluate(2, seed=3).returns
        agent.close()
    raising = partial(Failing, **failing(tmp_path, "raise", lives=1, at=5))
    agent = clipper.load(tmp_path / "agent.safetensors", env=raising, isolate=True)
    with pytest.raises(EnvironmentFault, match=r"the cable is out.*evaluation episode 0, step 5"):
        agent.evaluate(2, seed=3)
    agent.close()


def test_a_fault_is_seen_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`clipper replay` plays the very actions, and fails or not as the environment does."""
    agent = clipper.PPO("CartPole-v1", workers=1, **SMALL)
    agent.train(progress=False, total_timesteps=96)
    agent.close()
    content = {
        "format": 1,
        "kind": "fault",
        "env": {"name": "CartPole-v1", "kwargs": {}, "max_episode_steps": None, "is_named": True},
        "index": 3,
        "episode": 2,
        "seed": 5,
        "step": 2,
        "how": "ended with SIGSEGV",
        "report": "",
        "actions": [[0], [1]],
    }
    file = tmp_path / "fault-3-2.json"
    file.write_text(json.dumps(content))
    assert main(["replay", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == "2 steps were played without a fault\n"
    assert "seed 5; then it ended with SIGSEGV" in said.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gymnasium.envs.classic_control.CartPoleEnv.step", _raises)
        assert main(["replay", str(file)]) == 3
    assert "failed in step 1" in capsys.readouterr().out
    for wrong in ({"kind": "agent"}, {"actions": [["x"]]}, {"more": 1}):
        file.write_text(json.dumps({**content, **wrong}))
        with pytest.raises(FileError, match=r"must (be the file of a fault|have actions of)"):
            read_fault(file)


def _raises(self: Any, action: Any) -> Any:
    raise ValueError("no")


def test_episodes_that_are_cut_off() -> None:
    """Worked by hand: T = 3 kept, K = 2; environment 0 terminates in row 1, both are cut in row 2."""
    obs = np.arange(8, dtype=np.float32).reshape(4, 2, 1)
    actions = np.zeros((4, 2, 1), np.int64)
    rewards = np.array([[1, 10], [2, 20], [3, 30], [9, 9]], np.float32)
    terminated = np.array([[0, 0], [1, 0], [0, 0], [1, 1]], bool)
    truncated = np.zeros((4, 2), bool)
    before = {
        "episodes": np.array([4, 7]),
        "lengths": np.array([5, 0]),
        "returns": np.array([100.0, 0.0]),
    }
    found = cut_off([obs, actions, rewards, terminated, truncated], before, 6, 50, 12)
    assert found["terminated"].tolist() == [[False, False], [True, False], [False, False]]
    assert found["truncated"].tolist() == [[False, False], [False, False], [True, True]]
    assert found["final_at"].tolist() == [[1, 0], [2, 0], [2, 1]]
    # the two that are cut off end in the observations of the row that was lost
    assert found["final_obs"][1:, 0].tolist() == [6.0, 7.0]
    shown = [(e.env, e.index, e.episode_return, e.episode_length, e.truncated, e.step)
             for e in found["episodes"]]  # fmt: skip
    assert shown == [
        (6, 4, 103.0, 7, False, 52 * 12),
        (6, 5, 3.0, 1, True, 53 * 12),
        (7, 7, 60.0, 3, True, 53 * 12),
    ]
    assert found["standing"]["episodes"].tolist() == [5, 7]


def test_slow_steps_of_long_ago_do_not_shorten_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 0.3 s and a reset of 8 s every 50th: the 99th percentile is 8 s, however long it runs."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(None)
    for move in range(6000):
        now += 8.0 if move % 50 == 0 else 0.3
        assert pace.look(move, False, "it") is None
        if move > 200:
            assert pace.timeout == pytest.approx(160.0)


class Slow(DictEnv):
    """Takes its time to begin."""

    def reset(self, **keywords: Any) -> Any:
        time.sleep(0.4)
        return super().reset(**keywords)


@pytest.mark.parametrize("algorithm", ["PPO", pytest.param("CEM", marks=pytest.mark.slow)])
def test_resets_of_several_environments_are_not_one_step(algorithm: str, tmp_path: Path) -> None:
    """Each of four takes 0.4 s, which is less than the deadline of 1 s."""
    sizes = {"PPO": {"num_steps": 4, "minibatch_size": 16}, "CEM": {"population_size": 4}}
    agent = getattr(clipper, algorithm)(
        Slow, workers=1, isolate=True, env_timeout=1.0, preset="none", num_envs=4, eval_every=0,
        hidden_sizes=(8,), total_timesteps=16, **sizes[algorithm],
    )  # fmt: skip
    agent.train(progress=False)
    agent.close()
    assert agent.inexact is None


class Ponderous(nn.Module):
    """Takes 5 ms for a row that a worker judges."""

    def __init__(self, home: int, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.home = home
        self.actor, self.critic = nn.Linear(obs_size, num_outputs), nn.Linear(obs_size, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if os.getpid() != self.home and len(obs) > 2:
            time.sleep(0.005 * len(obs))
        return self.actor(obs), self.critic(obs)


@pytest.mark.parametrize("algorithm", ["PPO", pytest.param("VPG", marks=pytest.mark.slow)])
def test_a_worker_may_judge_its_rollout_for_longer_than_a_step(algorithm: str) -> None:
    """Its environments have made their last step: none is to blame, and no row is thrown away."""
    sizes = {"PPO": {"num_steps": 100, "minibatch_size": 400}, "VPG": {"num_steps": 100}}
    agent = getattr(clipper, algorithm)(
        DictEnv, module=partial(Ponderous, os.getpid()), workers=1, env_timeout=0.5, preset="none",
        num_envs=4, eval_every=0, total_timesteps=400, max_episode_steps=20, **sizes[algorithm],
    )  # fmt: skip
    agent.train(progress=False)
    agent.close()
    assert agent.step == 400
    assert agent.inexact is None


class Leaving(Failing):
    """Starts something that outlives it and has all its files; notes that it was closed."""

    def __init__(self, how: str, note: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.note, self.owner = Path(note), os.getpid()
        if os.getpid() != keywords["home"] and how == "system":
            os.system("sleep 8 &")
        elif os.getpid() != keywords["home"] and how == "fork" and os.fork() == 0:
            time.sleep(8)
            os._exit(0)

    def close(self) -> None:
        with open(self.note, "a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.parametrize("how", ["system", "fork"])
def test_a_death_is_seen_though_something_of_it_lives_on(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an environment started holds the pipes open: the process itself is asked as well."""
    kwargs = {**failing(tmp_path, "kill", lives=1), "how": how, "note": str(tmp_path / "closed")}
    agent = clipper.PPO(Leaving, env_kwargs=kwargs, workers=1, env_timeout=60.0, **SMALL)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(progress=False)
    agent.close()
    assert "ended with SIGKILL" in caplog.text
    assert time.monotonic() - started < 30.0


def test_environments_of_workers_are_closed(tmp_path: Path) -> None:
    """Simulators and files that `close` ends are not left behind, in any of the processes."""
    note = tmp_path / "closed"
    kwargs = {**failing(tmp_path, "kill", lives=0), "how": "", "note": str(note)}
    agent = clipper.PPO(Leaving, env_kwargs=kwargs, workers=2, **SMALL)
    agent.train(progress=False)
    here = len(note.read_text().split()) if note.exists() else 0
    agent.close()
    closed = note.read_text().split()[here:]
    assert len(closed) == SMALL["num_envs"]
    assert len(set(closed)) == 3


def test_a_path_that_is_no_text_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's import does the same."""
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
    agent = clipper.PPO(DictEnv, workers=1, **SMALL)
    agent.train(96, progress=False)
    agent.close()


def test_a_worker_that_dies_before_it_has_its_environments_is_our_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is gone before all that it needs could be sent."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    big = np.zeros(4_000_000)
    agent = clipper.PPO(lambda: (big, DictEnv())[1], workers=1, **SMALL)
    with pytest.raises(EnvironmentFault, match="must stay alive, but ended with exit code 1"):
        agent.train(progress=False)


class Fragile(DictEnv):
    """Dies where it is made, as long as there are lives left in a file."""

    def __init__(self, lives: str, home: int) -> None:
        super().__init__()
        left = Path(lives).read_bytes()
        if os.getpid() != home and left:
            Path(lives).write_bytes(left[1:])
            os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("lives", [0, 1, 2])
def test_a_worker_that_dies_before_it_has_begun_is_started_again(
    lives: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was begun: the run is the same to the bit, and is no worse for it."""
    found = []
    for number in (0, lives):
        (tmp_path / "lives").write_bytes(b"x" * number)
        kwargs = {"lives": str(tmp_path / "lives"), "home": os.getpid()}
        agent = clipper.PPO(Fragile, env_kwargs=kwargs, workers=1, **SMALL)
        with caplog.at_level(logging.WARNING, "clipper"):
            agent.train(progress=False)
        agent.close()
        assert agent.inexact is None
        found.append([p.tolist() for p in agent.policy.parameters()])
    assert found[0] == found[1]
    told = "worker 1, with the environments 2 to 3, ended with SIGSEGV while it made them; it is started"
    assert caplog.text.count(told) == lives
    assert ("in __init__" in caplog.text) == (lives > 0)


def test_a_worker_that_dies_again_and_again_before_it_has_begun_ends_the_run(
    tmp_path: Path,
) -> None:
    """The third time is the last."""
    (tmp_path / "lives").write_bytes(b"x" * 10)
    kwargs = {"lives": str(tmp_path / "lives"), "home": os.getpid()}
    agent = clipper.PPO(Fragile, env_kwargs=kwargs, workers=1, **SMALL)
    with pytest.raises(EnvironmentFault, match="must stay alive, but ended with SIGSEGV"):
        agent.train(progress=False)
    assert len((tmp_path / "lives").read_bytes()) == 7


def test_a_replacement_that_dies_before_it_has_begun_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second death, within the replacing of the first, does not end the run."""

    class Both(Failing):
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            # the first life goes in a step, the second where the next worker makes its environments
            if os.getpid() != self.home and self.lives.stat().st_size == 1:
                self.lives.write_bytes(b"")
                os.kill(os.getpid(), signal.SIGKILL)

    kwargs = failing(tmp_path, "kill", lives=2)
    agent = clipper.PPO(Both, env_kwargs=kwargs, workers=1, **SMALL)
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(progress=False)
    agent.close()
    assert agent.step == SMALL["total_timesteps"]
    assert "while it made them; it is started again" in caplog.text


def test_any_descriptor_can_be_waited_for() -> None:
    """Those from 1024 on too, which `select` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("so many files may not be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    try:
        reading, writing = os.pipe()
        high = fcntl.fcntl(reading, fcntl.F_DUPFD, 1500)
        assert readable([high], 0.01) == []
        os.write(writing, b"x")
        assert readable([high, reading], None) == [high, reading]
        for descriptor in (reading, writing, high):
            os.close(descriptor)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_blocks_begin_where_a_page_does() -> None:
    """Pages of Apple's and some ARM processors are larger than 4 KiB, and files are mapped by pages."""
    from clipper import board

    assert board._HEADER % mmap.ALLOCATIONGRANULARITY == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmap, "ALLOCATIONGRANULARITY", 1 << 16)
        assert importlib.reload(board)._HEADER == 1 << 16
    importlib.reload(board)


def test_a_fault_after_an_action_that_is_no_number_is_kept(tmp_path: Path) -> None:
    """JSON has no NaN: the actions before it are kept."""
    actions = np.array([[0.5, 1.0], [np.nan, 0.0], [1.0, 1.0]])
    fault = Fault(
        env=3, episode=1, seed=5, step=3, how="raised", report="", actions=actions, num_lost=1
    )
    file = write_fault(
        fault,
        {"name": "CartPole-v1", "kwargs": {}, "max_episode_steps": None, "is_named": True},
        tmp_path,
    )
    assert read_fault(file).actions.tolist() == [[0.5, 1.0]]


def test_a_slow_worker_is_told_of_and_a_hanging_one_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """10 seconds, or 20 times the 99th percentile: an environment of slow steps gets more time."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    quick = Pace(None)
    for place in range(100):
        now[0] += 0.05
        assert quick.look(place, False, "worker 1") is None
    assert quick.timeout == 10.0
    now[0] += 6.0
    assert quick.look(99, False, "worker 1") is None
    assert "worker 1 is slow: it has been in a step for 6.0 s" in caplog.text
    now[0] += 4.1
    assert "did not move for 10.1 s" in str(quick.look(99, False, "worker 1"))
    slow = Pace(None)
    for place in range(100):
        now[0] += 2.0
        assert slow.look(place, False, "worker 1") is None
    assert slow.timeout == pytest.approx(40.0)
    assert slow.look(99, True, "worker 1") is None  # all is collected: nothing to wait for
