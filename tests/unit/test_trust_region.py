"""Laws of the trust region's parts: systems solved, curvature true, no step beyond the limit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipper.engine.group import actor_and_critic
from clipper.engine.state import FlatParameters
from clipper.policies.actor_critic import ActorCritic
from clipper.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    full_step,
    line_search,
)
from helpers import ACTION_SPACES, small_policy


def positive_definite(size: int, seed: int) -> np.ndarray:
    """Returns a symmetric matrix with eigenvalues from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return (basis * np.geomspace(0.1, 10.0, size)) @ basis.T


@given(size=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_conjugate_gradient_solves_the_system(size: int, seed: int) -> None:
    """After as many iterations as there are unknowns x is numpy's solution of A x = b."""
    matrix = positive_definite(size, seed)
    target = np.random.default_rng(seed + 1).normal(size=size)
    a = torch.from_numpy(matrix)
    found = conjugate_gradient(lambda v: a @ v, torch.from_numpy(target), 3 * size, 1e-24)
    np.testing.assert_allclose(found.numpy(), np.linalg.solve(matrix, target), rtol=1e-7, atol=1e-9)


def test_the_unit_of_the_target_does_not_matter() -> None:
    """A million times smaller, b has a solution a million times smaller: not 0, which is near enough."""
    a = torch.from_numpy(positive_definite(6, 2))
    target = torch.from_numpy(np.random.default_rng(1).normal(size=6))
    large, small = (conjugate_gradient(lambda v: a @ v, b, 10) for b in (target, 1e-6 * target))
    torch.testing.assert_close(small, 1e-6 * large, rtol=1e-9, atol=0.0)


def test_more_iterations_are_nearer() -> None:
    """The error (x - x*)^T A (x - x*) falls with every iteration: what the method minimises."""
    matrix = positive_definite(20, 3)
    target = np.random.default_rng(4).normal(size=20)
    exact = np.linalg.solve(matrix, target)
    a = torch.from_numpy(matrix)
    errors = []
    for iterations in range(1, 20):
        found = conjugate_gradient(lambda v: a @ v, torch.from_numpy(target), iterations)
        error = found.numpy() - exact
        errors.append(error @ matrix @ error)
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


def test_a_target_of_zeros_needs_no_product() -> None:
    """With b = 0 the answer is 0, and nothing is divided by it."""

    def product(vector: Tensor) -> Tensor:
        raise AssertionError("a product that nobody needs")

    assert torch.equal(conjugate_gradient(product, torch.zeros(3), 10), torch.zeros(3))


class Divergence:
    """The mean KL(old || new) of a policy on some observations, as a function of a flat vector."""

    def __init__(self, kind: str, seed: int) -> None:
        self.policy: ActorCritic = small_policy(kind, seed=seed)
        self.actor, _ = actor_and_critic(self.policy, FlatParameters(self.policy))
        rng = np.random.default_rng(seed)
        self.obs = torch.from_numpy(rng.normal(size=(11, 3)))
        self.old = self.policy.distribution_params(self.obs).detach()
        self.start = self.actor.read()

    def kl(self) -> Tensor:
        new = self.policy.distribution_params(self.obs)
        return self.policy.distribution.kl(self.old, new).mean()

    def gradient_at(self, vector: Tensor) -> Tensor:
        self.actor.write(vector)
        return self.actor.gradient(self.kl())

    def product(self, vector: Tensor, damping: float) -> Tensor:
        self.actor.write(self.start)
        gradient = self.actor.gradient(self.kl(), create_graph=True)
        return fisher_vector_product(gradient, self.actor.members, vector, damping)


@pytest.mark.parametrize("kind", ACTION_SPACES)
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_fisher_product_is_the_slope_of_the_kl_gradient(kind: str, damping: float) -> None:
    """F v = (g(theta + h v) - g(theta - h v)) / 2h, g the gradient of the mean KL, in float64."""
    divergence = Divergence(kind, seed=2)
    rng = np.random.default_rng(5)
    for _ in range(3):
        vector = torch.from_numpy(rng.normal(size=divergence.actor.size))
        h = 1e-5
        ahead = divergence.gradient_at(divergence.start + h * vector)
        behind = divergence.gradient_at(divergence.start - h * vector)
        expected = (ahead - behind) / (2 * h) + damping * vector
        found = divergence.product(vector, damping)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_product_is_with_fishers_information() -> None:
    """F = E[(grad log pi)(grad log pi)^T], summed over all three actions of every observation."""
    divergence = Divergence("discrete", seed=4)
    policy, actor = divergence.policy, divergence.actor
    size = actor.size
    fisher = np.zeros((size, size))
    for row in divergence.obs:
        params = policy.distribution_params(row[None])
        for action in range(3):
            log_prob = policy.distribution.log_prob(params, torch.tensor([[action]]))
            score = actor.gradient(log_prob.sum(), retain_graph=True).numpy()
            fisher += float(log_prob.detach().exp()) * np.outer(score, score) / len(divergence.obs)
    vector = torch.from_numpy(np.random.default_rng(1).normal(size=size))
    found = divergence.product(vector, 0.0)
    np.testing.assert_allclose(found.numpy(), fisher @ vector.numpy(), rtol=1e-8, atol=1e-12)


@given(seed=st.integers(0, 1000), max_kl=st.floats(1e-4, 1.0))
def test_the_full_step_ends_on_the_rim(seed: int, max_kl: float) -> None:
    """There the quadratic model of the KL, s^T F s / 2, is delta."""
    fisher = positive_definite(6, seed)
    direction = np.random.default_rng(seed).normal(size=6)
    step = full_step(torch.from_numpy(direction), float(direction @ fisher @ direction), max_kl)
    assert step is not None
    assert 0.5 * step.numpy() @ fisher @ step.numpy() == pytest.approx(max_kl)
    assert float(step @ torch.from_numpy(direction)) > 0


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.nan, math.inf])
def test_there_is_no_step_without_curvature(curvature: float) -> None:
    """Nothing is divided by what is not a number above 0."""
    assert full_step(torch.ones(2), curvature, 0.01) is None


@given(
    length=st.floats(0.01, 100.0),
    best=st.floats(-2.0, 2.0),
    max_kl=st.floats(1e-3, 1.0),
    tries=st.integers(1, 12),
)
def test_the_first_step_that_gains_within_the_limit_is_taken(
    length: float, best: float, max_kl: float, tries: int
) -> None:
    """On a line: KL x^2 and gain 1 - (x - b)^2 - (1 - b^2); all tries are looked at by hand."""

    def judge(point: Tensor) -> tuple[float, float]:
        x = float(point)
        return best**2 - (x - best) ** 2, x * x

    found = line_search(
        judge,
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([length], dtype=torch.float64),
        max_kl=max_kl,
        factor=0.5,
        num_tries=tries,
    )
    points = [length * 0.5**j for j in range(tries)]
    good = [x for x in points if best**2 - (x - best) ** 2 > 0 and x * x <= max_kl]
    if good:
        assert float(found.parameters) == good[0]
        assert found.fraction == pytest.approx(good[0] / length)
        assert found.kl == good[0] ** 2 <= max_kl
        assert found.num_tries == points.index(good[0]) + 1
    else:
        assert float(found.parameters) == 0.0
        assert (found.fraction, found.gain, found.kl) == (0.0, 0.0, 0.0)
        assert found.num_tries == tries


@pytest.mark.parametrize(("gain", "kl"), [(math.nan, 0.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_a_number_is_not_accepted(gain: float, kl: float) -> None:
    """A surrogate or a divergence that overflowed ends the search where it began."""
    found = line_search(
        lambda point: (gain, kl), torch.zeros(2), torch.ones(2), max_kl=1.0, factor=0.8, num_tries=4
    )
    assert torch.equal(found.parameters, torch.zeros(2))
    assert found.fraction == 0.0
