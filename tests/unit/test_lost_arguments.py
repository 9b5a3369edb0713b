"""What no file holds of an environment: it is named, and not silently left out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import clipper
from clipper.errors import ConfigError

SMALL: dict[str, Any] = {
    "num_envs": 1, "num_steps": 32, "minibatch_size": 32, "num_epochs": 1, "hidden_sizes": (4,),
    "total_timesteps": 64, "eval_every": 0, "preset": "none",
}  # fmt: skip


class Level(gymnasium.Env[Any, Any]):
    """Rewards of its level, for ten steps."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, level: Any = 1, more: Any = None) -> None:
        self.level, self.time = level, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, float(self.level), self.time == 10, False, {}


class Minus(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return -float(reward)


def test_numbers_of_numpy_are_kept(tmp_path: Path) -> None:
    """As Python's: the loaded and the resumed agent have the same environment."""
    kwargs = {"level": np.int64(5), "more": {"a": (1, np.float32(2.5))}}
    agent = clipper.PPO(Level, env_kwargs=kwargs, **SMALL)
    agent.train(progress=False, run_dir=tmp_path / "run")
    assert agent.evaluate(2).mean == 50.0
    for again in (
        clipper.load(tmp_path / "run", env=Level),
        clipper.resume(tmp_path / "run", env=Level),
    ):
        assert again.evaluate(2).mean == 50.0
        assert again.env_kwargs == {"level": 5, "more": {"a": [1, 2.5]}}
        again.close()


@pytest.mark.parametrize(
    ("made", "lost"),
    [
        ({"env_kwargs": {"level": 5, "more": object()}}, "more"),
        ({"env_kwargs": {"level": 5, "more": {1: 2}}}, "more"),
        ({"wrappers": [Minus]}, "wrapper Minus"),
        ({"env_kwargs": {"more": {1}}, "wrappers": [Minus]}, "more and wrapper Minus"),
    ],
)
def test_what_is_lost_is_named(made: dict[str, Any], lost: str, tmp_path: Path) -> None:
    """The bare environment is not taken for the one that was trained in; one with all of it is."""
    agent = clipper.PPO(Level, **made, **SMALL)
    agent.train(progress=False, run_dir=tmp_path / "run")
    mean = agent.evaluate(2).mean
    agent.save(tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", tmp_path / "run"):
        with pytest.raises(ConfigError, match=f"was made with {lost}, which no file holds"):
            clipper.load(path).evaluate(1)
        with pytest.raises(ConfigError, match=f"with {lost}, which no file holds, and Level alone"):
            clipper.load(path, env=Level)
    with pytest.raises(ConfigError, match="Level alone is another one"):
        clipper.resume(tmp_path / "run", env=Level)

    def whole(**kwargs: Any) -> Any:
        env: Any = functools.partial(
            Level, **{"level": 5, **kwargs} if "env_kwargs" in made else {}
        )()
        return Minus(env) if "wrappers" in made else env

    found = clipper.load(tmp_path / "a.safetensors", env=whole).evaluate(2).mean
    assert found == (mean if lost != "more and wrapper Minus" else -50.0)


def test_a_wrapper_of_a_named_environment_is_named(tmp_path: Path) -> None:
    """The name by itself is that of another environment."""
    agent = clipper.PPO("CartPole-v1", wrappers=[Minus], **SMALL)
    agent.save(tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="CartPole-v1 was made with wrapper Minus"):
        clipper.load(tmp_path / "a.safetensors").evaluate(1)
    with pytest.raises(ConfigError, match="CartPole-v1 alone is another one"):
        clipper.load(tmp_path / "a.safetensors", env="CartPole-v1")
    given = clipper.load(
        tmp_path / "a.safetensors", env=lambda: Minus(gymnasium.make("CartPole-v1"))
    )
    assert given.evaluate(2).mean == agent.evaluate(2).mean < 0


def test_keys_that_json_would_change_are_refused() -> None:
    """Of a named environment, whose arguments a file must hold."""
    with pytest.raises(ConfigError, match="keys of a dict are texts alone"):
        clipper.PPO("CartPole-v1", env_kwargs={"a": {1: 2}}, **SMALL)


def test_a_folder_that_this_process_writes_is_told_as_such(tmp_path: Path) -> None:
    """A cell of a notebook that is run twice."""
    agent = clipper.PPO("CartPole-v1", **SMALL)
    agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    held = clipper.resume(tmp_path / "run")
    with pytest.raises(clipper.ClipperError, match="an agent of this very process is writing it"):
        clipper.resume(tmp_path / "run")
    held.close()
    clipper.resume(tmp_path / "run").close()
