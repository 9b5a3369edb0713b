"""A2C's gradient, RMSprop and the trust region, each against its definition."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from clipper.algorithms.a2c import A2C
from clipper.config_a2c import A2CConfig
from clipper.engine import kernels
from clipper.engine.rmsprop import RMSprop
from clipper.engine.state import FlatParameters
from clipper.errors import NumericsError
from clipper.losses import trust_region_correction
from clipper.policies.actor_critic import ActorCritic
from clipper.rollout import Rollout
from helpers import ACTION_SPACES, flat_parameters, learner, random_rollout, small_policy

T, N = 5, 6
needs_native = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))


def actor_critic(policy: ActorCritic, *, num_envs: int = N, **settings: Any) -> A2C:
    """Returns A2C around a policy."""
    config = A2CConfig().replace(**{"num_envs": num_envs, "num_steps": T, **settings})
    return A2C(policy, config, num_envs, 0)


def gradient(a2c: A2C, rollout: Rollout) -> Tensor:
    """Returns the gradient of its loss on a rollout, all parameters in one vector."""
    loss, _ = a2c.loss(a2c.judge(rollout, a2c.scaled_rewards(rollout)))
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, [*a2c.policy.parameters()])])


# --- one update -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_the_gradient_is_that_of_ppo_with_one_epoch_of_one_minibatch(kind: str) -> None:
    """Where the ratio is 1, grad min(rho A, clip(rho) A) = A grad log pi: A2C is that one step.

    lambda 1 makes GAE the n-step return minus V; advantages stay as they are in both.
    """
    policy = small_policy(kind)
    rollout = random_rollout(policy, num_steps=T, num_envs=N, end_rate=0.2)
    common: dict[str, Any] = {"gamma": 0.97, "ent_coef": 0.02, "vf_coef": 0.7}
    ppo = learner(
        copy.deepcopy(policy),
        num_envs=N,
        num_steps=T,
        minibatch_size=T * N,
        num_epochs=1,
        gae_lambda=1.0,
        normalize_advantage="none",
        **common,
    )
    batch = ppo.judge(rollout, ppo.policy.normalize(rollout.obs))
    loss, _ = ppo.loss(batch, 0.2)
    theirs = torch.autograd.grad(loss, [*ppo.policy.parameters()])
    ours = gradient(actor_critic(policy, **common), rollout)
    torch.testing.assert_close(ours, torch.cat([g.reshape(-1) for g in theirs]), rtol=1e-9, atol=0)
    assert float(ours.norm()) > 0.1


def test_targets_are_returns_of_n_steps() -> None:
    """R_t = sum gamma^i r_{t+i} + gamma^n V(s_{t+n}), summed by hand to the first end of any kind."""
    policy = small_policy("discrete")
    rollout = random_rollout(policy, num_steps=T, num_envs=N, end_rate=0.2, seed=3)
    a2c = actor_critic(policy, gamma=0.9)
    batch = a2c.judge(rollout, a2c.scaled_rewards(rollout))
    assert bool(rollout.terminated.any())
    assert bool((rollout.truncated & ~rollout.terminated).any())
    expected = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            for i in range(T - t):
                at = (t + i, n)
                expected[t, n] += 0.9**i * float(rollout.rewards[at])
                if rollout.terminated[at]:
                    break
                if rollout.truncated[at] or t + i == T - 1:
                    expected[t, n] += 0.9 ** (i + 1) * float(rollout.next_values[at])
                    break
    np.testing.assert_allclose(batch.value_targets.view(T, N), expected, rtol=1e-12)
    np.testing.assert_allclose(
        batch.advantages.view(T, N), expected - rollout.values.numpy(), rtol=1e-9
    )


# --- RMSprop --------------------------------------------------------------------------------------


def test_rmsprop_is_its_definition() -> None:
    """v <- alpha v + (1 - alpha) g^2 from v = 1, theta <- theta - lr g / sqrt(v + eps), by hand."""
    alpha, eps, rate, limit = 0.8, 0.3, 0.1, 1.5
    module = torch.nn.Linear(1, 1).double()
    flat = FlatParameters(module)
    flat.params[:] = torch.tensor([2.0, -1.0])
    rmsprop = RMSprop(flat, alpha=alpha, eps=eps, max_grad_norm=limit)
    theta, v = [2.0, -1.0], [1.0, 1.0]
    for x in (1.0, -0.5, 3.0):
        # loss (w x + b)^2 / 2, gradient (w x + b) (x, 1)
        off = theta[0] * x + theta[1]
        g = [off * x, off]
        norm = math.hypot(*g)
        found = rmsprop.minimise(0.5 * module(torch.full((1, 1), x).double()).square().sum(), rate)
        assert found == pytest.approx(norm, rel=1e-12)
        if norm > limit:
            g = [limit / (norm + 1e-6) * gi for gi in g]
        v = [alpha * vi + (1 - alpha) * gi * gi for vi, gi in zip(v, g, strict=True)]
        theta = [
            ti - rate * gi / math.sqrt(vi + eps) for ti, gi, vi in zip(theta, g, v, strict=True)
        ]
        found_theta = [float(module.weight.detach()), float(module.bias.detach())]
        assert found_theta == pytest.approx(theta, rel=1e-12)


def test_rmsprop_without_a_limit_does_not_clip() -> None:
    """With max_grad_norm none a large gradient moves by it: g / sqrt(alpha + (1 - alpha) g^2)."""
    module = torch.nn.Linear(1, 1, bias=False).double()
    flat = FlatParameters(module)
    flat.params[:] = 0.0
    RMSprop(flat, alpha=0.9, eps=1e-12, max_grad_norm=None).minimise(100.0 * module.weight.sum(), 1)
    assert float(flat.params) == pytest.approx(-100.0 / math.sqrt(0.9 + 0.1 * 100.0**2), rel=1e-9)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    """The error names the update; parameters and the average of squares are as before."""
    a2c = actor_critic(small_policy("discrete"))
    rollout = random_rollout(a2c.policy, num_steps=T, num_envs=N)
    before = flat_parameters(a2c.policy)
    rollout.rewards[2, 1] = torch.inf
    with pytest.raises(NumericsError, match="at update 1"):
        a2c.improve(rollout, 1e-3)
    assert torch.equal(flat_parameters(a2c.policy), before)
    assert bool((a2c.optimizer.state_dict()["square_avg"] == 1).all())


# --- the trust region -----------------------------------------------------------------------------


def test_the_correction_solves_the_quadratic_programme() -> None:
    """z = argmin |g - z|^2 / 2 subject to k . z <= delta, as scipy's solver finds it."""
    rng = np.random.default_rng(0)
    g, k = rng.normal(size=(8, 4)) * 3, rng.normal(size=(8, 4))
    delta = 0.7
    found = trust_region_correction(torch.from_numpy(g), torch.from_numpy(k), delta).numpy()
    for g_row, k_row, z in zip(g, k, found, strict=True):

        def distance(x: Any, g_row: Any = g_row) -> tuple[float, Any]:
            return 0.5 * float(np.sum((g_row - x) ** 2)), x - g_row

        solved = optimize.minimize(
            distance,
            x0=np.zeros(4),
            jac=True,
            constraints=optimize.LinearConstraint(k_row[None], -np.inf, delta),
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(z, solved.x, atol=1e-6)
    # the constraint binds in some of the eight and not in others
    assert 0 < ((g * k).sum(1) > delta).sum() < 8


def test_the_correction_by_hand() -> None:
    """g = (3, 1), k = (1, 0), delta 1: k.g = 3 exceeds it by 2, |k|^2 = 1, z = (1, 1).

    With k = (0, 0), as where the policy is its own average, nothing is held back.
    """
    g = torch.tensor([[3.0, 1.0], [3.0, 1.0], [-3.0, 1.0]])
    k = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    expected = torch.tensor([[1.0, 1.0], [3.0, 1.0], [-3.0, 1.0]])
    assert torch.equal(trust_region_correction(g, k, 1.0), expected)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_a_policy_that_is_its_own_average_is_not_held_back(kind: str) -> None:
    """Before the first update k = 0, so the gradient is that of plain A2C."""
    policy = small_policy(kind)
    rollout = random_rollout(policy, num_steps=T, num_envs=N)
    plain = gradient(actor_critic(copy.deepcopy(policy), ent_coef=0.02), rollout)
    leashed = gradient(actor_critic(policy, ent_coef=0.02, trust_region=True), rollout)
    torch.testing.assert_close(leashed, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_the_gradient_under_a_trust_region_is_z_through_the_network(kind: str) -> None:
    """Row by row: g and k by finite differences in the distribution's parameters, z, then J^T z.

    The policy has been moved away from its average, and delta is small, so that rows are held back.
    """
    policy = small_policy(kind)
    settings: dict[str, Any] = {"ent_coef": 0.02, "vf_coef": 0.0, "trust_region": True}
    a2c = actor_critic(policy, trust_region_delta=0.01, **settings)
    old = copy.deepcopy(policy)
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(0.5 * noise.double())
    rollout = random_rollout(policy, num_steps=T, num_envs=N)
    batch = a2c.judge(rollout, a2c.scaled_rewards(rollout))
    params = policy(batch.obs)[0]
    old_params = old(batch.obs)[0].detach()
    distribution = policy.distribution
    rows, held_back = [], 0
    for b in range(T * N):
        action, old_row = batch.actions[b : b + 1], old_params[b : b + 1]
        advantage = float(batch.advantages[b])

        def objective(x: Tensor, action: Tensor = action, advantage: float = advantage) -> Tensor:
            return distribution.log_prob(x, action) * advantage + 0.02 * distribution.entropy(x)

        def divergence(x: Tensor, old_row: Tensor = old_row) -> Tensor:
            return distribution.kl(old_row, x)

        row = params[b : b + 1].detach()
        g, k = differences(objective, row), differences(divergence, row)
        excess = k @ g - 0.01
        held_back += excess > 0
        rows.append(g - max(0.0, excess / (k @ k)) * k)
    z = torch.from_numpy(np.stack(rows))
    expected = torch.autograd.grad(-(z * params).sum() / len(z), [*policy.parameters()],
                                   allow_unused=True)  # fmt: skip
    flat = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(policy.parameters(), expected, strict=True)
    ]
    found = gradient(a2c, rollout)
    torch.testing.assert_close(
        found, torch.cat([g.reshape(-1) for g in flat]), rtol=1e-4, atol=1e-7
    )
    assert 0 < held_back < T * N
    _, report = a2c.loss(batch)
    assert float(report[-1]) == pytest.approx(held_back / (T * N))


def differences(function: Any, x: Tensor, step: float = 1e-5) -> np.ndarray[Any, Any]:
    """Returns the gradient at a row [1, P] by central differences."""
    found = []
    for i in range(x.shape[1]):
        offset = torch.zeros_like(x)
        offset[0, i] = step
        found.append(float(function(x + offset) - function(x - offset)) / (2 * step))
    return np.array(found)


def test_the_average_follows_every_update() -> None:
    """theta_a <- 0.9 theta_a + 0.1 theta after each of three updates, in float64 by hand."""
    a2c = actor_critic(small_policy("discrete"), trust_region=True, average_decay=0.9)
    rollout = random_rollout(a2c.policy, num_steps=T, num_envs=N)
    expected = flat_parameters(a2c.policy)
    for _ in range(3):
        a2c.improve(rollout, 0.1)
        expected = 0.9 * expected + 0.1 * flat_parameters(a2c.policy)
    found = a2c.state_dict()["average"]["params"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert float((found - flat_parameters(a2c.policy)).abs().max()) > 1e-3


def test_a_small_delta_keeps_the_policy_nearer_to_its_average() -> None:
    """After the same 20 steps on the same rows, KL(average || policy) is lower than without."""

    def divergence(delta: float) -> float:
        policy = small_policy("discrete")
        a2c = actor_critic(policy, trust_region=True, trust_region_delta=delta, ent_coef=0.0)
        rollout = random_rollout(policy, num_steps=T, num_envs=N)
        for _ in range(20):
            report, _ = a2c.improve(rollout, 0.05)
        return float(report[-2])

    assert divergence(0.0) < 0.5 * divergence(1e9)


# --- the native engine ----------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("kind", ACTION_SPACES)
@pytest.mark.parametrize("shared_torso", [False, True])
def test_the_native_gradient_is_that_of_torch(kind: str, shared_torso: bool) -> None:
    """Loss, numbers, targets and parameters after ten updates, float32 against the same in torch."""
    found = []
    for engine in ("native", "reference"):
        policy = small_policy(
            kind, shared_torso=shared_torso, normalize_obs=True, dtype=torch.float32
        )
        settings: dict[str, Any] = {"gamma": 0.9, "vf_coef": 0.7, "ent_coef": 0.02}
        a2c = actor_critic(policy, engine=engine, **settings)
        rollout = random_rollout(policy, num_steps=T, num_envs=N, end_rate=0.2)
        policy.merge_observations(rollout.obs)
        rollout = rollout.revalued(policy)
        first = a2c.improve(rollout, 1e-2)
        gradient = a2c.optimizer.grad.clone()
        for _ in range(9):
            a2c.improve(rollout.revalued(policy), 1e-2)
        found.append((*first, gradient, flat_parameters(policy)))
        assert a2c.engine_name().startswith(engine)
    for native_one, reference in zip(*found, strict=True):
        scale = float(reference.abs().max())
        torch.testing.assert_close(
            native_one.float(), reference.float(), rtol=1e-4, atol=2e-5 * scale
        )


def test_what_computes_is_said() -> None:
    """The native engine does it all, or acts alone under a trust region; torch in float64."""
    assert (
        actor_critic(small_policy("discrete")).describe_engine()
        == "engine: reference, in torch, 1 thread (the parameters are float64)"
    )
    if kernels.ABSENCE is None:
        single = small_policy("discrete", dtype=torch.float32)
        assert re.fullmatch(r"engine: native \w+", actor_critic(single).describe_engine())
        leashed = actor_critic(single, trust_region=True)
        line = r"engine: native \w+ acts, torch learns \(the trust region is not in C\+\+\)"
        assert re.fullmatch(line, leashed.describe_engine())
        assert re.fullmatch(r"native \w+ \+ reference", leashed.engine_name())
