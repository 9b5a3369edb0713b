"""Rollouts of an iteration in, what every algorithm reports of them out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clipper.advantages import explained_variance
from clipper.metrics import Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.rollout import Rollout


def rollout_metrics(rollouts: Sequence[Rollout], policy: ActorCritic) -> Metrics:
    """Returns numbers of the rewards, endings and actions of an iteration."""
    rewards = torch.stack([rollout.rewards for rollout in rollouts])
    metrics = {"rollout/reward_mean": float(rewards.mean())}
    episodes = [episode for rollout in rollouts for episode in rollout.episodes]
    if episodes:
        cut = sum(episode.truncated for episode in episodes)
        metrics["rollout/truncated_fraction"] = cut / len(episodes)
    actions = torch.stack([rollout.actions for rollout in rollouts])
    saturation = policy.action_layout.saturation(actions.flatten(0, 1).numpy())
    if saturation is not None:
        metrics["policy/action_saturation"] = saturation
    if policy.log_std is not None:
        metrics["policy/action_std"] = float(policy.log_std.detach().exp().mean())
    return metrics


def complete_fraction(counted: torch.Tensor | None) -> Metrics:
    """Returns the share of rows that belong to whole episodes; nothing if all rows count.

    Args:
        counted: Rows that the policy could learn from, [B], or None for all.
    """
    return {} if counted is None else {"rollout/complete_fraction": float(counted.double().mean())}


def value_metrics(values: torch.Tensor, targets: torch.Tensor) -> Metrics:
    """Returns how well predictions explain their targets, and the scale of these; [B] each."""
    return {
        "value/explained_variance": explained_variance(values, targets),
        "value/target_mean": float(targets.mean()),
        "value/target_std": float(targets.std(correction=0)),
    }
