"""Laws of the reference engine that no other file states."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import clipper
from clipper.engine import devices
from clipper.engine.reference import ReferenceEngine
from clipper.errors import ConfigError, NumericsError


def test_a_module_that_is_frozen_altogether_is_told() -> None:
    """Nothing to learn is one error of ours; a single parameter is enough."""
    module = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ConfigError, match="all are frozen") as caught:
        ReferenceEngine(module, betas=(0.9, 0.999), eps=1e-5, max_grad_norm=None)
    assert "requires_grad_(True)" in str(caught.value.hint)
    module.bias.requires_grad_(True)
    ReferenceEngine(module, betas=(0.9, 0.999), eps=1e-5, max_grad_norm=None)


def engine_on(weight: Tensor, *, waits: bool) -> tuple[nn.Linear, ReferenceEngine]:
    module = nn.Linear(3, 1, bias=False)
    module.weight.data.copy_(weight)
    engine = ReferenceEngine(module, betas=(0.9, 0.999), eps=1e-5, max_grad_norm=0.5)
    engine.waits = waits
    return module, engine


def test_an_engine_that_does_not_wait_takes_the_same_steps() -> None:
    """Clipped or not, the parameters are those of the engine that reads every number back."""
    obs = torch.randn(20, 6, 3, generator=torch.Generator().manual_seed(1))
    found = []
    for waits in (True, False):
        module, engine = engine_on(torch.ones(1, 3), waits=waits)
        norms = [engine.minimise(0.2 * module(rows).square().mean(), 0.05) for rows in obs]
        engine.settle()
        assert min(map(float, norms)) < 0.5 < max(map(float, norms))
        found.append(module.weight.detach().clone())
    assert torch.equal(*found)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_an_engine_that_does_not_wait_names_the_first_bad_update(factor: float) -> None:
    """No NaN reaches the parameters, and `settle` says at which update the first one was."""
    module, engine = engine_on(torch.ones(1, 3), waits=False)
    rows = torch.ones(2, 3)
    for scale in (1.0, factor, 1.0, factor):
        engine.minimise(module(rows).square().mean() * scale, 0.05)
    assert module.weight.isfinite().all()
    with pytest.raises(NumericsError, match="at update 2"):
        engine.settle()
    engine.minimise(module(rows).square().mean(), 0.05)
    engine.settle()


class Images(nn.Module):
    """A small convolutional network, which notes how its images lay."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(4 * 6 * 6, num_outputs + 1)
        self.second.register_forward_pre_hook(self._note)
        self.layouts: list[bool] = []

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        images = obs[:, :1, None, None].expand(-1, 1, 8, 8)
        out = self.head(self.second(self.first(images).relu()).relu().flatten(1))
        return out[:, :-1], out[:, -1]


SMALL = {
    "preset": "none",
    "num_envs": 4,
    "num_steps": 32,
    "minibatch_size": 64,
    "num_epochs": 2,
    "total_timesteps": 256,
    "eval_every": 0,
}


def test_images_of_a_minibatch_lie_channels_last() -> None:
    """Convolutions of a user's module get the layout that they are quick with."""
    agent = clipper.PPO("CartPole-v1", module=Images, **SMALL)
    agent.policy.network.layouts.clear()
    agent.train(progress=False)
    assert sum(agent.policy.network.layouts) >= 2 * 2 * 2  # every minibatch


def test_bf16_products_learn_and_are_saved_as_float32(tmp_path: Path) -> None:
    """The parameters stay float32, the file opens anywhere, and the run goes on exactly."""
    settings = {**SMALL, "precision": "bf16", "seed": 3}
    agent = clipper.PPO("CartPole-v1", module=Images, **settings)
    exact = clipper.PPO("CartPole-v1", module=Images, **{**settings, "precision": "float32"})
    obs = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        rounded, full = agent.policy(obs)[0], exact.policy(obs)[0]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, full)
    torch.testing.assert_close(rounded, full, rtol=0.05, atol=0.01)
    assert "precision is bf16" in clipper.PPO("CartPole-v1", **settings).describe_engine()
    agent.train(progress=False, run_dir=tmp_path / "run")
    assert all(p.dtype == torch.float32 for p in agent.policy.parameters())
    loaded = clipper.load(tmp_path / "run", module=Images)
    assert loaded.evaluate(episodes=2) == agent.evaluate(episodes=2)


def test_bf16_is_refused_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated products would be slower and rounded for nothing."""
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="must be float32 on cpu"):
        clipper.PPO("CartPole-v1", precision="bf16", **SMALL)
