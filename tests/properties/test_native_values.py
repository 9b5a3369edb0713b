"""The fit of the value function in C++ against the same loop in torch, and against torch's own Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.advantages import Estimates
from clipper.config_relatives import TRPOConfig
from clipper.engine import kernels
from clipper.engine.group import actor_and_critic
from clipper.engine.native import NativeEngine
from clipper.engine.state import FlatParameters
from clipper.engine.value_regression import ValueRegression
from clipper.errors import ConfigError, NumericsError
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, permutation
from clipper.rollout import Batch, Rollout, flatten
from helpers import ACTION_SPACES, random_rollout, small_policy

needs_native = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))


def rows_of(
    policy: ActorCritic, num_steps: int, seed: int, scale: float = 1.0
) -> tuple[Rollout, Batch]:
    """Returns a rollout of three environments and its rows with random targets."""
    rollout = random_rollout(policy, num_steps=num_steps, num_envs=3, seed=seed)
    targets = torch.from_numpy(
        np.random.default_rng(seed).normal(scale=scale, size=(num_steps, 3)).astype(np.float32)
    )
    obs = policy.normalize(rollout.obs)
    return rollout, flatten(rollout, obs, Estimates(targets, targets, None))


def fit_of(policy: ActorCritic, *, in_torch: bool) -> tuple[ValueRegression, Any]:
    engine = None if in_torch else NativeEngine(policy)
    parameters = FlatParameters(policy) if engine is None else engine.parameters
    _, critic = actor_and_critic(policy, parameters)
    return ValueRegression(policy, critic, engine), critic


@needs_native
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(ACTION_SPACES)),
    activation=st.sampled_from(["tanh", "relu", "elu", "silu", "gelu"]),
    hidden=st.lists(st.integers(1, 40), max_size=3),
    num_steps=st.integers(1, 60),
    minibatch=st.integers(1, 100),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_it_is_the_loop_in_torch(
    kind: str,
    activation: str,
    hidden: list[int],
    num_steps: int,
    minibatch: int,
    epochs: int,
    seed: int,
) -> None:
    """Parameters within 1e-4, mean loss and moments within 1e-3 relative, after three calls.

    The last minibatch of an epoch may be smaller, and the normaliser's work is done in C++ too. The
    policy's own parameters stay, to the bit.
    """
    config = TRPOConfig().replace(minibatch_size=minibatch, num_value_epochs=epochs)
    shape: Any = {"value_hidden_sizes": tuple(hidden), "activation": activation}
    fast, plain = (
        small_policy(kind, **shape, seed=seed, normalize_obs=True, dtype=torch.float32)
        for _ in range(2)
    )
    for policy in (fast, plain):
        policy.merge_observations(random_rollout(policy, seed=seed, obs_mean=2.0).obs)
    there, mine = fit_of(fast, in_torch=False), fit_of(plain, in_torch=True)
    before = [p.detach().clone() for n, p in fast.named_parameters() if "critic" not in n]
    for iteration in range(3):
        found = []
        for policy, (fit, _) in ((fast, there), (plain, mine)):
            rollout, batch = rows_of(policy, num_steps, seed + iteration)
            found.append(
                fit.fit(rollout, batch, config, learning_rate=1e-3, seed=seed, iteration=iteration)
            )
        assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-6)
    torch.testing.assert_close(there[1].read(), mine[1].read(), rtol=1e-3, atol=1e-4)
    states = there[0].state_dict(), mine[0].state_dict()
    assert states[0]["num_updates"] == states[1]["num_updates"]
    assert int(states[0]["num_updates"]) == 3 * epochs * -(-3 * num_steps // minibatch)
    torch.testing.assert_close(states[0]["m"], states[1]["m"], rtol=1e-2, atol=1e-3)
    after = [p.detach() for n, p in fast.named_parameters() if "critic" not in n]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@needs_native
def test_it_is_torchs_adam() -> None:
    """torch.optim.Adam on 0.5 (V - target)^2 of the same minibatches, in float64: within 1e-5."""
    fast = small_policy("discrete", hidden_sizes=(16, 8), dtype=torch.float32)
    twin = small_policy("discrete", hidden_sizes=(16, 8), dtype=torch.float64)
    rollout, batch = rows_of(fast, 20, 4)
    fit, _ = fit_of(fast, in_torch=False)
    config = TRPOConfig().replace(minibatch_size=16, num_value_epochs=2)
    found = fit.fit(rollout, batch, config, learning_rate=3e-3, seed=9, iteration=5)
    critic = [p for n, p in twin.named_parameters() if "critic" in n]
    adam, losses = torch.optim.Adam(critic, lr=3e-3), []
    for epoch in range(2):
        order = permutation(9, Purpose.SHUFFLE, epoch, 5, 60)
        for start in range(0, 60, 16):
            chosen = order[start : start + 16]
            values = twin(batch.obs[chosen].double())[1]
            loss = 0.5 * (values - batch.value_targets[chosen].double()).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
    assert found == pytest.approx(np.mean(losses), rel=1e-5)
    named = dict(fast.named_parameters())
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(named[name].double(), parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_torch", [pytest.param(False, marks=needs_native), True])
def test_what_is_not_finite_moves_nothing(in_torch: bool) -> None:
    """A target that overflowed is an error that names the update, before any parameter moves."""
    policy = small_policy("discrete", dtype=torch.float32)
    fit, critic = fit_of(policy, in_torch=in_torch)
    rollout, batch = rows_of(policy, 20, 1)
    batch.value_targets.fill_(float("inf"))
    before = critic.read()
    with pytest.raises(NumericsError, match="at update 1"):
        fit.fit(rollout, batch, TRPOConfig(), learning_rate=1e-3, seed=0, iteration=0)
    assert torch.equal(critic.read(), before)


@needs_native
def test_a_shared_torso_is_left_to_torch() -> None:
    """V learns its head alone: the layers it shares are the policy's, and the line says who learns."""
    policy = small_policy("discrete", shared_torso=True, dtype=torch.float32)
    fit, critic = fit_of(policy, in_torch=False)
    before = {n: p.detach().clone() for n, p in policy.named_parameters()}
    rollout, batch = rows_of(policy, 20, 1)
    fit.fit(rollout, batch, TRPOConfig(), learning_rate=1e-2, seed=0, iteration=0)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("network.critic"), name
    assert critic.size == 5 + 1
    assert "acts, torch learns (why)" in fit.describe(TRPOConfig(), "why")


def test_who_does_what_is_said() -> None:
    """Native: acts and fits V. Reference: torch does all, and why."""
    policy = small_policy("discrete", dtype=torch.float32)
    if kernels.ABSENCE is None:
        fit, _ = fit_of(policy, in_torch=False)
        line = fit.describe(TRPOConfig(), "why")
        assert line.endswith("acts and fits V, torch takes the policy's step (why)")
    fit, _ = fit_of(policy, in_torch=True)
    line = fit.describe(TRPOConfig().replace(engine="reference"), "why")
    assert line.startswith("engine: reference, in torch")
    assert "it was asked for" in line


class NoValues(torch.nn.Module):
    """A network whose value is a number that is not learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = torch.nn.Linear(3, 3)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits and zeros."""
        return self.actor(obs), torch.zeros(len(obs))


def test_a_module_without_values_of_its_own_is_refused() -> None:
    """The error says what the module lacks."""
    base = small_policy("discrete")
    policy = ActorCritic(
        base.obs_layout, base.action_layout, NoValues(), log_std_init=0.0, normalize_obs=False
    )
    with pytest.raises(ConfigError, match="parameters of the value function alone"):
        actor_and_critic(policy, FlatParameters(policy))
