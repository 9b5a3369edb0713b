"""A run that was stopped and went on against one that was not: 5 + 5 iterations equal 10, bit for bit.

Compared are the parameters, the normaliser, the optimiser, the reward scaling, the counters, and
every number that was reported but for times.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import clipper
from clipper.checkpoint import Arrays, read_checkpoint, write_checkpoint
from clipper.training_report import Report
from helpers import DictEnv
from pixels import CatchBeside, Lives

ITERATIONS = 10
COMMON: dict[str, Any] = {
    "preset": "none",
    "num_envs": 3,
    "num_steps": 40,
    "num_epochs": 2,
    "minibatch_size": 40,
    "hidden_sizes": (8,),
    "total_timesteps": ITERATIONS * 120,
    "learning_rate": "linear:1e-2:0",
    "clip_range": "linear:0.3:0.1",
    "eval_every": 4 * 120,
    "eval_episodes": 2,
}
RUNS: dict[str, dict[str, Any]] = {
    # many short episodes; the fifth iteration ends in the middle of some
    "CartPole-v1": {"env": "CartPole-v1"},
    # continuous actions, both normalisers, a time limit; 5 x 72 steps end within an episode of 200
    "Pendulum-v1": {
        "env": "Pendulum-v1",
        "normalize_obs": True,
        "normalize_reward": True,
        "ent_coef": 0.0,
        "num_steps": 72,
        "minibatch_size": 36,
        "total_timesteps": ITERATIONS * 216,
        "eval_every": 0,
    },
    # the adaptive penalty, whose weight changes from iteration to iteration
    "adaptive": {
        "env": "Pendulum-v1",
        "objective": "kl_adaptive",
        "adaptive_kl_target": 0.003,
        "ent_coef": 0.0,
        "num_steps": 72,
        "minibatch_size": 36,
        "total_timesteps": ITERATIONS * 216,
        "eval_every": 0,
    },
    # nested observations, an environment that draws numbers of its own at every step
    "dict": {"env": DictEnv, "normalize_obs": True, "recompute_advantages": True},
    # bytes beside a normalised number, convolutions in torch
    "images": {"env": CatchBeside, "normalize_obs": True, "shared_torso": True},
    # episodes that end for the learner within the game that is replayed
    "lives": {"env": Lives, "terminal_on_life_loss": True, "clip_reward": True},
}
Log = list[dict[str, float]]
Snapshot = dict[str, Tensor]


def agent_for(name: str, **changes: Any) -> clipper.PPO:
    settings = {**COMMON, **RUNS[name], "seed": 3, **changes}
    return clipper.PPO(settings.pop("env"), **settings)


def keep(log: Log, stop_after: int | None = None) -> Callable[[Report], None]:
    """Returns a callback that keeps every number but times, and stops after some iterations."""

    def callback(report: Report) -> None:
        row = {k: v for k, v in report.metrics.items() if not k.startswith("time/")}
        log.append({"step": report.step, "progress": report.progress, **row})
        if report.iteration == stop_after:
            report.stop()

    return callback


def snapshot(agent: clipper.PPO) -> Snapshot:
    """Returns all that changes in training, by name."""
    parts = agent._run.algorithm.state_dict()
    return {f"{part}.{k}": v for part, tensors in parts.items() for k, v in tensors.items()}


def assert_same(found: Snapshot, expected: Snapshot) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert different == []


@pytest.fixture(scope="module")
def straight() -> Callable[[str], tuple[Snapshot, Log]]:
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


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_same_run(name: str, straight: Any) -> None:
    """Two runs of one seed end in the same bits and say the same; another seed's run differs."""
    expected, expected_log = straight(name)
    agent, log = agent_for(name), Log()
    agent.train(progress=False, callback=keep(log))
    assert_same(snapshot(agent), expected)
    assert log == expected_log
    other = agent_for(name, seed=4)
    other.train(progress=False)
    assert not torch.equal(snapshot(other)["engine.m"], expected["engine.m"])


def test_other_generators_do_not_matter(straight: Any) -> None:
    """What state torch's, numpy's and Python's global generators are in changes nothing."""
    expected, _ = straight("dict")
    agent = agent_for("dict")

    def disturb(report: Report) -> None:
        torch.manual_seed(report.iteration)
        np.random.seed(report.iteration)
        random.seed(report.iteration)

    agent.train(progress=False, callback=disturb)
    assert_same(snapshot(agent), expected)


@pytest.mark.parametrize("name", RUNS)
def test_training_again_goes_on(name: str, straight: Any) -> None:
    """A callback stops the run after five iterations; `train` again does the other five."""
    expected, expected_log = straight(name)
    agent, log = agent_for(name), Log()
    first = agent.train(progress=False, callback=keep(log, stop_after=5))
    assert "callback" in first.reason
    assert len(log) == 5
    agent.train(progress=False, callback=keep(log))
    assert_same(snapshot(agent), expected)
    assert log == expected_log
    assert agent.inexact is None


def rows(run_dir: Path, file: str) -> list[dict[str, str]]:
    """Returns the rows of a CSV file without its times."""
    with open(run_dir / file, newline="") as lines:
        found = list(csv.DictReader(lines))
    return [
        {k: v for k, v in row.items() if not k.startswith("time/") and k != "wall_seconds"}
        for row in found
    ]


@pytest.mark.parametrize("name", RUNS)
def test_resuming_from_the_folder_goes_on(name: str, straight: Any, tmp_path: Path) -> None:
    """A run stopped after five iterations and resumed from its files alone ends as the whole one.

    The rows of `metrics.csv` and `episodes.csv` are those of a run that was not stopped.
    """
    expected, expected_log = straight(name)
    env = None if isinstance(RUNS[name]["env"], str) else RUNS[name]["env"]
    stopped, log = tmp_path / "stopped", Log()
    agent_for(name).train(progress=False, run_dir=stopped, callback=keep(log, stop_after=5))
    checkpoint, _ = read_checkpoint(stopped / "checkpoints")
    # it stopped in the middle of episodes, so there is something to replay
    assert checkpoint.training["sampler.replayed"].max() > 0
    agent = clipper.resume(stopped, env=env)
    assert agent.step == agent.config.total_timesteps // 2
    agent.train(progress=False, callback=keep(log))
    assert agent.inexact is None
    assert_same(snapshot(agent), expected)
    assert log == expected_log

    whole = tmp_path / "whole"
    agent_for(name).train(progress=False, run_dir=whole)
    assert len(rows(whole, "metrics.csv")) == ITERATIONS
    for file in ("metrics.csv", "episodes.csv"):
        assert rows(stopped, file) == rows(whole, file)
    # the agents written at the end act alike
    last = [clipper.load(folder, env=env).policy.state_dict() for folder in (stopped, whole)]
    assert_same(*last)


def shift(name: str, by: float) -> Callable[[Arrays, Arrays], None]:
    """Returns a change of one array of a checkpoint's agent or training file."""

    def change(agent: Arrays, training: Arrays) -> None:
        arrays = agent if name in agent else training
        arrays[name] = (arrays[name] + by).astype(arrays[name].dtype)

    return change


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("counters.kl_coef", 0.5),
        ("sampler.steps", 1),
        ("sampler.episodes", 1),
        ("counters.num_iterations", 1),
        ("policy.normalizer.moments", 0.5),
        ("reward_scaler.moments", 0.5),
        ("reward_scaler.returns", 0.5),
        ("engine.m", 1e-3),
        ("engine.v", 1e-3),
        ("engine.num_updates", 1),
    ],
)
def test_every_part_of_the_checkpoint_counts(
    name: str, by: float, straight: Any, tmp_path: Path
) -> None:
    """Negative control: a checkpoint with one part altered does not end in the same parameters."""
    run = "adaptive" if name == "counters.kl_coef" else "Pendulum-v1"
    expected, _ = straight(run)
    agent_for(run).train(progress=False, run_dir=tmp_path, callback=keep([], 5))
    checkpoint, problems = read_checkpoint(tmp_path / "checkpoints")
    assert problems == []
    agent, training = dict(checkpoint.agent), dict(checkpoint.training)
    assert name in agent or name in training
    shift(name, by)(agent, training)
    altered = replace(checkpoint, agent=agent, training=training)
    write_checkpoint(tmp_path / "checkpoints", altered)
    resumed = clipper.resume(tmp_path)
    resumed.train(progress=False)
    found = snapshot(resumed)
    weights = [k for k in found if k.startswith("policy.network")]
    assert not all(torch.equal(found[k], expected[k]) for k in weights)


def test_the_weight_of_the_penalty_is_not_where_it_began(straight: Any, tmp_path: Path) -> None:
    """Negative control: a resumed run that leaves it out, and begins with 1 again, ends elsewhere."""
    expected, log = straight("adaptive")
    assert log[5]["policy/kl_coef"] != 1.0
    agent_for("adaptive").train(progress=False, run_dir=tmp_path, callback=keep([], 5))
    resumed = clipper.resume(tmp_path)
    resumed._run.algorithm._kl_coef = 1.0
    resumed.train(progress=False)
    found = snapshot(resumed)
    weights = [k for k in found if k.startswith("policy.network")]
    assert not all(torch.equal(found[k], expected[k]) for k in weights)


def test_another_budget_is_not_called_exact(tmp_path: Path) -> None:
    """Going on to another `total_timesteps` bends the schedules, and the run says so."""
    agent = agent_for("CartPole-v1")
    agent.train(progress=False, callback=keep([], 5))
    agent.train(total_timesteps=7 * 120, progress=False)
    assert agent.step == 7 * 120
    assert agent.inexact is not None
    assert "total_timesteps" in agent.inexact


class Forgetful(gymnasium.Wrapper):
    """Draws from a generator that no seed reaches, so that its episodes cannot be replayed."""

    count = 0

    def step(self, action: Any) -> Any:
        Forgetful.count += 1
        obs, *rest = self.env.step(action)
        return obs + 1e-3 * Forgetful.count, *rest


def test_an_environment_that_cannot_be_replayed_is_not_called_exact(tmp_path: Path) -> None:
    """Resuming checks the replayed observation against the saved one and says if they differ."""

    def make() -> gymnasium.Env:
        return Forgetful(gymnasium.make("CartPole-v1", disable_env_checker=True))

    agent_for("CartPole-v1", env=make).train(
        progress=False, run_dir=tmp_path, callback=keep([], stop_after=5)
    )
    agent = clipper.resume(tmp_path, env=make)
    agent.train(progress=False)
    assert agent.inexact is not None
    assert "replayed" in agent.inexact


def test_resume_keeps_the_step_limit(tmp_path: Path) -> None:
    """A run with `max_episode_steps` whose environment is given anew still cuts its episodes."""
    agent = agent_for("dict", max_episode_steps=7)
    agent.train(progress=False, run_dir=tmp_path, callback=keep([], stop_after=5))
    lengths: list[int] = []
    resumed = clipper.resume(tmp_path, env=DictEnv)
    resumed.train(
        progress=False,
        callback=lambda report: lengths.extend(e.episode_length for e in report.episodes),
    )
    assert max(lengths) <= 7
