"""Laws of the limits on tensors: what an agent has is far below, what no agent has is above."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from clipper.agents import AGENTS
from clipper.errors import FileError
from clipper.tensor_files import read_head
from clipper.tensor_limits import check_size, most_agent_bytes, most_training_bytes, num_bytes


class Odd(gymnasium.Env[Any, Any]):
    """Episodes of nine steps with the space that is given."""

    def __init__(self, space: gymnasium.Space[Any], num_actions: int = 6) -> None:
        self.observation_space = space
        self.action_space = gymnasium.spaces.Discrete(num_actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._step = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self._step += 1
        return self.observation_space.sample(), 0.0, self._step > 8, False, {}


def image(*shape: int) -> gymnasium.Space[Any]:
    return gymnasium.spaces.Box(0, 255, shape, np.uint8)


def two_images() -> Odd:
    """Images for both kinds of convolutions, and numbers beside them."""
    parts = {"a": image(40, 36, 1), "b": image(12, 12, 1), "c": gymnasium.spaces.Box(-1, 1, (3,))}
    return Odd(gymnasium.spaces.Dict(parts))


SMALL = {"preset": "none", "eval_every": 0, "hidden_sizes": (1,), "total_timesteps": 128}
PPO = {"num_steps": 16, "minibatch_size": 16, "num_envs": 2}
ACER = {"num_steps": 10, "replay_start": 0, "num_envs": 3}
AGENTS_MADE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "ppo": ("ppo", "Pendulum-v1", PPO),
    "a2c": ("a2c", "CartPole-v1", {"trust_region": True}),
    "acer": ("acer", "CartPole-v1", ACER),
    "vpg": ("vpg", "CartPole-v1", {"num_envs": 1, "num_steps": 64}),
    "trpo": ("trpo", "Pendulum-v1", {"num_steps": 64}),
    "cem": ("cem", "CartPole-v1", {"hidden_sizes": (300, 300)}),
    "wide": ("ppo", "Pendulum-v1", {**PPO, "hidden_sizes": (300, 300), "value_hidden_sizes": ()}),
    "many numbers": (
        "ppo",
        lambda: Odd(gymnasium.spaces.Box(-1, 1, (50_000,)), 100),
        PPO,
    ),
    "an image": ("ppo", lambda: Odd(image(84, 84, 4)), PPO),
    "a long image": ("ppo", lambda: Odd(image(300, 12, 3)), {**PPO, "cnn": "nature"}),
    "a small image": ("ppo", lambda: Odd(image(12, 12, 1)), PPO),
    "images and numbers": ("ppo", two_images, PPO),
    "a memory of images": ("acer", lambda: Odd(image(36, 36, 3)), {**ACER, "replay_capacity": 57}),
}


@pytest.mark.parametrize("name", AGENTS_MADE)
def test_what_agents_have_is_below_the_limits(name: str, tmp_path: Path) -> None:
    """At least a third is to spare, for every algorithm and kind of observation, down to one unit."""
    algorithm, env, settings = AGENTS_MADE[name]
    agent = AGENTS[algorithm](env, **{**SMALL, **settings})
    agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    step = max((tmp_path / "run/checkpoints").iterdir())
    meta, table = read_head(step / "agent.safetensors")
    found, most = num_bytes(table, ""), most_agent_bytes(meta, table)
    assert most is not None
    assert 1.5 * found < most
    beside = num_bytes(read_head(step / "training.safetensors")[1], "")
    assert 1.5 * beside < most_training_bytes(meta, table, found, int(step.name[5:]))


def test_tensors_of_the_users_module_are_as_large_as_they_are() -> None:
    """Nobody knows what it has; everything else is bounded as ever."""
    large = {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}
    check_size({"policy.network.w": large}, None, "x")
    with pytest.raises(FileError, match="most of them in 'space"):
        check_size({"policy.network.w": large, "space.obs.low": large}, None, "x")


@pytest.mark.parametrize(
    "tensor",
    [None, {}, {"data_offsets": [1]}, {"data_offsets": [2, 1]}, {"data_offsets": [0, 0.5]}],
    ids=str,
)
def test_a_tensor_without_a_place_is_refused(tensor: Any) -> None:
    """One error of ours with the tensor's name."""
    with pytest.raises(FileError, match=r"not of 'a'"):
        num_bytes({"a": tensor}, "x")
