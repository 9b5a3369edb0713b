"""Laws of worker processes: the same bits however environments are shared out, and no orphans."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import clipper
from clipper.config_ppo import PPOConfig
from clipper.envs.make import env_source
from clipper.envs.vector import VectorEnv
from clipper.errors import ConfigError, FileError, InvariantBreach
from clipper.mailbox import mailbox
from clipper.randomness import EpisodeSeeds
from clipper.rollout import Rollout
from clipper.sampler import LocalSampler, SamplerMark
from clipper.stepping import read_workers
from clipper.workers import ProcessSampler, share_out
from helpers import DictEnv, collected, policy_for
from run_folders import differences

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 4,
    "num_steps": 24,
    "num_epochs": 2,
    "minibatch_size": 32,
    "hidden_sizes": (8,),
    "total_timesteps": 6 * 96,
    "eval_every": 0,
    "learning_rate": "linear:1e-2:0",
}
TORCH = {**SMALL, "engine": "reference"}
ENVS = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1", "dict": DictEnv}


def assert_same(found: Rollout, expected: Rollout, *, exact: bool) -> None:
    for field in dataclasses.fields(Rollout):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "episodes":
            assert a == b
        elif exact:
            assert torch.equal(a, b), field.name
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "num_workers"), [("cartpole", 1), ("pendulum", 2), ("dict", 3)])
def test_one_process_or_many_collect_the_same(name: str, num_workers: int) -> None:
    """Every column, the endings' order and the episodes' records are those of one process."""
    source, config = env_source(ENVS[name]), PPOConfig().replace(hidden_sizes=(8,))
    alone = LocalSampler(VectorEnv(source, 4, EpisodeSeeds(5)), 5)
    expected = collected(alone, policy_for(ENVS[name], "auto"))
    policy = policy_for(ENVS[name], "auto")
    sampler = ProcessSampler(source, 4, num_workers, 5, policy, config)
    found = collected(sampler, policy)
    state = sampler.state_dict()
    sampler.close()
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs, exact=True)
    assert sum(len(rollout.episodes) for rollout in found) > 0 or name == "pendulum"
    for key, array in alone.state_dict().items():
        np.testing.assert_array_equal(state[key], array, err_msg=key)


def test_the_reference_engine_collects_the_same_but_for_rounding() -> None:
    """torch rounds by the number of rows; the first rollout is that of one process to 1e-5."""
    source = env_source("Pendulum-v1")
    policy = policy_for("Pendulum-v1", "reference")
    expected = LocalSampler(VectorEnv(source, 4, EpisodeSeeds(5)), 5).collect(policy, 20)
    config = PPOConfig().replace(hidden_sizes=(8,), engine="reference")
    sampler = ProcessSampler(source, 4, 1, 5, policy, config)
    assert_same(sampler.collect(policy, 20), expected, exact=False)
    sampler.close()


def trained(run_dir: Path, workers: int, stop_after: int | None = None) -> clipper.PPO:
    agent = clipper.PPO("CartPole-v1", seed=2, workers=workers, **SMALL)
    agent.train(
        progress=False, run_dir=run_dir, callback=lambda report: report.iteration != stop_after
    )
    return agent


def parameters(agent: clipper.PPO) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    """Three workers, then none, then one: parameters and episodes of the run that was alone."""
    whole = trained(tmp_path / "whole", 0)
    trained(tmp_path / "parts", 3, stop_after=2).close()
    second = clipper.resume(tmp_path / "parts", workers=0)
    second.train(progress=False, callback=lambda report: report.iteration != 4)
    third = clipper.resume(tmp_path / "parts", workers=1)
    third.train(progress=False)
    third.close()
    assert third.inexact is None
    assert torch.equal(parameters(third), parameters(whole))

    def rows(name: str) -> list[str]:
        lines = (tmp_path / name / "episodes.csv").read_text().splitlines()
        return [line.rpartition(",")[0] for line in lines]  # without the wall time

    assert rows("parts") == rows("whole")


def stopped_in_between(run_dir: Path) -> None:
    """Trains two iterations with torch, whose results depend on how environments are shared out."""
    agent = clipper.PPO("CartPole-v1", seed=2, workers=2, env_timeout=77, **TORCH)
    agent.train(progress=False, run_dir=run_dir, callback=lambda report: report.iteration < 2)
    agent.close()


def test_a_run_goes_on_with_the_workers_it_had(tmp_path: Path) -> None:
    """As many as before unless others are asked for, so that torch too gives the same bits."""
    whole = clipper.PPO("CartPole-v1", seed=2, workers=2, **TORCH)
    whole.train(progress=False, run_dir=tmp_path / "whole")
    whole.close()
    stopped_in_between(tmp_path / "parts")
    agent = clipper.resume(tmp_path / "parts")
    assert json.loads((tmp_path / "parts/config.json").read_text())["stepping"] == {
        "workers": 2, "vectorization": "auto", "isolate": False, "env_timeout": 77.0,
    }  # fmt: skip
    assert "workers: 2" in agent.describe()
    agent.train(progress=False)
    agent.close()
    assert agent.inexact is None
    assert differences(tmp_path / "parts", tmp_path / "whole") == []


def test_other_shares_are_told_where_torch_rounds_by_them(tmp_path: Path) -> None:
    """The run goes on, and says why its bits are others."""
    stopped_in_between(tmp_path)
    for change in ({"workers": 0}, {"workers": 1}, {"isolate": True}):
        agent = clipper.resume(tmp_path, **change)
        assert str(agent.inexact).startswith("environments were shared out as [1, 1, 2], now as [")
        agent.close()


def test_what_a_file_says_of_workers_is_checked(tmp_path: Path) -> None:
    """A folder may come from a stranger, or be damaged."""
    stopped_in_between(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    numbers = ({"workers": wrong} for wrong in (True, -1, "2"))
    times = ({"env_timeout": wrong} for wrong in (True, -1))
    for wrong in ([], *numbers, *times, {"isolate": 1}, {"vectorization": 3}, {"more": 1}):
        (tmp_path / "config.json").write_text(json.dumps({**config, "stepping": wrong}))
        with pytest.raises(FileError, match=r"config\.json(: stepping)? must (be|say how)"):
            clipper.resume(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "stepping": {"workers": 9}}))
    with pytest.raises(ConfigError, match="workers must be from 0 to num_envs - 1 = 3"):
        clipper.resume(tmp_path)
    del config["stepping"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    agent = clipper.resume(tmp_path, workers=2)
    assert agent.inexact is not None
    agent.close()


class Interrupting(DictEnv):
    """Sends Ctrl-C to the process of the tests in the 100th step it takes there."""

    home = os.getpid()
    steps = 0

    def step(self, action: int) -> Any:
        cls = type(self)
        cls.steps += 1
        if os.getpid() == cls.home and cls.steps == 100:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


def test_an_interrupted_rollout_is_taken_back(tmp_path: Path) -> None:
    """Ctrl-C while all processes collect: the run goes on to the bits of one that was let be."""
    expected = clipper.PPO(DictEnv, seed=2, **SMALL)
    expected.train(progress=False)
    agent = clipper.PPO(Interrupting, seed=2, workers=1, **SMALL)
    outcome = agent.train(progress=False)
    assert outcome.signal == signal.SIGINT
    assert outcome.step == 2 * 96  # the 100th step of two environments is in the third rollout
    agent.train(progress=False)
    agent.close()
    assert agent.inexact is None
    assert torch.equal(parameters(agent), parameters(expected))


def test_an_interrupted_iteration_of_several_rollouts_is_taken_back(tmp_path: Path) -> None:
    """A2C collects ten times an iteration: the workers too go back to where the iteration began."""
    settings: dict[str, Any] = {
        "preset": "none",
        "num_envs": 4,
        "num_steps": 4,
        "rollouts_per_iteration": 10,
        "hidden_sizes": (8,),
        "total_timesteps": 5 * 160,
        "eval_every": 0,
    }
    expected = clipper.A2C(DictEnv, seed=2, **settings)
    expected.train(progress=False)
    Interrupting.steps = 0
    agent = clipper.A2C(Interrupting, seed=2, workers=1, **settings)
    outcome = agent.train(progress=False)
    assert outcome.signal == signal.SIGINT
    assert outcome.step == 160  # the 100th step of two environments is in the third rollout of ten
    agent.train(progress=False)
    agent.close()
    assert agent.inexact is None
    assert torch.equal(parameters(agent), parameters(expected))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_mark_holds_over_several_rollouts(num_workers: int) -> None:
    """The state of a mark taken three rollouts ago brings a fresh sampler back to that point.

    A point in time that was not marked is refused: the workers would describe another one.
    """
    source, config = env_source(DictEnv), PPOConfig().replace(hidden_sizes=(8,))
    policy = policy_for(DictEnv)
    sampler: Any = LocalSampler(VectorEnv(source, 4, EpisodeSeeds(5)), 5)
    if num_workers:
        sampler = ProcessSampler(source, 4, num_workers, 5, policy, config)
    sampler.collect(policy, 7)
    unmarked = SamplerMark(7, None)
    sampler.collect(policy, 7)
    mark = sampler.mark()
    found = [sampler.collect(policy, 7) for _ in range(3)]
    state = sampler.state_dict(mark)
    fresh = LocalSampler(VectorEnv(source, 4, EpisodeSeeds(5)), 5)
    assert fresh.load_state_dict(state) is None
    for rollout in found:
        assert_same(fresh.collect(policy, 7), rollout, exact=True)
    if num_workers:
        with pytest.raises(InvariantBreach, match="must be known at step 7, but are at 14"):
            sampler.state_dict(unmarked)
    sampler.close()


def processes_of(marker: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


SCRIPT = """
import sys
print("once", flush=True)
import clipper, gymnasium
class Own(gymnasium.Wrapper):
    pass
agent = clipper.PPO(lambda: Own(gymnasium.make("CartPole-v1")), seed=1, workers=1, num_envs=4)
agent.train(int(sys.argv[1]), progress=False)
print("trained", flush=True)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_an_unguarded_script_runs_once_and_leaves_no_process(tmp_path: Path) -> None:
    """Classes and lambdas of the script itself reach the workers without running it again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    marker = f"CLIPPER_TEST_MARK={os.urandom(8).hex()}"
    env = {**os.environ, **dict([marker.split("=")])}
    command = [sys.executable, "script.py", "4096"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\ntrained\n"
    until = time.monotonic() + 5.0
    while processes_of(marker) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(marker) == []


REGISTERING = """
import gc, os, subprocess
import gymnasium, numpy as np
import clipper

class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action), False, False, {}

gymnasium.register("Script/Mine-v0", entry_point=Mine, max_episode_steps=9)

def children():
    return subprocess.run(["pgrep", "-cP", str(os.getpid())], capture_output=True, text=True).stdout

for settings in ({"workers": 1}, {"isolate": True}):
    agent = clipper.PPO("Script/Mine-v0", num_envs=2, num_steps=16, minibatch_size=32, eval_every=0,
                        preset="none", **settings)
    agent.train(64, progress=False)
    print(agent.evaluate(2).episodes, children().strip())
    del agent
    gc.collect()
    print(children().strip())
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted by pgrep")
def test_what_a_script_registers_reaches_its_workers_which_end_with_the_agent(
    tmp_path: Path,
) -> None:
    """One worker, or one and the examiner; then none, and no warning of a process that was left."""
    (tmp_path / "script.py").write_text(REGISTERING)
    command = [sys.executable, "-W", "error", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "1", "0", "2", "2", "0"]
    assert "ResourceWarning" not in done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """After SIGKILL of the parent its workers are gone within 5 seconds."""
    (tmp_path / "script.py").write_text(SCRIPT)
    marker = f"CLIPPER_TEST_MARK={os.urandom(8).hex()}"
    env = {**os.environ, **dict([marker.split("=")])}
    parent = subprocess.Popen([sys.executable, "script.py", "100000000"], cwd=tmp_path, env=env)
    until = time.monotonic() + 60.0
    while len(processes_of(marker)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(processes_of(marker)) == 2
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5.0
    while processes_of(marker) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(marker) == []


def test_what_cannot_be_shared_out_is_refused() -> None:
    """An instance, more workers than environments, nonsense: said before anything starts."""
    with pytest.raises(ConfigError, match="workers must be from 0 to num_envs - 1 = 3"):
        clipper.PPO("CartPole-v1", workers=4, **SMALL)
    with pytest.raises(ConfigError, match="env is an instance"):
        clipper.PPO(
            gymnasium.make("CartPole-v1"), workers=1, **{**SMALL, "num_envs": 1, "num_steps": 32}
        )
    for wrong in ("many", -1, 1.5, True):
        with pytest.raises(ConfigError, match="workers must be auto or a whole number"):
            read_workers(wrong)
    lock = threading.Lock()
    agent = clipper.PPO(lambda: (lock, DictEnv())[1], workers=1, **SMALL)
    with pytest.raises(ConfigError, match="can be sent to another process"):
        agent.train(progress=False)


def test_a_process_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    """Three files left: exit code 5, and which worker, why and what helps are said."""
    code = f"""
import resource, os
import clipper
from clipper.cli.main import main
open_files = max(map(int, os.listdir("/proc/self/fd")))
resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 8, open_files + 8))
raise SystemExit(main("train CartPole-v1 --total-timesteps 2048 --workers 2 --out {tmp_path}".split()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert "must be a process of its own, but the system refuses one: Too many open" in done.stderr
    assert "hint: use fewer --workers" in done.stderr


@pytest.mark.parametrize(("num_envs", "num_workers"), [(8, 1), (7, 2), (5, 4), (16, 3), (1, 0)])
def test_shares_are_as_equal_as_can_be(num_envs: int, num_workers: int) -> None:
    """Every environment has one place, in order; sizes differ by one at most."""
    shares = share_out(num_envs, num_workers)
    assert [i for share in shares for i in share] == list(range(num_envs))
    sizes = [len(share) for share in shares]
    assert len(sizes) == num_workers + 1
    assert max(sizes) - min(sizes) <= 1


def test_a_mailbox_hands_over_the_message_that_is_waited_for() -> None:
    """Messages of any size come whole; older ones that nobody fetched are passed over."""
    writer, reader = mailbox()
    big = os.urandom(3_000_000)
    writer.write(1, big)
    assert reader.read(1) == (1, big)
    writer.write(2, b"two")
    writer.write(3, b"")
    assert reader.read(3) == (3, b"")
    writer.write(4, b"four")
    assert reader.read() == (4, b"four")
    writer.close()
    with pytest.raises(EOFError):
        reader.read(5)
    reader.close()
