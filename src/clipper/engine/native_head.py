"""What a network put out in, PPO's loss and its gradient out, in C++; for networks that torch computes.

Dimension key: M rows of a minibatch, P distribution parameters, A action size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.config_ppo import PPOConfig
from clipper.engine import kernels
from clipper.engine.kernels import (
    REPORT_SIZE,
    as_array,
    as_settings,
    choose_variant,
    head_kind,
)
from clipper.policies.actor_critic import ActorCritic
from clipper.rollout import Batch


class LossHead:
    """PPO's loss and its gradient by the outputs of a network that torch computes.

    Args:
        policy: One that `engine.mixed.covers` has no objection to, its parameters in place.
    """

    def __init__(self, policy: ActorCritic) -> None:
        self.variant = choose_variant()
        outputs = policy.distribution.num_outputs
        self._size = outputs
        self._action_type = policy.action_layout.dtype
        log_std = policy.log_std
        self._log_std = log_std if log_std is not None and log_std.requires_grad else None
        # the kernels know heads as those of networks: this one has a layer that nobody asks
        place = 2 * outputs + 2
        count = policy.action_layout.size if self._log_std is not None else 0
        self._head = kernels.compiled.Policy(
            self.variant,
            np.zeros(place + count, dtype=np.float32),
            1,
            0,
            ([], [(1, outputs, 0, outputs, 0)], [(1, 1, 2 * outputs, 2 * outputs + 1, 0)]),
            head_kind(policy),
            list(policy.action_layout.num_categories or (policy.action_layout.size,)),
            None if log_std is None else log_std.detach().numpy(),
            place if count else -1,
            None,
        )
        self._grad_log_std = np.zeros(count, dtype=np.float32)

    def begin(
        self, batch: Batch, config: PPOConfig, learning_rate: float, clip_range: float
    ) -> None:
        """Takes over the columns of a batch, and the settings of now.

        Args:
            batch: All rows; its observations are not looked at.
            config: The settings.
            learning_rate: Step size.
            clip_range: epsilon.
        """
        self._settings = as_settings(config, learning_rate, clip_range, 0.0, 0, 0)
        counted = batch.counted
        self._columns = kernels.compiled.Columns(
            as_array(batch.actions, self._action_type),
            as_array(batch.log_probs),
            as_array(batch.values),
            as_array(batch.advantages),
            as_array(batch.value_targets),
            None if counted is None else as_array(counted, np.bool_),
        )

    def __call__(
        self, params: Tensor, values: Tensor, order: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Returns the loss of a minibatch, a scalar with its gradient, and what `PPO.loss` reports.

        Args:
            params: What the network put out for its rows, [M, P].
            values: V of them, [M].
            order: Which rows of the batch they are, [M].
        """
        by_params = np.empty((len(order), self._size), dtype=np.float32)
        by_values = np.empty(len(order), dtype=np.float32)
        report = np.empty(REPORT_SIZE, dtype=np.float64)
        kernels.compiled.loss_head(
            self._head,
            self._columns,
            self._settings,
            order,
            as_array(params),
            as_array(values),
            by_params,
            by_values,
            self._grad_log_std,
            report,
        )
        slopes = [torch.from_numpy(by_params), torch.from_numpy(by_values)]
        learned = [params, values]
        if self._log_std is not None:
            slopes.append(torch.from_numpy(self._grad_log_std))
            learned.append(self._log_std)
        loss: Tensor = _Loss.apply(torch.tensor(report[0], dtype=torch.float32), *slopes, *learned)  # type: ignore[no-untyped-call]
        return loss, report

    def descend(
        self, vectors: tuple[NDArray[np.float32], ...], num_updates: int, loss: float
    ) -> float:
        """Clips a gradient and takes a step of Adam, unless something is not finite.

        Args:
            vectors: Parameters, gradient and Adam's two moments; all but the gradient are moved.
            num_updates: Steps that were taken before.
            loss: What the gradient is of.

        Returns:
            The norm of the gradient before clipping.
        """
        params, grad, m, v = vectors
        return kernels.compiled.descend(
            self._head, self._settings, params, grad, m, v, num_updates, loss
        )


class _Loss(torch.autograd.Function):
    """A scalar and its gradients in; the scalar out, as a function of what they are gradients by."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *slopes_and_learned: Tensor) -> Tensor:
        ctx.slopes = slopes_and_learned[: len(slopes_and_learned) // 2]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # autograd starts with a gradient of 1; as arguments of its own torch looks at them with sympy,
        # whose import takes a third of a second
        nothing = (None,) * (1 + len(ctx.slopes))
        return *nothing, *ctx.slopes
