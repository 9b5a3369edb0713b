"""Rewards, values and endings of a rollout in, advantages and value targets out; torch alone.

Dimension key: T steps, N envs. `terminated` and `truncated` say how step t ended; `next_values` are
the values of the observations the steps truly ended in, before any reset. Truncation and the end of
the rollout bootstrap from them; only termination forfeits the future.
"""

import math
from typing import NamedTuple

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


def total_return(
    rewards: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    begins: Bool[Tensor, "N"],
    gamma: float,
) -> tuple[Float[Tensor, "T N"], Bool[Tensor, "T N"]]:
    """Returns the discounted return of each row's whole episode, and which rows have one.

    The first of the choices of Phi_t in Schulman et al. 2016, arXiv 1506.02438, section 2: the
    reward-to-go of the episode's first step, the same for all its rows. Only an episode that begins
    and ends within the rollout has one; the rows of others hold 0 and count for nothing. One that
    was truncated has ended, and its return takes in the value of where it was cut.

    Args:
        rewards: Rewards as the agent is to see them (scaled if they are).
        next_values: V(s'_t) of the true successor; its value where terminated does not matter.
        terminated: Steps that ended an episode by the environment's rules.
        truncated: Steps that were cut off by a limit.
        begins: Environments whose row 0 is the first step of an episode.
        gamma: Discount, 0 to 1.
    """
    num_steps = len(rewards)
    done = terminated | truncated
    is_first = torch.cat([begins[None], done[:-1]])
    steps = torch.arange(num_steps, device=rewards.device)[:, None]
    # the last first step so far, and -1 where the episode began before the rollout
    first = torch.where(is_first, steps, -1).cummax(0).values
    ends = done.flip(0).cummax(0).values.flip(0)
    is_complete = (first >= 0) & ends
    returns = reward_to_go(rewards, next_values, terminated, truncated, gamma)
    whole = returns.gather(0, first.clamp(min=0))
    return torch.where(is_complete, whole, 0.0), is_complete


def retrace(
    rewards: Float[Tensor, "T N"],
    action_values: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    ratio: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    gamma: float,
) -> Float[Tensor, "T N"]:
    """Returns Retrace targets of Q(s_t, a_t) from steps of another policy.

    Q^ret_t = r_t + gamma V(s'_t) + gamma min(1, rho_{t+1}) (Q^ret_{t+1} - Q(s_{t+1}, a_{t+1})),
    where the last term is left out at the end of the episode or rollout, and V where the episode
    terminated. Munos et al. 2016, arXiv 1606.02647; Wang et al. 2016, arXiv 1611.01224, eq. 5.

    Args:
        rewards: Rewards as the agent is to see them.
        action_values: Q(s_t, a_t) of the actions that were taken.
        next_values: V(s'_t) = sum_a pi(a|s'_t) Q(s'_t, a) of the true successor.
        ratio: rho_t = pi(a_t|s_t) / mu(a_t|s_t), mu the policy that acted.
        terminated: Steps that ended an episode by the environment's rules.
        truncated: Steps that were cut off by a limit.
        gamma: Discount, 0 to 1.
    """
    errors = td_errors(rewards, action_values, next_values, terminated, gamma)
    # the last row's decay reaches nothing
    following = torch.cat([ratio[1:], ratio[-1:]])
    decay = gamma * following.clamp(max=1.0).masked_fill(terminated | truncated, 0.0)
    return action_values + discounted_suffix_sum(errors, decay)


class Estimates(NamedTuple):
    """What an estimator makes of a rollout.

    Attributes:
        advantages: A_t, what the objective weighs actions by (Phi_t), [T, N].
        value_targets: What V(s_t) is fitted to, [T, N].
        counted: Rows that the policy may learn from, [T, N]; None for all. The others have A_t = 0.
    """

    advantages: Tensor
    value_targets: Tensor
    counted: Tensor | None


def estimate(
    estimator: str,
    rewards: Float[Tensor, "T N"],
    values: Float[Tensor, "T N"],
    next_values: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    truncated: Bool[Tensor, "T N"],
    begins: Bool[Tensor, "N"],
    *,
    gamma: float,
    gae_lambda: float,
    num_steps: int,
) -> Estimates:
    """Returns the advantages and value targets of one of the estimators, by name.

    The value targets are A_t + V(s_t) of `gae`, `td` and `n_step`, and the reward-to-go otherwise.

    Args:
        estimator: `gae`, `n_step`, `td`, `reward_to_go`, `reward_to_go_baseline` (minus V(s_t)) or
            `total_return`.
        rewards: Rewards as the agent is to see them (scaled if they are).
        values: V(s_t).
        next_values: V(s'_t) of the true successor; its value where terminated does not matter.
        terminated: Steps that ended an episode by the environment's rules.
        truncated: Steps that were cut off by a limit.
        begins: Environments whose row 0 is the first step of an episode; `total_return` alone asks.
        gamma: Discount, 0 to 1.
        gae_lambda: lambda of `gae`.
        num_steps: k of `n_step`, from 1.
    """
    ends = terminated, truncated
    if estimator in ("gae", "td", "n_step"):
        if estimator == "gae":
            advantages = gae(rewards, values, next_values, *ends, gamma, gae_lambda)
        elif estimator == "td":
            advantages = td_errors(rewards, values, next_values, terminated, gamma)
        else:
            advantages = n_step_returns(rewards, next_values, *ends, gamma, num_steps) - values
        return Estimates(advantages, advantages + values, None)
    returns = reward_to_go(rewards, next_values, *ends, gamma)
    if estimator == "reward_to_go":
        return Estimates(returns, returns, None)
    if estimator == "reward_to_go_baseline":
        return Estimates(returns - values, returns, None)
    assert estimator == "total_return", estimator
    whole, is_complete = total_return(rewards, next_values, *ends, begins, gamma)
    return Estimates(whole, returns, is_complete)


def normalize_advantages(
    advantages: Float[Tensor, "M"], counted: Bool[Tensor, "M"] | None = None
) -> Float[Tensor, "M"]:
    """Returns (A - mean) / (std + 1e-8) with the sample standard deviation; one row unchanged.

    Both are taken in float64: equal advantages give 0 and not the noise of their rounded mean.

    Args:
        advantages: A of a minibatch.
        counted: Rows that have one, of which mean and deviation are taken; the others get 0.
    """
    own = advantages if counted is None else advantages[counted]
    if own.numel() >= 2:
        std, mean = torch.std_mean(own.double())
        advantages = (advantages - mean) / (std + 1e-8)
    return advantages if counted is None else torch.where(counted, advantages, 0.0)


class ValueFit(NamedTuple):
    """How well the values that acted fit what they are now fitted to.

    Attributes:
        target_mean: Mean of the value targets.
        target_std: Their population standard deviation.
        explained_variance: See the function of this name.
    """

    target_mean: float
    target_std: float
    explained_variance: float


def value_fit(values: Tensor, targets: Tensor) -> ValueFit:
    """Returns the numbers that tell how well values fit their targets, both of any one shape."""
    # in one pass each: it is a part of every iteration
    variance, mean = torch.var_mean(targets.double(), correction=0)
    return ValueFit(
        float(mean), math.sqrt(float(variance)), _explained(values, targets, float(variance))
    )


def explained_variance(values: Tensor, targets: Tensor) -> float:
    """Returns 1 - Var[target - V] / Var[target]: 1 is perfect, 0 no better than a constant.

    NaN if the targets do not vary.
    """
    return _explained(values, targets, float(targets.double().var(correction=0)))


def _explained(values: Tensor, targets: Tensor, variance: float) -> float:
    if variance == 0:
        return math.nan
    return 1.0 - float((targets - values).double().var(correction=0)) / variance
