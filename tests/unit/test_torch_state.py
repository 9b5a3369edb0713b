"""What a user has set torch to elsewhere is nothing to an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": partial(default_dtype, torch.float64),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    # stands for a GPU: what is made there by mistake has no content
    "device": partial(torch.device, "meta"),
}


def life(name: str, path: Path) -> list[Any]:
    """Returns what comes of an agent that is made, trained, saved, loaded and examined."""
    agent = MAKERS[name]()
    agent.train(progress=False)
    assert {p.dtype for p in agent.policy.parameters()} == {torch.float32}
    agent.save(path)
    given = {"module": Perceptrons} if name == "module" else {}
    given |= {"env": partial(Catch, "last")} if name == "images" else {}
    again = clipper.load(path, **given)
    assert again.evaluate(2).returns == agent.evaluate(2).returns
    agent.close()
    return [p.tolist() for p in agent.policy.state_dict().values()]


@pytest.mark.parametrize("name", MAKERS)
def test_an_agent_is_the_same_to_the_bit_whatever_is_set(name: str, tmp_path: Path) -> None:
    """From the first weights to the file, and nothing stays changed."""
    expected = life(name, tmp_path / "plain.safetensors")
    for state in STATES:
        with STATES[state]():
            set_up = torch.empty(1).dtype, torch.empty(1).device, torch.is_grad_enabled()
            assert life(name, tmp_path / f"{state}.safetensors") == expected, state
            after = torch.empty(1).dtype, torch.empty(1).device, torch.is_grad_enabled()
            assert after == set_up


def test_a_run_goes_on_whatever_is_set(tmp_path: Path) -> None:
    """Resumed without gradients and elsewhere, it has the bits of the run that was never stopped."""
    straight = MAKERS["ppo"]()
    straight.train(2_048, progress=False)
    first = MAKERS["ppo"]()
    first.train(2_048, progress=False, callback=lambda r: False, run_dir=tmp_path / "run")
    first.close()
    with torch.inference_mode(), torch.device("meta"):
        again = clipper.resume(tmp_path / "run")
        again.train(progress=False)
    assert again.inexact is None
    for a, b in zip(again.policy.parameters(), straight.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    again.close()
