"""Resuming PPO's relatives: a run that was stopped and went on against one that was not, bit for bit."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clipper
from clipper.agent import Agent
from clipper.agents import AGENTS
from clipper.checkpoint import read_checkpoint, write_checkpoint
from clipper.training_report import Report
from helpers import DictEnv

COMMON: dict[str, Any] = {
    "preset": "none",
    "num_envs": 3,
    "hidden_sizes": (8,),
    "seed": 3,
    "eval_every": 300,
    "eval_episodes": 2,
}
ROLLOUTS: dict[str, Any] = {"num_steps": 40, "minibatch_size": 50, "num_value_epochs": 2}
# some stop in the middle of an episode; REINFORCE and CEM always between two
RUNS: dict[str, dict[str, Any]] = {
    "vpg": {"algorithm": "vpg", "env": DictEnv, **ROLLOUTS, "total_timesteps": 1200},
    "vpg scheduled": {
        "algorithm": "vpg",
        "env": "Pendulum-v1",
        **ROLLOUTS,
        "adaptive_kl_target": None,
        "learning_rate": "linear:1e-2:0",
        "value_learning_rate": "linear:1e-2:0",
        "normalize_reward": True,
        "total_timesteps": 1200,
        "eval_every": 0,
    },
    "reinforce": {
        "algorithm": "vpg",
        "env": DictEnv,
        **ROLLOUTS,
        "num_envs": 1,
        "one_episode": True,
        "advantage": "total_return",
        "normalize_advantage": "none",
        "total_timesteps": 200,
    },
    "trpo": {
        "algorithm": "trpo",
        "env": "Pendulum-v1",
        **ROLLOUTS,
        "normalize_reward": True,
        "total_timesteps": 1200,
        "eval_every": 0,
    },
    "cem": {"algorithm": "cem", "env": DictEnv, "population_size": 10, "total_timesteps": 1900},
}
Log = list[dict[str, float]]


def agent_for(name: str, **changes: Any) -> Agent:
    settings = {**COMMON, **RUNS[name], **changes}
    algorithm, env = settings.pop("algorithm"), settings.pop("env")
    return AGENTS[algorithm](env, **settings)


def keep(log: Log, stop_after: int | None = None) -> Callable[[Report], None]:
    """Returns a callback that keeps every number but times, and stops after some iterations."""

    def callback(report: Report) -> None:
        row = {k: v for k, v in report.metrics.items() if not k.startswith("time/")}
        log.append({"step": report.step, **row})
        if report.iteration == stop_after:
            report.stop()

    return callback


def snapshot(agent: Agent) -> dict[str, Tensor]:
    """Returns all that changes in training, by name."""
    parts = agent._run.algorithm.state_dict()
    return {f"{part}.{k}": v for part, tensors in parts.items() for k, v in tensors.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(scope="module")
def straight() -> Callable[[str], tuple[dict[str, Tensor], Log]]:
    """Returns what a run at one go leaves; each is run once."""
    known: dict[str, Any] = {}

    def run(name: str) -> Any:
        if name not in known:
            agent, log = agent_for(name), Log()
            agent.train(progress=False, callback=keep(log))
            assert len(log) > 5
            known[name] = snapshot(agent), log
        return known[name]

    return run


def resumed(name: str, folder: Path, **how: Any) -> Agent:
    env = RUNS[name]["env"]
    return clipper.resume(folder, env=None if isinstance(env, str) else env, **how)


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
    first = next(key for key in expected if key.startswith("policy.network.actor"))
    assert not torch.equal(snapshot(other)[first], expected[first])


@pytest.mark.parametrize("name", RUNS)
def test_resuming_from_the_folder_goes_on(name: str, straight: Any, tmp_path: Path) -> None:
    """Stopped after three iterations, and after five again, and resumed from its files alone."""
    expected, expected_log = straight(name)
    log = Log()
    agent_for(name).train(progress=False, run_dir=tmp_path, callback=keep(log, 3))
    agent = resumed(name, tmp_path)
    agent.train(progress=False, callback=keep(log, 5))
    agent.close()
    agent = resumed(name, tmp_path)
    agent.train(progress=False, callback=keep(log))
    assert agent.inexact is None
    assert_same(snapshot(agent), expected)
    assert log == expected_log


@pytest.mark.parametrize(("name", "workers"), [("vpg", 1), ("trpo", 2), ("cem", 1), ("cem", 2)])
def test_workers_change_nothing(name: str, workers: int, straight: Any, tmp_path: Path) -> None:
    """A run that begins with workers and goes on without them is the one that never had any."""
    expected, expected_log = straight(name)
    log = Log()
    agent = agent_for(name, workers=workers)
    agent.train(progress=False, run_dir=tmp_path, callback=keep(log, 4))
    agent.close()
    agent = resumed(name, tmp_path, workers=0)
    agent.train(progress=False, callback=keep(log))
    assert agent.inexact is None
    assert_same(snapshot(agent), expected)
    assert log == expected_log


PARTS = {
    "vpg": [
        "policy_optimizer.m",
        "policy_optimizer.v",
        "value_optimizer.m",
        "value_optimizer.v",
        "policy_optimizer.num_updates",
        "value_optimizer.num_updates",
        "counters.num_iterations",
        "counters.learning_rate",
        "policy.normalizer.moments",
        "sampler.steps",
        "sampler.episodes",
    ],
    "vpg scheduled": [
        "reward_scaler.moments",
        "reward_scaler.returns",
    ],
    "reinforce": [
        "sampler.episodes",
        "counters.learning_rate",
    ],
    "trpo": [
        "value_optimizer.m",
        "value_optimizer.v",
        "value_optimizer.num_updates",
        "counters.num_iterations",
        "reward_scaler.moments",
        "policy.normalizer.moments",
        "sampler.steps",
    ],
    "cem": [
        "search.mean",
        "search.variance",
        "counters.num_iterations",
        "policy.normalizer.moments",
        "sampler.episodes",
    ],
}


@pytest.mark.parametrize(
    ("run", "part"), [(run, part) for run, parts in PARTS.items() for part in parts]
)
def test_every_part_of_the_checkpoint_counts(
    run: str, part: str, straight: Any, tmp_path: Path
) -> None:
    """Negative control: a checkpoint with one part altered does not end in the same parameters."""
    expected, _ = straight(run)
    agent_for(run).train(progress=False, run_dir=tmp_path, callback=keep([], 5))
    checkpoint, problems = read_checkpoint(tmp_path / "checkpoints")
    assert problems == []
    agent, training = dict(checkpoint.agent), dict(checkpoint.training)
    arrays = agent if part in agent else training
    by = 1 if arrays[part].dtype.kind == "i" else 5.0 if "moments" in part else 0.01
    arrays[part] = (arrays[part] + by).astype(arrays[part].dtype)
    write_checkpoint(tmp_path / "checkpoints", replace(checkpoint, agent=agent, training=training))
    altered = resumed(run, tmp_path)
    altered.train(progress=False)
    found = snapshot(altered)
    weights = [k for k in found if k.startswith("policy.network")]
    assert not all(torch.equal(found[k], expected[k]) for k in weights)


def test_all_of_the_state_is_in_those_controls(straight: Any) -> None:
    """A part that is saved and for which there is no control above would be one nobody needs.

    The steps that CEM has counted decide nothing but where its last generation is cut.
    """
    for run, known in PARTS.items():
        for part in straight(run)[0]:
            if not part.startswith("policy.") and "scaler" not in part and run in ("vpg", "cem"):
                assert part in known or part == "counters.num_timesteps"


class Interrupting(DictEnv):
    """Sends Ctrl-C in the 333rd step that is taken."""

    steps = itertools.count()

    def step(self, action: int) -> Any:
        if next(Interrupting.steps) == 333:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


@pytest.mark.parametrize("name", ["vpg", "reinforce", "cem"])
def test_an_interrupted_iteration_is_taken_back(name: str, straight: Any) -> None:
    """Ctrl-C in the middle of a rollout, an episode or a generation: the run goes on to the bits."""
    plain = agent_for(name, total_timesteps=1200, eval_every=0)
    plain.train(progress=False)
    Interrupting.steps = itertools.count()
    agent = agent_for(name, total_timesteps=1200, env=Interrupting, eval_every=0)
    outcome = agent.train(progress=False)
    assert outcome.signal == signal.SIGINT
    assert agent.step < 333 + 3
    agent.train(progress=False)
    assert agent.inexact is None
    assert_same(snapshot(agent), snapshot(plain))
