"""A network of any kind in, one Adam step on its parameters out: torch differentiates it, C++ the rest.

The network's forward pass and its backward pass are torch's. Between them the loss and its gradient by
the network's outputs are computed by the kernels that the native engine has for an MLP, and so are the
clipping and Adam: a hundred small operations of torch become two calls. Dimension key: B rows, M rows
of a minibatch, P distribution parameters, A action size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.advantages import Estimates
from clipper.config_ppo import PPOConfig
from clipper.engine import kernels
from clipper.engine.kernels import as_array
from clipper.engine.native_head import LossHead
from clipper.engine.quick_parts import QuickParts
from clipper.engine.reference import ReferenceEngine
from clipper.engine.state import AdamState, not_finite
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.distributions import Bernoulli, Categorical, DiagonalGaussian
from clipper.randomness import Purpose
from clipper.rollout import Batch, Rollout


def covers(policy: ActorCritic, config: PPOConfig) -> str | None:
    """Returns why the loss cannot be left to the kernels, in words, or None if it can."""
    if kernels.ABSENCE is not None:
        return kernels.ABSENCE
    if policy.device.type != "cpu":
        return f"the device is {policy.device}"
    if policy.dtype != torch.float32:
        return f"the parameters are {str(policy.dtype).removeprefix('torch.')}"
    if type(policy.distribution) not in (Categorical, Bernoulli, DiagonalGaussian):
        return f"the distribution is {type(policy.distribution).__name__}"
    if isinstance(policy.distribution, DiagonalGaussian) and policy.log_std is None:
        return "the standard deviations depend on the state"
    if config.has_kl_penalty:
        return f"the objective is {config.objective}"
    return None


class MixedEngine(ReferenceEngine):
    """Adam on the gradient of PPO's loss, which is computed in C++ but for the network itself.

    Args:
        policy: One that `covers` has no objection to; its parameters become views of one flat tensor.
        config: The settings.
        state: As of `ReferenceEngine`.
    """

    def __init__(
        self, policy: ActorCritic, config: PPOConfig, state: AdamState | None = None
    ) -> None:
        super().__init__(
            policy,
            betas=config.adam_betas,
            eps=config.adam_eps,
            max_grad_norm=config.max_grad_norm,
            state=state,
        )
        self._policy = policy
        self._config = config
        self._head = LossHead(policy)
        own = self._state
        self._quick_parts = QuickParts(policy.network, own.params, self._head.variant)
        policy.compute_within(self._quick_parts)
        self._vectors = tuple(x.numpy() for x in (own.params, self._grad, own.m, own.v))

    def describe(self) -> str:
        """Returns the engine's name and instruction set, as runs are marked with."""
        count = self._quick_parts.num_mlps
        parts = f" and {count} MLP{'s' if count > 1 else ''}" if count else ""
        return f"torch with the loss{parts} in {self._head.variant}"

    def epoch_order(
        self, seed: int, iteration: int, epoch: int, num_rows: int
    ) -> NDArray[np.int64]:
        """Returns what `rollout.epoch_order` does, to the bit."""
        order = np.empty(num_rows, dtype=np.int64)
        kernels.compiled.permutation(seed, Purpose.SHUFFLE, epoch, iteration, order)
        return order

    def estimate(self, rollout: Rollout, rewards: Tensor) -> Estimates:
        """Returns what `advantages.estimate` does, with the settings of now.

        Args:
            rollout: What was collected.
            rewards: Its rewards as the agent is to see them, [T, N].
        """
        config = self._config
        asks_begins = config.advantage == "total_return"
        begins = rollout.begins if asks_begins else torch.zeros(rewards.shape[1], dtype=torch.bool)
        advantages, targets = torch.empty_like(rewards), torch.empty_like(rewards)
        counted = torch.empty_like(rollout.terminated)
        kernels.compiled.estimate(
            kernels.ESTIMATORS.index(config.advantage),
            as_array(rewards),
            as_array(rollout.values),
            as_array(rollout.next_values),
            as_array(rollout.terminated, np.bool_),
            as_array(rollout.truncated, np.bool_),
            as_array(begins, np.bool_),
            config.gamma,
            config.gae_lambda,
            config.num_advantage_steps,
            advantages.numpy(),
            targets.numpy(),
            counted.numpy(),
        )
        return Estimates(advantages, targets, counted if asks_begins else None)

    def steps(
        self, batch: Batch, order: NDArray[np.int64], learning_rate: float, clip_range: float
    ) -> Iterator[tuple[Tensor, Callable[[], float]]]:
        """Yields for every minibatch of an epoch what `PPO.loss` reports, and what takes the step.

        Args:
            batch: All rows.
            order: In which they are visited.
            learning_rate: Step size.
            clip_range: epsilon.
        """
        config = self._config
        self._head.begin(batch, config, learning_rate, clip_range)
        indices = torch.from_numpy(order)
        for start in range(0, len(order), config.minibatch_size):
            rows = slice(start, start + config.minibatch_size)
            params, values = self._policy.outputs(batch.obs.index_select(0, indices[rows]))
            loss, report = self._head(params, values, order[rows])
            yield torch.from_numpy(report), partial(self._descend, loss, float(report[0]))

    def _descend(self, loss: Tensor, value: float) -> float:
        self._grad.zero_()
        with self._quick_parts:  # activation checkpointing runs the network a second time here
            loss.backward()
        with self._state.frozen_kept():
            norm = self._head.descend(self._vectors, self._state.num_updates, value)
        if not math.isfinite(norm) or not math.isfinite(value):
            raise not_finite(value, norm, self._state.num_updates + 1)
        self._state.num_updates += 1
        return norm
