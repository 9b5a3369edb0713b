"""What the comparison of a resumed run with a straight one would see: any part that is left out.

Each control resumes a run, sets one part of what was restored to what a fresh run has, trains to the
end, and must find a difference where that part shows. Without one of them a part could be missing
from checkpoints and no test of resuming would tell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import clipper
from clipper.agent import Agent
from clipper.checkpoint import checkpoints_in
from clipper.metrics import RecentEpisodes
from clipper.policies.normalize import RunningMoments
from clipper.run_folder import RunFolder
from clipper.training import Trainer
from clipper.training_run import TrainingRun
from killed_runs import no_curve
from run_folders import differences, rows_without_times

SETTINGS: dict[str, Any] = {
    "preset": "none",
    "seed": 3,
    "num_envs": 3,
    "num_steps": 24,
    "num_epochs": 2,
    "minibatch_size": 24,
    "hidden_sizes": (8,),
    "max_episode_steps": 50,
    "objective": "kl_adaptive",
    "adaptive_kl_target": 0.003,
    "learning_rate": "linear:1e-2:0",
    "normalize_obs": True,
    "normalize_reward": True,
    "total_timesteps": 10 * 72,
    "eval_every": 2 * 72,
    "eval_episodes": 1,
}
# of the evaluations after 2, 4, 6, 8 and 10 iterations: the best one comes before the stop; and of
# one that is not due
SCORES = {144: -5.0, 288: -1.0, 432: -3.0, 576: -4.0, 720: -2.0, 360: -3.0}


@pytest.fixture(autouse=True, scope="module")
def _scripted_scores() -> Iterator[None]:
    """Lets the evaluation in the middle be the best one, and draws no curves."""

    def scores(run: TrainingRun) -> dict[str, float]:
        score = SCORES[run.state.step]
        return {"eval/return_deterministic": score, "eval/return_stochastic": score}

    with patch.object(TrainingRun, "_selection_scores", scores), no_curve:
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten iterations at one go."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    clipper.PPO("Pendulum-v1", **SETTINGS).train(progress=False, run_dir=folder)
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, stopped after four, in the middle of episodes."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    clipper.PPO("Pendulum-v1", **SETTINGS).train(
        progress=False, run_dir=folder, callback=lambda report: report.iteration < 4
    )
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, to go on with."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


def engine_part(name: str) -> Callable[[Agent], None]:
    """Returns what sets a part of the optimiser to zeros."""

    def change(agent: Agent) -> None:
        algorithm = agent._run.algorithm
        state = {part: dict(tensors) for part, tensors in algorithm.state_dict().items()}
        state["engine"][name] = torch.zeros_like(state["engine"][name])
        algorithm.load_state_dict(state)

    return change


def forget_normalizer(agent: Agent) -> None:
    """Sets the observation normaliser to that of a fresh policy."""
    normalizer = agent.policy.normalizer
    assert normalizer is not None
    fresh = RunningMoments(normalizer.columns.shape)
    normalizer.moments.copy_(torch.from_numpy(fresh.state()))
    normalizer.reload()


def forget_reward_moments(agent: Agent) -> None:
    """Sets the reward normaliser's statistics to none."""
    scaler = agent._run.algorithm.reward_scaler  # type: ignore[attr-defined]
    scaler._running = RunningMoments(())


def forget_discounted_returns(agent: Agent) -> None:
    """Lets the discounted returns of the episodes under way begin with 0."""
    scaler = agent._run.algorithm.reward_scaler  # type: ignore[attr-defined]
    scaler._returns = np.zeros_like(scaler._returns)


def forget_episode_returns(agent: Agent) -> None:
    """Lets the returns of the episodes under way begin with 0, after they were replayed."""
    sampler, inexact = agent._playground.ready(agent.policy)
    assert inexact is None
    envs = sampler._envs  # type: ignore[union-attr]
    for i in range(envs.num_envs):
        assert envs._returns[i] != 0.0
        envs._returns[i] = 0.0


def forget_environments(agent: Agent) -> None:
    """Begins the first episodes anew."""
    agent._playground._state = None


def set_sampler(name: str) -> Callable[[Agent], None]:
    """Returns what sets an array of the environments' state to zeros."""

    def change(agent: Agent) -> None:
        state = agent._playground._state
        assert state is not None
        agent._playground._state = {**state, name: np.zeros_like(state[name])}

    return change


def set_counter(name: str, value: Any) -> Callable[[Agent], None]:
    """Returns what sets a counter of the run."""
    return lambda agent: setattr(agent._run.state, name, value)


def set_algorithm(name: str, value: Any) -> Callable[[Agent], None]:
    """Returns what sets a number that the algorithm keeps."""
    return lambda agent: setattr(agent._run.algorithm, name, value)


WEIGHTS = "checkpoint policy.network.actor.0.weight"
# what is left out, how, and where it must be seen
CONTROLS: dict[str, tuple[Callable[[Agent], None], str]] = {
    "counter of the minibatches' order": (set_algorithm("_num_iterations", 0), WEIGHTS),
    "counter of the actions' noise": (set_sampler("steps"), WEIGHTS),
    "counters of the episodes' seeds": (set_sampler("episodes"), "counters inexact"),
    "optimiser's first moments": (engine_part("m"), WEIGHTS),
    "optimiser's second moments": (engine_part("v"), WEIGHTS),
    "optimiser's number of updates": (engine_part("num_updates"), WEIGHTS),
    "observation normaliser": (forget_normalizer, WEIGHTS),
    "reward normaliser": (forget_reward_moments, WEIGHTS),
    "discounted returns under way": (forget_discounted_returns, WEIGHTS),
    "returns of the episodes under way": (forget_episode_returns, "episodes.csv"),
    "places within the episodes": (forget_environments, WEIGHTS),
    "the last 100 episodes": (set_counter("recent", RecentEpisodes()), "metrics.csv"),
    "weight of the penalty": (set_algorithm("_kl_coef", 1.0), WEIGHTS),
    "mark of the best score": (set_counter("best", None), "best.safetensors step"),
    "step of the next evaluation": (set_counter("next_evaluation", 144), "metrics.csv"),
    "number of iterations": (set_counter("iteration", 0), "counters iteration"),
}


def test_nothing_left_out_is_no_difference(straight: Path, stopped: Path) -> None:
    """The control of the controls: resumed as it is, the run ends as the straight one."""
    clipper.resume(stopped).train(progress=False)
    assert differences(stopped, straight) == []


@pytest.mark.parametrize("part", CONTROLS)
def test_a_part_that_is_left_out_is_seen(part: str, straight: Path, stopped: Path) -> None:
    """The comparison of this run with the straight one fails, and where the part shows."""
    leave_out, seen_in = CONTROLS[part]
    agent = clipper.resume(stopped)
    leave_out(agent)
    agent.train(progress=False)
    found = differences(stopped, straight)
    assert seen_in in found, found


def test_rows_after_the_checkpoint_are_seen(
    straight: Path, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Falling back to an earlier checkpoint without cutting the rows back leaves them twice."""
    shutil.rmtree(checkpoints_in(stopped / "checkpoints")[-1])
    shutil.copytree(stopped, tmp_path / "cut")
    agent = clipper.resume(tmp_path / "cut")
    assert agent.step == 0
    agent.train(progress=False)
    assert differences(tmp_path / "cut", straight) == []

    monkeypatch.setattr(RunFolder, "cut_back", lambda folder, rows: None)
    clipper.resume(stopped).train(progress=False)
    found = differences(stopped, straight)
    assert {"metrics.csv", "episodes.csv"} <= set(found)
    assert len(rows_without_times(stopped / "metrics.csv")) == 4 + 10


def test_a_schedule_that_begins_anew_is_seen(
    straight: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that follows the share of the resumed part alone ends in other parameters."""
    agent = clipper.resume(stopped)
    begun, total = agent.step, agent.config.total_timesteps
    monkeypatch.setattr(
        Trainer,
        "progress",
        lambda trainer, rules: (trainer.state.step - begun) / (total - begun),
    )
    agent.train(progress=False)
    assert WEIGHTS in differences(stopped, straight)
