"""Rollouts of an iteration in, what every algorithm reports of them out."""

from __future__ import annotations

import warnings
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


class WholeEpisodes:
    """Tells how much of a rollout `total_return` learns from, and warns once if that is nothing."""

    def __init__(self) -> None:
        self._has_warned = False

    def metrics(self, counted: torch.Tensor | None, num_steps: int) -> Metrics:
        """Returns the share of rows that belong to whole episodes; nothing if all rows count.

        Args:
            counted: Rows that the policy could learn from, [B], or None for all.
            num_steps: Of a rollout, for the warning.
        """
        if counted is None:
            return {}
        if not self._has_warned and not bool(counted.any()):
            self._has_warned = True
            warnings.warn(
                "advantage total_return learns from episodes that begin and end within a rollout, but "
                f"this one of {num_steps} steps holds none: raise num_steps.",
                stacklevel=2,
            )
        return {"rollout/complete_fraction": float(counted.double().mean())}


def value_metrics(values: torch.Tensor, targets: torch.Tensor) -> Metrics:
    """Returns how well predictions explain their targets, and the scale of these; [B] each."""
    return {
        "value/explained_variance": explained_variance(values, targets),
        "value/target_mean": float(targets.mean()),
        "value/target_std": float(targets.std(correction=0)),
    }
