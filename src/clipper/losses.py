"""Ratios, advantages and values of a minibatch in, objectives and losses out; torch alone.

Dimension key: M rows of the minibatch. Every function is a mean over rows and differentiable.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def clip_objective(
    ratio: Float[Tensor, "M"], advantages: Float[Tensor, "M"], clip_range: float
) -> Float[Tensor, ""]:
    """Returns the clipped surrogate E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)], to be maximised.

    Schulman et al. 2017, arXiv 1707.06347, eq. 7. Its gradient is zero exactly where A > 0 and
    rho > 1 + eps, or A < 0 and rho < 1 - eps.

    Args:
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
        clip_range: eps; larger allows larger moves of the policy.
    """
    clipped = torch.clamp(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return torch.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(values: Float[Tensor, "M"], targets: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Returns mean[0.5 (V - target)^2]; the half is the reason vf_coef is twice Stable-Baselines3's."""
    return 0.5 * (values - targets).square().mean()


def clipped_value_loss(
    values: Float[Tensor, "M"],
    old_values: Float[Tensor, "M"],
    targets: Float[Tensor, "M"],
    clip_value: float,
) -> Float[Tensor, ""]:
    """Returns mean[0.5 max((V - target)^2, (V_old + clip(V - V_old, -c, c) - target)^2)].

    The option of the paper's reference code; it is not in the paper.
    """
    near = old_values + torch.clamp(values - old_values, -clip_value, clip_value)
    return 0.5 * torch.maximum((values - targets).square(), (near - targets).square()).mean()


def kl_k1(log_ratio: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Returns the estimate mean[-log rho] of KL(old || new): unbiased, may be negative."""
    return (-log_ratio).mean()


def kl_k2(log_ratio: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Returns the estimate mean[(log rho)^2 / 2] of KL(old || new): biased, low variance."""
    return 0.5 * log_ratio.square().mean()


def kl_k3(log_ratio: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Returns the estimate mean[(rho - 1) - log rho] of KL(old || new): unbiased, never negative."""
    return (torch.expm1(log_ratio) - log_ratio).mean()


def clip_fraction(ratio: Float[Tensor, "M"], clip_range: float) -> Float[Tensor, ""]:
    """Returns the share of rows whose ratio lies outside 1 +- clip_range."""
    return ((ratio - 1.0).abs() > clip_range).to(ratio.dtype).mean()
