"""What a rollout holds, its rows as a batch, and the order in which epochs visit them.

Dimension key: T steps, N envs, B = T * N rows, M rows of a minibatch, D observation size, A action
size, F episodes that ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.advantages import Estimates
from clipper.metrics import Episode
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, permutation


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What a policy did in N environments for T steps; raw observations, actions and rewards.

    Observations are rows of an `ObservationLayout`: float32, or bytes where there are images.

    Attributes:
        obs: Observations acted on, [T, N, D].
        actions: Sampled actions before scaling and clipping, float32 or int64 [T, N, A].
        log_probs: Log-probability of each under the policy that acted, [T, N].
        rewards: Raw rewards, float32 [T, N].
        terminated: Steps that ended an episode by the environment's rules, or cost a life that counts
            as one (`terminal_on_life_loss`), bool [T, N].
        truncated: Steps that a limit cut off, bool [T, N].
        values: V(s_t) of the policy that acted, [T, N].
        next_values: V of the observation each step truly ended in, [T, N].
        final_obs: Last observations of the episodes that ended, [F, D].
        final_at: Their step and env, int64 [F, 2].
        last_obs: Observations after the last step, [N, D].
        episodes: Records of the episodes that ended, in order.
    """

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    values: Tensor
    next_values: Tensor
    final_obs: Tensor
    final_at: Tensor
    last_obs: Tensor
    episodes: tuple[Episode, ...]

    @property
    def num_rows(self) -> int:
        """B = T * N."""
        return self.rewards.numel()

    @property
    def begins(self) -> Tensor:
        """Environments whose row 0 is the first step of an episode that ended here, bool [N]."""
        begins = torch.zeros(self.rewards.shape[1], dtype=torch.bool)
        seen: set[int] = set()
        for (step, env), episode in zip(self.final_at.tolist(), self.episodes, strict=True):
            if env not in seen:
                begins[env] = episode.episode_length <= step + 1
                seen.add(env)
        return begins

    def revalued(self, policy: ActorCritic) -> Rollout:
        """Returns the rollout with `values` and `next_values` of the policy as it is now."""
        values = policy.values(self.obs)
        next_values = policy.next_values(values, self.final_obs, self.final_at, self.last_obs)
        return replace(self, values=values, next_values=next_values)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows to learn from; the same columns for a whole rollout [B, ...] and a minibatch [M, ...].

    Attributes:
        obs: Observations as the network sees them, [B, D].
        actions: Sampled actions, [B, A].
        log_probs: Log-probabilities under the policy that acted, [B].
        values: V(s_t) the advantages were computed with, [B].
        advantages: A_t, [B].
        value_targets: What V(s_t) is fitted to, [B].
        counted: Rows that the policy may learn from, bool [B], or None for all.
        old_params: Parameters of the distributions that the actions were drawn from, [B, P]; None
            where no objective asks for them.
    """

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    value_targets: Tensor
    counted: Tensor | None = None
    old_params: Tensor | None = None

    def shuffled(self, size: int, order: NDArray[np.int64]) -> Iterator[Batch]:
        """Yields minibatches of `size` rows in the given order of all rows."""
        indices = torch.from_numpy(order).to(self.obs.device)
        # whole rows at once: indexing would copy the bytes of an image one by one
        columns = {
            k: column.index_select(0, indices)
            for k, column in vars(self).items()
            if column is not None
        }
        for start in range(0, len(order), size):
            yield Batch(**{name: column[start : start + size] for name, column in columns.items()})


def flatten(
    rollout: Rollout,
    normalized_obs: Tensor,
    estimates: Estimates,
    old_params: Tensor | None = None,
) -> Batch:
    """Returns the rollout's rows with their judgement, [T, N, ...] -> [B, ...].

    Args:
        rollout: What was collected.
        normalized_obs: Its observations as the network sees them, [T, N, D].
        estimates: Advantages and value targets, [T, N] each.
        old_params: What `Batch.old_params` is to be, [B, P].
    """
    counted = estimates.counted
    return Batch(
        obs=normalized_obs.flatten(0, 1),  # [T, N, D] -> [B, D]
        actions=rollout.actions.flatten(0, 1).to(normalized_obs.device),  # [T, N, A] -> [B, A]
        log_probs=rollout.log_probs.flatten(),  # [T, N] -> [B]
        values=rollout.values.flatten(),  # [T, N] -> [B]
        advantages=estimates.advantages.flatten(),  # [T, N] -> [B]
        value_targets=estimates.value_targets.flatten(),  # [T, N] -> [B]
        counted=None if counted is None else counted.flatten(),  # [T, N] -> [B]
        old_params=old_params,
    )


def epoch_order(seed: int, iteration: int, epoch: int, num_rows: int) -> NDArray[np.int64]:
    """Returns the order in which an epoch visits the rows, a function of its arguments alone."""
    return permutation(seed, Purpose.SHUFFLE, epoch, iteration, num_rows)
