"""Rewards, values and endings of a rollout in, advantages and value targets out; torch alone.

Dimension key: T steps, N envs. `terminated` and `truncated` say how step t ended; `next_values` are
the values of the observations the steps truly ended in, before any reset. Truncation and the end of
the rollout bootstrap from them; only termination forfeits the future.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def discounted_suffix_sum(
    x: Float[Tensor, "T N"], decay: Float[Tensor, "T N"]
) -> Float[Tensor, "T N"]:
    """Returns y with y_t = x_t + decay_t y_{t+1} and y_T = 0, in log2(T) passes.

    After pass k, y_t sums the first 2^k terms and decay_t is the product of 2^k decays. Where a
    decay is 0 what follows is left out, whatever it holds (0 x NaN would be NaN).
    """
    num_steps = x.shape[0]
    reach = 1
    while reach < num_steps:
        carried = torch.where(decay[:-reach] != 0, decay[:-reach] * x[reach:], 0.0)
        x = torch.cat([x[:-reach] + carried, x[-reach:]])
        decay = torch.cat([decay[:-reach] * decay[reach:], torch.zeros_like(decay[-reach:])])
        reach *= 2
    return x


def td_errors(
    rewards: Float[Tensor, "T N"],
    values: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    gamma: float,
) -> Float[Tensor, "T N"]:
    """Returns delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)."""
    return rewards + torch.where(terminated, 0.0, gamma * next_values) - values


def gae(
    rewards: Float[Tensor, "T N"],
    values: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "T N"]:
    """Returns generalized advantage estimates, A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}.

    Schulman et al. 2016, arXiv 1506.02438, eq. 16. The value targets are A_t + V(s_t).

    Args:
        rewards: Rewards as the agent is to see them (scaled if they are).
        values: V(s_t).
        next_values: V(s'_t) of the true successor; its value where terminated does not matter.
        terminated: Steps that ended an episode by the environment's rules.
        truncated: Steps that were cut off by a limit.
        gamma: Discount, 0 to 1.
        gae_lambda: 0 (TD error) to 1 (Monte Carlo).

    Returns:
        Advantages, in the units of the rewards.
    """
    deltas = td_errors(rewards, values, next_values, terminated, gamma)
    decay = torch.full_like(deltas, gamma * gae_lambda).masked_fill_(terminated | truncated, 0.0)
    return discounted_suffix_sum(deltas, decay)


def reward_to_go(
    rewards: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    gamma: float,
) -> Float[Tensor, "T N"]:
    """Returns discounted sums of rewards to the end of the episode or rollout, bootstrapped there.

    R_t = sum_{i<n} gamma^i r_{t+i} + gamma^n (1 - terminated) V(s'), n the steps to that end.
    """
    done = terminated | truncated
    is_last = done.clone()
    is_last[-1] = True
    ends_open = is_last & ~terminated
    own = rewards + torch.where(ends_open, gamma * next_values, 0.0)
    decay = torch.full_like(rewards, gamma).masked_fill_(done, 0.0)
    return discounted_suffix_sum(own, decay)


def n_step_returns(
    rewards: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    gamma: float,
    num_steps: int,
) -> Float[Tensor, "T N"]:
    """Returns sums of k rewards and the value after them, fewer where the episode ends sooner.

    With k = `num_steps`: sum_{i<k} gamma^i r_{t+i} + gamma^k (1 - terminated_{t+k-1})
    V(s'_{t+k-1}), k cut at the end of the episode or rollout. Minus V(s_t) it is the k-step
    advantage.
    """
    stops = terminated | truncated
    stops = torch.cat([stops[:-1], torch.ones_like(stops[-1:])])
    bootstrap = torch.where(terminated, 0.0, next_values)
    returns = rewards + gamma * bootstrap
    for _ in range(1, num_steps):
        later = torch.cat([returns[1:], bootstrap[-1:]])
        returns = rewards + gamma * torch.where(stops, bootstrap, later)
    return returns


def normalize_advantages(advantages: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Returns (A - mean) / (std + 1e-8) with the sample standard deviation; one row unchanged."""
    if advantages.numel() < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def explained_variance(values: Tensor, targets: Tensor) -> float:
    """Returns 1 - Var[target - V] / Var[target]: 1 is perfect, 0 no better than a constant.

    NaN if the targets do not vary.
    """
    variance = float(targets.double().var(correction=0))
    if variance == 0:
        return float("nan")
    return 1.0 - float((targets - values).double().var(correction=0)) / variance
