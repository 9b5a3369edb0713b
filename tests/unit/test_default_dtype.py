"""What a user has set torch's type of new tensors to elsewhere is nothing to us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clipper
from pixels import Catch

SMALL: dict[str, Any] = {"num_envs": 2, "total_timesteps": 600, "eval_every": 0, "seed": 1}
PENDULUM, CARTPOLE = "Pendulum-v1", "CartPole-v1"


class Perceptrons(nn.Module):
    """Two plain perceptrons in float32, which the engine may compute as one call each."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()

        def chain(outputs: int) -> nn.Sequential:
            first = nn.Linear(obs_size, 8, dtype=torch.float32)
            return nn.Sequential(first, nn.Tanh(), nn.Linear(8, outputs, dtype=torch.float32))

        self.actor, self.critic = chain(num_outputs), chain(1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(obs), self.critic(obs).squeeze(-1)


Make = Callable[[], Any]
MAKERS: dict[str, Make] = {
    "ppo": partial(clipper.PPO, PENDULUM, normalize_obs=True, normalize_reward=True, **SMALL),
    "ppo reference": partial(
        clipper.PPO, PENDULUM, engine="reference", normalize_obs=True, **SMALL
    ),
    "module": partial(clipper.PPO, CARTPOLE, module=Perceptrons, normalize_obs=True, **SMALL),
    "images": partial(
        clipper.PPO, partial(Catch, "last"), num_steps=32, minibatch_size=64, **SMALL
    ),
    "a2c": partial(clipper.A2C, PENDULUM, **SMALL),
    "acer": partial(clipper.ACER, CARTPOLE, **SMALL),
    "vpg": partial(clipper.VPG, CARTPOLE, **SMALL),
    "trpo": partial(clipper.TRPO, PENDULUM, normalize_obs=True, **SMALL),
    "cem": partial(clipper.CEM, PENDULUM, **SMALL),
}


@pytest.fixture(autouse=True)
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", MAKERS)
def test_an_agent_is_the_same_to_the_bit_whatever_the_default(name: str, tmp_path: Path) -> None:
    """In float32 all through, from the first weights to the file."""
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        agent = MAKERS[name]()
        agent.train(progress=False)
        assert {p.dtype for p in agent.policy.parameters()} == {torch.float32}
        path = tmp_path / f"{len(found)}.safetensors"
        agent.save(path)
        given = {"module": Perceptrons} if name == "module" else {}
        given |= {"env": partial(Catch, "last")} if name == "images" else {}
        again = clipper.load(path, **given)
        assert again.evaluate(2).returns == agent.evaluate(2).returns
        found.append([p.tolist() for p in agent.policy.state_dict().values()])
        agent.close()
    assert found[0] == found[1]
    assert torch.get_default_dtype() == torch.float64
