"""A rollout in, a better policy out, in C++: the same numbers as the reference engine, sooner.

Dimension key: T steps, N envs, B = T * N rows, D observation size, A action size, P distribution
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.advantages import ValueFit
from clipper.config import LearnerConfig
from clipper.config_ppo import PPOConfig
from clipper.cores import num_cores
from clipper.engine import kernels
from clipper.engine.kernels import (
    REPORT_SIZE,
    as_array,
    as_rollout,
    as_settings,
)
from clipper.engine.native_policy import NativePolicy
from clipper.engine.state import AdamState, FlatParameters, Updates, not_finite
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose
from clipper.rollout import Rollout

# of the numbers of a report the first are losses and entropy
_NUM_LOSSES = 4
_NOT_FINITE = 2
# what one thread does alone after the second one came late too often: so many tasks that could be
# shared, about a second of them, but no more iterations than that
_ALONE_TASKS = 20_000
_MOST_ALONE = 50


def alone_for(num_minibatches: int) -> int:
    """Returns after how many iterations of so many minibatches a second thread is tried again.

    To try costs about the same however long an iteration is, so long ones wait for fewer of them.
    """
    # a gradient and a step of each
    return max(1, min(_MOST_ALONE, _ALONE_TASKS // (2 * num_minibatches)))


class NativeEngine(NativePolicy):
    """Acts, evaluates and improves an MLP policy in C++.

    Args:
        policy: A policy that `covers` has no objection to; its parameters become views of one flat
            tensor, and its `act`, `evaluate` and `values` come here.

    Attributes:
        num_threads: 1 or 2 threads for `improve`; the bits are the same. Where there is one core it
            is 1, and when the second thread finds its core taken by others, the first goes on alone for
            a while.
    """

    name = "native"

    def __init__(self, policy: ActorCritic) -> None:
        super().__init__(policy)
        self.num_threads = 1
        self._alone_for = 0
        self._cores = num_cores()

    def describe(self) -> str:
        """Returns the engine's name and instruction set, as runs are marked with."""
        return f"{self.name} {self.variant}"

    def improve(
        self,
        rollout: Rollout,
        rewards: Tensor,
        config: PPOConfig,
        *,
        learning_rate: float,
        clip_range: float,
        kl_coef: float,
        seed: int,
        iteration: int,
    ) -> Updates:
        """Runs K epochs of minibatch updates on a rollout: the loop of `PPO.improve`, in one call.

        The ratio of the very first minibatch is 1 exactly; if it is not, nothing is changed and the
        report says so.

        Args:
            rollout: What was collected with the parameters as they are now.
            rewards: Its rewards as the agent is to see them, [T, N].
            config: The settings.
            learning_rate: Step size of this iteration.
            clip_range: epsilon of this iteration.
            kl_coef: beta of this iteration.
            seed: The run's seed.
            iteration: Index of the iteration; with the seed it gives the order of the rows.

        Raises:
            NumericsError: The loss or its gradient is not finite.
        """
        state = self._state
        self._alone_for = max(0, self._alone_for - 1)
        threads = 1 if self._alone_for else min(self.num_threads, self._cores)
        settings = as_settings(
            config, learning_rate, clip_range, kl_coef, seed, iteration, num_threads=threads
        )
        count = config.num_epochs * (rollout.num_rows // config.minibatch_size)
        reports, norms = np.empty((count, REPORT_SIZE)), np.empty(count)
        judged, fit = np.empty((2, rollout.num_rows), dtype=np.float32), np.empty(3)
        counted = np.empty(rollout.num_rows, dtype=np.bool_)
        num_reports, num_updates, epochs, failure, was_shared, seconds, kl = (
            kernels.compiled.improve(
                self._policy,
                as_rollout(rollout, rewards, self._action_type, config),
                settings,
                state.m.numpy(),
                state.v.numpy(),
                state.num_updates,
                reports,
                norms,
                judged[0],
                judged[1],
                counted,
                fit,
            )
        )
        state.num_updates += num_updates
        if threads > 1 and not was_shared:
            self._alone_for = alone_for(count)
        if failure == _NOT_FINITE:
            raise not_finite(
                float(reports[num_reports - 1, 0]), float(norms[num_updates]), state.num_updates + 1
            )
        return Updates(
            reports=reports[:num_reports],
            grad_norms=norms[:num_updates].tolist(),
            epochs=epochs,
            fit=ValueFit(*fit.tolist()),
            counted=torch.from_numpy(counted) if config.advantage == "total_return" else None,
            kl=kl if config.has_kl_penalty else None,
            estimate_seconds=seconds,
        )

    def fit_values(
        self,
        obs: Tensor,
        actions: Tensor,
        targets: Tensor,
        m: Tensor,
        v: Tensor,
        num_updates: int,
        *,
        num_epochs: int,
        minibatch_size: int,
        learning_rate: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
        iteration: int,
    ) -> tuple[int, float]:
        """Fits V to targets by Adam on its own parameters: `engine.value_regression`, in one call.

        Args:
            obs: Raw observations, [B, D].
            actions: What was done at them, [B, A]; only its type is looked at.
            targets: What V is fitted to, [B].
            m: Adam's first moments of V's parameters, in their order; moved in place.
            v: The second ones.
            num_updates: Steps they have seen.
            num_epochs: Passes over the rows.
            minibatch_size: Rows of a step; the last of an epoch may have fewer.
            learning_rate: Step size.
            betas: Decay rates of the moments.
            eps: Added to Adam's denominator.
            seed: The run's seed.
            iteration: Index of the iteration; with the seed it gives the order of the rows.

        Returns:
            Steps that were taken, and the mean of 0.5 (V - target)^2 before each.

        Raises:
            NumericsError: The loss or its gradient is not finite.
        """
        count, mean_loss, is_finite, loss, norm = kernels.compiled.fit_values(
            self._policy,
            as_array(obs),
            as_array(actions, self._action_type),
            as_array(targets),
            m.numpy(),
            v.numpy(),
            num_updates,
            num_epochs=num_epochs,
            minibatch_size=minibatch_size,
            learning_rate=learning_rate,
            betas=betas,
            eps=eps,
            seed=seed,
            purpose=Purpose.SHUFFLE,
            iteration=iteration,
        )
        if not is_finite:
            raise not_finite(loss, norm, num_updates + count + 1)
        return count, mean_loss

    def gradient(
        self,
        rollout: Rollout,
        rewards: Tensor,
        config: PPOConfig,
        clip_range: float,
        kl_coef: float,
        order: NDArray[np.int64],
        old_params: Tensor | None = None,
        old_log_std: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the gradient of one minibatch, in the parameters' order, and its report.

        Args:
            rollout: What was collected.
            rewards: Its rewards as the agent is to see them, [T, N].
            config: The settings.
            clip_range: epsilon.
            kl_coef: beta.
            order: The rows.
            old_params: For the KL penalty, what the head of another policy put out (log-probabilities
                of categorical heads), [B, P]; the policy itself without it.
            old_log_std: Its log standard deviations, [A].
        """
        report, grad = (
            torch.empty(REPORT_SIZE, dtype=torch.float64),
            torch.empty_like(self._state.params),
        )
        kernels.compiled.gradient(
            self._policy,
            as_rollout(rollout, rewards, self._action_type, config),
            as_settings(config, 0.0, clip_range, kl_coef, 0, 0),
            order,
            report.numpy(),
            grad.numpy(),
            None if old_params is None else as_array(old_params),
            None if old_log_std is None else as_array(old_log_std),
        )
        return grad, report

    def policy_gradient(
        self,
        rollout: Rollout,
        rewards: Tensor,
        config: LearnerConfig,
        num_steps: int,
        grad: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Computes the gradient of A2C's loss on a whole rollout.

        The loss is -mean[log pi(a|s) A + ent_coef entropy] + vf_coef mean[0.5 (V - target)^2] with
        returns of n steps: PPO's for one minibatch of all rows with the objective `pg`.

        Args:
            rollout: What was collected with the parameters as they are now.
            rewards: Its rewards as the agent is to see them, [T, N].
            config: The settings.
            num_steps: n.
            grad: Receives the gradient, in the parameters' order.

        Returns:
            What `A2C.loss` reports, and the targets, [B].
        """
        settings = PPOConfig(
            num_envs=rewards.shape[1],
            num_steps=rewards.shape[0],
            minibatch_size=rollout.num_rows,
            objective="pg",
            advantage="n_step",
            advantage_steps=num_steps,
            normalize_advantage="none",
            gamma=config.gamma,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
        )
        report = torch.empty(REPORT_SIZE, dtype=torch.float64)
        targets = torch.empty(rollout.num_rows, dtype=torch.float32)
        arrays = as_rollout(rollout, rewards, self._action_type, settings)
        kernels.compiled.gradient(
            self._policy,
            arrays,
            as_settings(settings, 0.0, 1.0, 0.0, 0, 0),
            np.arange(rollout.num_rows),
            report.numpy(),
            grad.numpy(),
            value_targets=targets.numpy(),
        )
        return report[:_NUM_LOSSES], targets

    @property
    def parameters(self) -> FlatParameters:
        """What the kernels compute with, in one flat tensor."""
        return self._state

    @property
    def num_updates(self) -> int:
        """Steps taken."""
        return self._state.num_updates

    @property
    def state(self) -> AdamState:
        """The parameters in one vector, and what Adam keeps of them."""
        return self._state

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of both moments and the number of updates."""
        return self._state.state_now()()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._state.load_state_dict(state)
