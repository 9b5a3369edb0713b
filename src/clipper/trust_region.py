"""A direction and a divergence in, the longest step that keeps to a trust region out; torch alone.

What natural policy gradients and TRPO are made of: conjugate gradient, Fisher-vector product, line
search. Dimension key: K numbers of a flat vector of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

VectorProduct = Callable[[Tensor], Tensor]


def conjugate_gradient(
    product: VectorProduct,
    target: Float[Tensor, "K"],
    num_iterations: int,
    tolerance: float = 1e-10,
) -> Float[Tensor, "K"]:
    """Returns x with A x = b nearly, for a symmetric positive definite A that only multiplies.

    Hestenes and Stiefel 1952, "Methods of conjugate gradients for solving linear systems", from
    x = 0. In exact arithmetic it ends after K iterations; a few give the directions that matter.

    Args:
        product: v -> A v.
        target: b.
        num_iterations: At most so many products.
        tolerance: Ends when |b - A x|^2 is below this share of |b|^2.

    Returns:
        x, detached; 0 if b is.
    """
    x = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    rr = residual.dot(residual)
    limit = tolerance * float(rr)
    for _ in range(num_iterations):
        if float(rr) <= limit:
            break
        image = product(direction)
        alpha = rr / direction.dot(image)
        x = x + alpha * direction
        residual = residual - alpha * image
        rr_next = residual.dot(residual)
        direction = residual + (rr_next / rr) * direction
        rr = rr_next
    return x


def fisher_vector_product(
    kl_gradient: Float[Tensor, "K"],
    parameters: Sequence[Tensor],
    vector: Float[Tensor, "K"],
    damping: float,
) -> Float[Tensor, "K"]:
    """Returns (F + damping I) v, F the Hessian of the mean KL(old || new) where new is old.

    Schulman et al. 2015, arXiv 1502.05477, appendix C: that Hessian is the Fisher information of
    the policy, and its product with a vector the gradient of (gradient of the KL) . v.

    Args:
        kl_gradient: Gradient of the mean KL with respect to the parameters, differentiable itself.
        parameters: What it is the gradient with respect to, in the same order.
        vector: v.
        damping: Added to the diagonal; more holds the step to where the KL is felt.

    Returns:
        The product, detached; the computation of `kl_gradient` is kept for the next one.
    """
    grads = torch.autograd.grad(kl_gradient.dot(vector), parameters, retain_graph=True)
    return torch.cat([grad.reshape(-1) for grad in grads]) + damping * vector


def full_step(
    direction: Float[Tensor, "K"], curvature: float, max_kl: float
) -> Float[Tensor, "K"] | None:
    """Returns sqrt(2 delta / x^T F x) x, on whose end the quadratic model of the KL is delta.

    arXiv 1502.05477, appendix C.

    Args:
        direction: x.
        curvature: x^T F x.
        max_kl: delta.

    Returns:
        The step, or None if the curvature is not a number above 0: there is nowhere to go.
    """
    if not (math.isfinite(curvature) and curvature > 0.0):
        return None
    return math.sqrt(2.0 * max_kl / curvature) * direction


@dataclass(frozen=True, slots=True)
class LineSearch:
    """How a line search ended.

    Attributes:
        parameters: The parameters to go on with; those it began with if none was accepted, [K].
        fraction: Share of the full step that was taken, 0 if none.
        gain: Rise of the surrogate there.
        kl: KL(old || new) there.
        num_tries: Points that were looked at.
    """

    parameters: Tensor
    fraction: float
    gain: float
    kl: float
    num_tries: int


def line_search(
    judge: Callable[[Tensor], tuple[float, float]],
    start: Float[Tensor, "K"],
    step: Float[Tensor, "K"],
    *,
    max_kl: float,
    factor: float,
    num_tries: int,
) -> LineSearch:
    """Returns the first of start + factor^j step, j = 0, 1, ..., that gains and keeps within delta.

    arXiv 1502.05477, appendix C: the quadratic model may promise more than holds.

    Args:
        judge: Parameters [K] -> rise of the surrogate over that at `start`, KL(old || new).
        start: Where the policy is.
        step: The full step.
        max_kl: delta, which is never exceeded.
        factor: Below 1; what the step shrinks by.
        num_tries: At most so many points.
    """
    fraction = 1.0
    for tried in range(1, num_tries + 1):
        candidate = start + fraction * step
        gain, kl = judge(candidate)
        # a number that is not finite fails both
        if gain > 0.0 and kl <= max_kl:
            return LineSearch(candidate, fraction, gain, kl, tried)
        fraction *= factor
    return LineSearch(start, 0.0, 0.0, 0.0, num_tries)
