"""Every environment that Gymnasium ships resumes exactly; one that no seed decides says so."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import clipper
from clipper.checkpoint import read_checkpoint, read_tensors
from clipper.envs.make import env_source
from clipper.envs.vector import spaces_of
from clipper.errors import ClipperError, EnvironmentUnknown, SpaceError
from facts import note
from killed_runs import no_curve
from run_folders import differences, rows_without_times

SMALL: dict[str, Any] = {
    "preset": "none",
    "seed": 5,
    "num_envs": 2,
    "num_steps": 40,
    "num_epochs": 1,
    "minibatch_size": 40,
    "hidden_sizes": (4,),
    "total_timesteps": 5 * 80,
    "eval_every": 0,
}
# those of JAX are functions, and the doors to the old gym lead to none of Gymnasium's own
SHIPPED = sorted(k for k in gymnasium.registry if not k.startswith(("phys2d/", "tabular/", "GymV")))


def why_not(name: str) -> str | None:
    """Returns why an environment cannot be trained in here, or None."""
    try:
        spaces_of(env_source(name))
    except EnvironmentUnknown as error:
        return f"Gymnasium registers it and no longer has it: {error.message}"
    except SpaceError as error:
        return error.message
    except ClipperError as error:
        return f"it cannot be made here: {error.message}"
    return None


def stop_after(iterations: int) -> Callable[[Any], bool]:
    """Returns a callback that ends training."""
    return lambda report: report.iteration < iterations


@no_curve
def resumed_and_straight(env: Any, folder: Path, **settings: Any) -> clipper.PPO:
    """Trains a run that is stopped and resumed from its files, and a straight one; returns the first."""
    settings = {**SMALL, **settings}
    given = None if isinstance(env, str) else env
    clipper.PPO(env, **settings).train(
        progress=False, run_dir=folder / "stopped", callback=stop_after(2)
    )
    agent = clipper.resume(folder / "stopped", env=given)
    agent.train(progress=False)
    agent.close()
    clipper.PPO(env, **settings).train(progress=False, run_dir=folder / "straight")
    return agent  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_environments_resume_exactly(name: str, tmp_path: Path) -> None:
    """Stopped after two iterations and resumed in new environments: `exact`, and the straight bits."""
    missing = why_not(name)
    if missing is not None:
        pytest.skip(missing)
    agent = resumed_and_straight(name, tmp_path)
    assert agent.inexact is None
    assert read_tensors(tmp_path / "stopped/agent.safetensors")[1]["exact"] is True
    assert differences(tmp_path / "stopped", tmp_path / "straight") == []


@pytest.mark.slow
def test_most_of_what_is_shipped_is_tried() -> None:
    """Classic control, Box2D, MuJoCo and toy text are there: not all of the above were skipped."""
    tried = [name for name in SHIPPED if why_not(name) is None]
    families = {"classic_control", "box2d", "mujoco", "toy_text"}
    entry_points = [str(gymnasium.spec(name).entry_point) for name in tried]
    assert all(any(f".{family}" in entry for entry in entry_points) for family in families)
    assert len(tried) >= 30
    note("registry", exact=len(tried), left_out=len(SHIPPED) - len(tried))


class Walk(gymnasium.Env[Any, Any]):
    """A random walk of 30 steps whose steps come from where a subclass takes them."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.clock = 0.0, 0
        return self._obs(), {}

    def step(self, action: int) -> Any:
        self.clock += 1
        self.x += float(action) - 0.5 + self.draw()
        return self._obs(), -abs(self.x), False, self.clock == 30, {}

    def draw(self) -> float:
        raise NotImplementedError

    def _obs(self) -> Any:
        return np.array([self.x, self.clock / 30], dtype=np.float32)


class Seeded(Walk):
    """By the generator that `reset` seeds: the control of those below."""

    def draw(self) -> float:
        return float(self.np_random.normal())


class NumpyGlobal(Walk):
    """By numpy's global generator."""

    def draw(self) -> float:
        return float(np.random.normal())


class PythonGlobal(Walk):
    """By Python's global generator."""

    def draw(self) -> float:
        return random.gauss(0.0, 1.0)


class Clock(Walk):
    """By the wall clock."""

    def draw(self) -> float:
        return time.time_ns() % 1000 / 1000


class Unseeded(Walk):
    """By a generator of its own that takes its seed from the system."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def draw(self) -> float:
        return float(self.rng.normal())


def test_an_environment_of_ones_own_resumes_exactly(tmp_path: Path) -> None:
    """One that draws from `np_random` alone is replayed: the control of the next test."""
    agent = resumed_and_straight(Seeded, tmp_path)
    assert agent.inexact is None
    assert differences(tmp_path / "stopped", tmp_path / "straight") == []


@pytest.mark.parametrize("env", [NumpyGlobal, PythonGlobal, Clock, Unseeded])
def test_what_cannot_be_replayed_begins_anew_and_says_so(
    env: type[Walk], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its run goes on from fresh episodes, and log, agent file, checkpoint and `inspect` say why."""
    from clipper.cli.main import main

    agent = resumed_and_straight(env, tmp_path)
    reason = "2 of 2 environments could not be replayed to the same observation and return"
    assert reason in str(agent.inexact)
    stopped = tmp_path / "stopped"
    assert reason in (stopped / "log.txt").read_text()
    meta = read_tensors(stopped / "agent.safetensors")[1]
    assert meta["exact"] is False
    assert reason in meta["inexact"]
    assert reason in read_checkpoint(stopped / "checkpoints")[0].state["training"]["inexact"]
    assert main(["inspect", str(stopped)]) == 0
    assert f"exact: false ({meta['inexact']})" in capsys.readouterr().out.splitlines()

    # 160 steps were done: two episodes of 30 in each environment, and 20 steps of a third, which is
    # not gone on with
    episodes = rows_without_times(stopped / "episodes.csv")
    ends = [(int(row["env"]), int(row["episode"]), int(row["step"])) for row in episodes]
    assert ends[:4] == [(0, 0, 60), (1, 0, 60), (0, 1, 120), (1, 1, 120)]
    assert ends[4:6] == [(0, 3, 160 + 60), (1, 3, 160 + 60)]
    assert {row["episode_length"] for row in episodes} == {"30"}
    steps = [int(row["step"]) for row in rows_without_times(stopped / "metrics.csv")]
    assert steps == [80, 160, 240, 320, 400]


@pytest.mark.parametrize("env", [Seeded, NumpyGlobal, Unseeded])
def test_what_no_seed_decides_is_found_at_the_end_of_an_episode(
    env: type[Walk], tmp_path: Path
) -> None:
    """Stopped where every episode has just begun, alike every time: nothing to replay, but found."""
    agent = resumed_and_straight(env, tmp_path, num_steps=30, minibatch_size=30)
    if env is Seeded:
        assert agent.inexact is None
        assert differences(tmp_path / "stopped", tmp_path / "straight") == []
    else:
        assert "2 of 2 environments do not repeat an episode" in str(agent.inexact)
