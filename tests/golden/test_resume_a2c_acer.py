"""Runs of A2C and ACER that were stopped and went on against whole ones: the same bits.

Compared are parameters, optimiser, averaged policy, memory, counters, and every number that was
reported but for times.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clipper
from clipper.agent import Agent
from clipper.checkpoint import read_checkpoint, write_checkpoint
from clipper.training_report import Report
from helpers import DictEnv

ITERATIONS = 10
COMMON: dict[str, Any] = {
    "preset": "none",
    "seed": 3,
    "num_envs": 3,
    "hidden_sizes": (8,),
    "learning_rate": "linear:1e-2:0",
    "eval_every": 0,
}
RUNS: dict[str, dict[str, Any]] = {
    "a2c": {"env": "CartPole-v1", "num_steps": 5, "rollouts_per_iteration": 8},
    # the fifth iteration ends within an episode of 200 steps
    "a2c with a trust region": {
        "env": "Pendulum-v1",
        "num_steps": 8,
        "rollouts_per_iteration": 9,
        "trust_region": True,
        "normalize_reward": True,
        "trust_region_delta": 0.01,
    },
    # the memory is full after six rollouts
    "acer": {
        "env": DictEnv,
        "num_steps": 16,
        "replay_capacity": 6 * 16,
        "replay_start": 48,
        "normalize_reward": True,
        "trust_region_delta": 0.01,
    },
}
Log = list[dict[str, float]]


def agent_for(name: str, **changes: Any) -> Agent:
    settings = {**COMMON, **RUNS[name], **changes}
    kind = clipper.ACER if name == "acer" else clipper.A2C
    rows = settings["num_steps"] * settings["num_envs"] * settings.get("rollouts_per_iteration", 1)
    return kind(settings.pop("env"), total_timesteps=ITERATIONS * rows, **settings)


def keep(log: Log, stop_after: int | None = None) -> Callable[[Report], None]:
    """Returns a callback that keeps every number but times, and stops after some iterations."""

    def callback(report: Report) -> None:
        row = {k: v for k, v in report.metrics.items() if not k.startswith("time/")}
        log.append({"step": report.step, **row})
        if report.iteration == stop_after:
            report.stop()

    return callback


def snapshot(agent: Agent) -> dict[str, Tensor]:
    """Returns copies of all that changes in training, by name."""
    parts = agent._run.algorithm.state_dict()
    return {f"{part}.{k}": v.clone() for part, tensors in parts.items() for k, v in tensors.items()}


@pytest.fixture(scope="module")
def straight() -> Callable[[str], tuple[dict[str, Tensor], Log]]:
    """Returns what a run of ten iterations at one go leaves; each is run once."""
    known: dict[str, Any] = {}

    def run(name: str) -> Any:
        if name not in known:
            agent, log = agent_for(name), Log()
            agent.train(progress=False, callback=keep(log))
            assert len(log) == ITERATIONS
            known[name] = snapshot(agent), log
        return known[name]

    return run


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("name", RUNS)
def test_resuming_from_the_folder_goes_on(name: str, straight: Any, tmp_path: Path) -> None:
    """5 + 5 iterations equal 10, from files alone and by training the same agent again."""
    expected, expected_log = straight(name)
    log = Log()
    stopped = agent_for(name)
    stopped.train(progress=False, run_dir=tmp_path / "run", callback=keep(log, stop_after=5))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    again, log_again = stopped, log.copy()
    again.train(progress=False, callback=keep(log_again))
    assert_same(snapshot(again), expected)
    assert log_again == expected_log

    env = None if isinstance(RUNS[name]["env"], str) else RUNS[name]["env"]
    agent = clipper.resume(tmp_path / "copy", env=env)
    assert type(agent) is type(stopped)
    agent.train(progress=False, callback=keep(log))
    assert agent.inexact is None
    assert_same(snapshot(agent), expected)
    assert log == expected_log


@pytest.mark.parametrize("name", RUNS)
def test_another_seed_ends_elsewhere(name: str, straight: Any) -> None:
    """Negative control: runs are functions of their seed, not constants."""
    agent = agent_for(name, seed=4)
    agent.train(progress=False)
    found, (expected, _) = snapshot(agent), straight(name)
    assert not torch.equal(found["optimizer.square_avg"], expected["optimizer.square_avg"])


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("name", ["a2c", "acer"])
def test_workers_change_no_bit(name: str, num_workers: int, straight: Any) -> None:
    """The run of one process, its memory included, however environments are shared out."""
    expected, expected_log = straight(name)
    agent, log = agent_for(name, workers=num_workers), Log()
    agent.train(progress=False, callback=keep(log))
    agent.close()
    assert_same(snapshot(agent), expected)
    assert log == expected_log


@pytest.mark.parametrize(
    ("run", "name", "by"),
    [
        ("a2c", "optimizer.square_avg", 0.1),
        ("a2c", "sampler.steps", 1),
        ("a2c with a trust region", "average.params", 0.3),
        ("a2c with a trust region", "reward_scaler.moments", 0.5),
        ("a2c with a trust region", "policy.normalizer.moments", 0.5),
        ("acer", "optimizer.square_avg", 0.1),
        ("acer", "average.params", 0.3),
        ("acer", "memory.num_added", -1),
        ("acer", "memory.obs", 0.5),
        ("acer", "memory.next_obs", 0.5),
        ("acer", "memory.rewards", 0.5),
        ("acer", "memory.behaviour", -0.5),
        ("acer", "counters.num_iterations", 1),
    ],
)
def test_every_part_of_the_checkpoint_counts(
    run: str, name: str, by: float, straight: Any, tmp_path: Path
) -> None:
    """Negative control: a checkpoint with one part altered does not end in the same parameters."""
    expected, _ = straight(run)
    agent_for(run).train(progress=False, run_dir=tmp_path, callback=keep([], 5))
    checkpoint, problems = read_checkpoint(tmp_path / "checkpoints")
    assert problems == []
    files = {"agent": dict(checkpoint.agent), "training": dict(checkpoint.training)}
    arrays = files["agent"] if name in files["agent"] else files["training"]
    arrays[name] = (arrays[name] + by).astype(arrays[name].dtype)
    write_checkpoint(tmp_path / "checkpoints", replace(checkpoint, **files))
    resumed = clipper.resume(tmp_path, env=DictEnv if run == "acer" else None)
    resumed.train(progress=False)
    found = snapshot(resumed)
    weights = [k for k in found if k.startswith("policy.network")]
    assert not all(torch.equal(found[k], expected[k]) for k in weights)
