"""A rollout with value targets in, a value function that was fitted to them out; the policy stays."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipper.config_relatives import SeparateValueConfig
from clipper.engine.adam import BETAS, EPS, GroupAdam
from clipper.engine.choice import describe_engine
from clipper.engine.group import ParameterGroup
from clipper.engine.native import NativeEngine
from clipper.losses import value_loss
from clipper.policies.actor_critic import ActorCritic
from clipper.rollout import Batch, Rollout, epoch_order


class ValueRegression:
    """Epochs of minibatches of Adam on V's own parameters: in C++ where it can be, else in torch.

    Args:
        policy: Whose V.
        group: V's own parameters.
        native: What acts for the policy, or None if torch does.
    """

    def __init__(
        self, policy: ActorCritic, group: ParameterGroup, native: NativeEngine | None
    ) -> None:
        self._policy = policy
        self._optimizer = GroupAdam(group)
        self._acts = native
        # what policy and V share stays as it is, and the kernels know no torso that stays
        self._fits = native if native is not None and native.has_own_values else None

    def fit(
        self,
        rollout: Rollout,
        batch: Batch,
        config: SeparateValueConfig,
        *,
        learning_rate: float,
        seed: int,
        iteration: int,
    ) -> float:
        """Fits V to its targets and returns the mean of 0.5 (V - target)^2 over the minibatches.

        Args:
            rollout: What was collected.
            batch: Its rows, with their targets.
            config: Epochs and minibatch.
            learning_rate: Step size of this iteration.
            seed: The run's seed.
            iteration: Index of the iteration; with the seed it gives the order of the rows.

        Raises:
            NumericsError: The loss or its gradient is not finite.
        """
        optimizer = self._optimizer
        if self._fits is not None:
            count, loss = self._fits.fit_values(
                rollout.obs.flatten(0, 1),  # [T, N, D] -> [B, D]
                rollout.actions.flatten(0, 1),  # [T, N, A] -> [B, A]
                batch.value_targets,
                optimizer.m,
                optimizer.v,
                optimizer.num_updates,
                num_epochs=config.num_value_epochs,
                minibatch_size=config.minibatch_size,
                learning_rate=learning_rate,
                betas=BETAS,
                eps=EPS,
                seed=seed,
                iteration=iteration,
            )
            optimizer.num_updates += count
            return loss
        losses: list[Tensor] = []
        for epoch in range(config.num_value_epochs):
            order = epoch_order(seed, iteration, epoch, len(batch.obs))
            for minibatch in batch.shuffled(config.minibatch_size, order):
                values = self._policy.normalized_values(minibatch.obs)
                loss_now = value_loss(values, minibatch.value_targets)
                optimizer.minimise(loss_now, learning_rate)
                losses.append(loss_now.detach())
        return float(torch.stack(losses).mean())

    def describe(self, config: SeparateValueConfig, reason: str) -> str:
        """Returns the line that a run begins with: which engine does what.

        Args:
            config: The settings.
            reason: Why the policy's step is not taken by the native engine.
        """
        if self._fits is None:
            return describe_engine(self._policy, config, self._acts, learns_in_torch=reason)
        name = self._fits.describe()
        return f"engine: {name} acts and fits V, torch takes the policy's step ({reason})"

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of Adam's moments and the number of updates."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._optimizer.load_state_dict(state)
