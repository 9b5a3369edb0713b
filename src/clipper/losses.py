"""Ratios, advantages and values of a minibatch in, objectives and losses out; torch alone.

Dimension key: M rows of the minibatch. Objectives are to be maximised; each is a mean over rows and
differentiable.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pg_objective(
    log_probs: Float[Tensor, "M"], advantages: Float[Tensor, "M"]
) -> Float[Tensor, ""]:
    """Returns E[log pi(a|s) A], whose gradient is the policy gradient (arXiv 1707.06347, eq. 2).

    Args:
        log_probs: log pi(a|s) under the policy as it is now.
        advantages: A, normalised or not.
    """
    return (log_probs * advantages).mean()


def cpi_objective(ratio: Float[Tensor, "M"], advantages: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Returns the surrogate E[rho A] without clipping or penalty (arXiv 1707.06347, eq. 6).

    Args:
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
    """
    return (ratio * advantages).mean()


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
    return _clipped(ratio, advantages, clip_range).mean()


def _clipped(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    clipped = torch.clamp(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return torch.minimum(ratio * advantages, clipped * advantages)


def dual_clip_objective(
    ratio: Float[Tensor, "M"], advantages: Float[Tensor, "M"], clip_range: float, dual_clip: float
) -> Float[Tensor, ""]:
    """Returns the clipped surrogate that for A < 0 is not below c A, however large the ratio.

    Ye et al. 2020, arXiv 1912.09729. Where A < 0 and rho > c the gradient is zero too.

    Args:
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
        clip_range: eps of the clipped surrogate.
        dual_clip: c > 1.
    """
    clipped = _clipped(ratio, advantages, clip_range)
    floored = torch.maximum(clipped, dual_clip * advantages)
    return torch.where(advantages < 0, floored, clipped).mean()


def kl_objective(
    ratio: Float[Tensor, "M"],
    advantages: Float[Tensor, "M"],
    kl: Float[Tensor, "M"],
    kl_coef: float,
) -> Float[Tensor, ""]:
    """Returns the penalised surrogate E[rho A - beta KL(old || new)] (arXiv 1707.06347, eq. 8).

    Args:
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
        kl: The exact KL(pi_old(.|s) || pi(.|s)) of each row, `Distribution.kl`.
        kl_coef: beta; larger holds the policy nearer to the old one.
    """
    return (ratio * advantages - kl_coef * kl).mean()


def spo_objective(
    ratio: Float[Tensor, "M"], advantages: Float[Tensor, "M"], clip_range: float
) -> Float[Tensor, ""]:
    """Returns E[rho A - |A| (rho - 1)^2 / (2 eps)], Simple Policy Optimization (arXiv 2401.16025).

    Of each row the maximum lies at rho = 1 + eps for A > 0 and at 1 - eps for A < 0, and the
    gradient leads back from beyond.

    Args:
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
        clip_range: eps; larger allows larger moves of the policy.
    """
    pull = advantages.abs() * (ratio - 1.0).square() / (2.0 * clip_range)
    return (ratio * advantages - pull).mean()


def policy_objective(
    name: str,
    log_probs: Float[Tensor, "M"],
    ratio: Float[Tensor, "M"],
    advantages: Float[Tensor, "M"],
    *,
    clip_range: float,
    dual_clip: float,
    kl: Float[Tensor, "M"] | None,
    kl_coef: float,
) -> Float[Tensor, ""]:
    """Returns one of the objectives by its name: every row of the paper's table 1, and others.

    Args:
        name: `clip`, `cpi`, `pg`, `kl_fixed`, `kl_adaptive`, `dual_clip` or `spo`.
        log_probs: log pi(a|s) under the policy as it is now.
        ratio: rho = pi(a|s) / pi_old(a|s).
        advantages: A, normalised or not.
        clip_range: eps of `clip`, `dual_clip` and `spo`.
        dual_clip: c of `dual_clip`.
        kl: The exact KL(old || new) of each row, which `kl_fixed` and `kl_adaptive` ask for.
        kl_coef: Their beta.
    """
    if name == "clip":
        return clip_objective(ratio, advantages, clip_range)
    if name == "cpi":
        return cpi_objective(ratio, advantages)
    if name == "pg":
        return pg_objective(log_probs, advantages)
    if name == "dual_clip":
        return dual_clip_objective(ratio, advantages, clip_range, dual_clip)
    if name == "spo":
        return spo_objective(ratio, advantages, clip_range)
    assert name in ("kl_fixed", "kl_adaptive"), name
    assert kl is not None
    return kl_objective(ratio, advantages, kl, kl_coef)


def adapted_kl_coef(kl_coef: float, kl: float, target: float) -> float:
    """Returns beta for the next iteration: halved if d < d_targ / 1.5, doubled if d > 1.5 d_targ.

    Schulman et al. 2017, arXiv 1707.06347, section 4. Held within 2^-100 and 2^100, whose float32
    is neither 0, which no doubling would lift, nor infinite.

    Args:
        kl_coef: beta of this iteration.
        kl: d, the mean exact KL(old || new) over the whole batch after it.
        target: d_targ.
    """
    if kl < target / 1.5:
        return max(kl_coef / 2.0, 2.0**-100)
    if kl > 1.5 * target:
        return min(kl_coef * 2.0, 2.0**100)
    return kl_coef


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


def acer_objective(
    log_probs: Float[Tensor, "M P"],
    actions: Int[Tensor, "M"],
    ratio: Float[Tensor, "M P"],
    action_values: Float[Tensor, "M P"],
    values: Float[Tensor, "M"],
    targets: Float[Tensor, "M"],
    importance_clip: float,
) -> Float[Tensor, ""]:
    """Returns what has ACER's policy gradient: truncated importance weights and their correction.

    Of each row min(c, rho(a)) (Q^ret - V) log pi(a) + sum_a' pi(a') [1 - c / rho(a')]_+
    (Q(a') - V) log pi(a'), in which log pi alone is differentiated; the sum makes up for what the
    truncation of a weight cuts off. Wang et al. 2016, arXiv 1611.01224, eq. 9.

    Args:
        log_probs: log pi(a|s) of every action.
        actions: Indices of the actions that were taken.
        ratio: rho(a) = pi(a|s) / mu(a|s) of every action, mu the policy that acted.
        action_values: Q(s, a) of every action.
        values: V(s) = sum_a pi(a|s) Q(s, a).
        targets: Q^ret of the actions that were taken.
        importance_clip: c; infinity corrects nothing.
    """
    ratio, action_values, probs = ratio.detach(), action_values.detach(), log_probs.detach().exp()
    at = actions[:, None]
    weight = ratio.gather(-1, at).squeeze(-1).clamp(max=importance_clip)
    truncated = weight * (targets - values) * log_probs.gather(-1, at).squeeze(-1)
    excess = (1.0 - importance_clip / ratio).clamp(min=0.0)
    correction = probs * excess * (action_values - values[:, None]) * log_probs
    return (truncated + correction.sum(-1)).mean()


def trust_region_correction(
    gradient: Float[Tensor, "M P"], kl_gradient: Float[Tensor, "M P"], delta: float
) -> Float[Tensor, "M P"]:
    """Returns z nearest to g with k . z <= delta, row by row: z = g - max(0, (k.g - delta)/|k|^2) k.

    Wang et al. 2016, arXiv 1611.01224, section 3.3: the quadratic programme min |g - z|^2 / 2 with
    that one linear constraint, solved.

    Args:
        gradient: g, of the objective with respect to the distribution's parameters.
        kl_gradient: k, of KL(average || policy) with respect to the same.
        delta: How much the divergence may rise along z, to first order.
    """
    excess = (kl_gradient * gradient).sum(-1, keepdim=True) - delta
    # k is not 0 where there is an excess; elsewhere the quotient is not used
    scale = torch.where(excess > 0.0, excess / kl_gradient.square().sum(-1, keepdim=True), 0.0)
    return gradient - scale * kl_gradient
