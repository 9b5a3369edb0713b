"""Laws of the hyperbolic tangents that the kernels compute for a network of the user's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import clipper
from clipper.engine import kernels
from clipper.engine.quick_parts import QuickParts
from libraries import NEEDS_ENGINE

pytestmark = NEEDS_ENGINE
LARGE = (64, 64)


def variants() -> list[str]:
    return [] if kernels.ABSENCE is not None else list(kernels.compiled.variants())


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("size", [1, 7, 16, 33, 100_003])
def test_it_is_the_hyperbolic_tangent(variant: str, size: int) -> None:
    """Within six units in the last place of what float64 finds, whatever the size."""
    x = np.linspace(-12.0, 12.0, size, dtype=np.float32)
    x[-1:] = 1e-6
    y = np.full(size + 1, 7.0, dtype=np.float32)
    kernels.compiled.tanh(variant, x, y[:size])
    expected = np.tanh(x.astype(np.float64))
    unit = np.spacing(np.abs(expected).astype(np.float32)) + 1e-38
    assert (np.abs(y[:size] - expected) / unit).max() < 6.0
    assert y[size] == 7.0
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    found = np.empty_like(special)
    kernels.compiled.tanh(variant, special, found)
    np.testing.assert_allclose(found, np.tanh(special), rtol=1e-6)
    assert np.signbit(found[4])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2), nn.Tanh())


def quick(module: nn.Module) -> QuickParts:
    return QuickParts(module, torch.zeros(0), kernels.compiled.variants()[0])


def test_gradients_are_those_of_autograd() -> None:
    """Through a large layer, which the kernels compute, and a small one; judged by float64."""
    module, obs = network(), torch.randn(200, 3)
    with quick(module):
        module(obs).square().sum().backward()
    found = [p.grad for p in module.parameters()]
    exact = copy.deepcopy(module).double()
    exact.zero_grad()
    exact(obs.double()).square().sum().backward()
    for mine, theirs in zip(found, exact.parameters(), strict=True):
        assert mine is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.double(), theirs.grad, rtol=1e-5, atol=1e-5)


def calls(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Returns what the kernels were asked for while a module is called."""
    asked: list[torch.Tensor] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            if name == "tanh":
                asked.append(x)
            return getattr(kernels._native, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipper.engine.quick_tanh.kernels.compiled", Watched())
        with quick(module):
            module(x)
    return asked


class Own(nn.Tanh):
    """Is called as if it were one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + 1.0


def test_only_plain_parts_and_large_blocks_are_taken() -> None:
    """What has a meaning of its own keeps it, and few numbers are torch's."""
    assert len(calls(nn.Tanh(), torch.randn(LARGE))) == 1
    assert not calls(nn.Tanh(), torch.randn(8, 64))
    assert not calls(nn.Tanh(), torch.randn(LARGE, dtype=torch.float64))
    assert not calls(nn.Tanh(), torch.randn(LARGE).T)
    assert not calls(Own(), torch.randn(LARGE))
    patched = nn.Tanh()
    patched.forward = lambda input: input * 2.0  # type: ignore[method-assign]
    assert not calls(patched, torch.randn(LARGE))
    assert patched(torch.ones(1)) == 2.0
    compiled: Any = torch.compile(nn.Sequential(nn.Tanh()), backend="eager")
    assert quick(compiled)._patches == []


def test_the_module_is_left_as_it_was() -> None:
    """Also where the network raises."""
    module = network()
    before = [dict(vars(part)) for part in module.modules()]
    with pytest.raises(RuntimeError), quick(module):
        module(torch.randn(200, 4))
    assert [dict(vars(part)) for part in module.modules()] == before


def test_transformations_of_functions_are_left_to_torch() -> None:
    """`torch.func` knows no rule for ours, and gets torch's."""
    module, x = nn.Tanh(), torch.randn(3, *LARGE)
    with quick(module):
        found = torch.func.vmap(module)(x)
        slope = torch.func.grad(lambda y: module(y).sum())(x)
    torch.testing.assert_close(found, torch.tanh(x))
    torch.testing.assert_close(slope, 1.0 - torch.tanh(x) ** 2)


class Actor(nn.Module):
    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.hidden, self.act = nn.Linear(obs_size, 64), nn.Tanh()
        self.actor, self.critic = nn.Linear(64, num_outputs), nn.Linear(64, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.act(self.hidden(obs))
        return self.actor(hidden), self.critic(hidden)


def test_an_agent_learns_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rollout's updates the parameters differ in the last digits alone."""
    found = []
    for fewest in (2048, 10**9):
        monkeypatch.setattr("clipper.engine.quick_tanh._FEWEST", fewest)
        agent = clipper.PPO("CartPole-v1", preset="none", module=Actor, num_envs=4, num_steps=64,
                            minibatch_size=64, total_timesteps=256, eval_every=0)  # fmt: skip
        agent.train(progress=False)
        found.append([p.detach().clone() for p in agent.policy.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
