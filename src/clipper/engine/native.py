"""A rollout in, a better policy out, in C++: the same numbers as the reference engine, sooner.

The kernels work in place on the flat float32 tensor of which the policy's parameters are views, so
that state dicts, files and evaluation see one truth. A row of a batch is computed independently of
the rows beside it: what a policy does in an environment does not depend on how many there are.
Dimension key: T steps, N envs, B = T * N rows, D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
    choose_variant,
    head_kind,
)
from clipper.engine.state import AdamState, FlatParameters, Updates, not_finite
from clipper.policies.accelerator import Play
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.distributions import Bernoulli, Categorical, DiagonalGaussian
from clipper.policies.networks import ACTIVATIONS, MLPNetwork
from clipper.randomness import Purpose
from clipper.rollout import Rollout

# of the numbers of a report the first are losses and entropy
_NUM_LOSSES = 4
_NOT_FINITE = 2
# what one thread does alone after the second one came late too often: so many tasks that could be
# shared, about a second of them, but no more iterations than that
_ALONE_TASKS = 20_000
_MOST_ALONE = 50
_ACTIVATION_NAMES = tuple(ACTIVATIONS)


def covers(policy: ActorCritic) -> str | None:
    """Returns why the native engine cannot train a policy, in words, or None if it can."""
    if kernels.ABSENCE is not None:
        return kernels.ABSENCE
    if policy.obs_layout.images:
        return "observations are images"
    if type(policy.network) is not MLPNetwork:
        return "the network is a module of the user's"
    if policy.device.type != "cpu":
        return f"the device is {policy.device}"
    if policy.dtype != torch.float32:
        return f"the parameters are {str(policy.dtype).removeprefix('torch.')}"
    if any(not p.requires_grad for p in policy.network.parameters()):
        return "some layers are frozen"
    if isinstance(policy.distribution, DiagonalGaussian) and policy.log_std is None:
        return "the standard deviations depend on the state"
    distributions = (Categorical, Bernoulli, DiagonalGaussian)
    if type(policy.distribution) not in distributions:
        return f"the distribution is {type(policy.distribution).__name__}"
    return None


def alone_for(num_minibatches: int) -> int:
    """Returns after how many iterations of so many minibatches a second thread is tried again.

    To try costs about the same however long an iteration is, so long ones wait for fewer of them.
    """
    # a gradient and a step of each
    return max(1, min(_MOST_ALONE, _ALONE_TASKS // (2 * num_minibatches)))


class NativeEngine:
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
        self.num_threads = 1
        self._alone_for = 0
        self._cores = num_cores()
        self.variant = choose_variant()
        self._state = AdamState(policy)
        self._normal = policy.distribution.noise == "normal"
        self._noise_size = policy.distribution.noise_size
        self._action_size = policy.action_layout.size
        self._action_type = policy.action_layout.dtype
        self._normalizer = policy.normalizer
        self._policy = self._describe(policy)
        torso = getattr(policy.network, "torso", None)
        self._has_own_values = isinstance(torso, nn.Identity)
        policy.accelerate(self)

    def _describe(self, policy: ActorCritic) -> kernels.compiled.Policy:
        network = policy.network
        assert isinstance(network, MLPNetwork)
        flat = self._state.params

        def place(tensor: Tensor) -> int:
            return (tensor.data_ptr() - flat.data_ptr()) // flat.element_size()

        def chain(part: nn.Module) -> list[tuple[int, int, int, int]]:
            layers = (layer for layer in part.children() if isinstance(layer, nn.Linear))
            return [
                (layer.in_features, layer.out_features, place(layer.weight), place(layer.bias))
                for layer in layers
            ]

        log_std, normalizer = policy.log_std, policy.normalizer
        return kernels.compiled.Policy(
            self.variant,
            flat.numpy(),
            policy.obs_layout.size,
            _ACTIVATION_NAMES.index(network.activation),
            (chain(network.torso), chain(network.actor), chain(network.critic)),
            head_kind(policy),
            list(policy.action_layout.num_categories or (policy.action_layout.size,)),
            None if log_std is None else log_std.detach().numpy(),
            place(log_std) if log_std is not None and log_std.requires_grad else -1,
            None
            if normalizer is None
            else (
                normalizer.mean.numpy(),
                normalizer.inverse_std.numpy(),
                normalizer.limit.numpy(),
            ),
        )

    @property
    def has_own_values(self) -> bool:
        """True if V shares no layer with the policy."""
        return self._has_own_values

    def describe(self) -> str:
        """Returns the engine's name and instruction set, as runs are marked with."""
        return f"{self.name} {self.variant}"

    def act(self, obs: NDArray[np.float32], noise: Tensor | None) -> NDArray[np.generic]:
        """Returns an action for every row of raw observations; as `ActorCritic.act`."""
        actions = np.empty((len(obs), self._action_size), dtype=self._action_type)
        drawn = None if noise is None else np.ascontiguousarray(noise.numpy(), dtype=np.float32)
        self._policy.act(np.ascontiguousarray(obs), drawn, actions)
        return actions

    def play(
        self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None, actions: NDArray[Any]
    ) -> Play:
        """Returns what acts on blocks step by step; as `ActorCritic.play`."""
        log_probs, values = np.empty((2, *obs.shape[:2]), dtype=np.float32)
        act = kernels.compiled.Stepper(self._policy, obs, noise, actions, log_probs, values)

        def judgement(num_rows: int) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(log_probs[:num_rows]), torch.from_numpy(values[:num_rows])

        return Play(act, judgement)

    def noise(
        self,
        seed: int,
        purpose: Purpose,
        first_step: int,
        num_steps: int,
        num_envs: int,
        first_env: int = 0,
    ) -> NDArray[np.float32]:
        """Returns the noise of actions, [T, N, noise_size]: the numbers of `randomness`."""
        block = np.empty((num_steps, num_envs, self._noise_size), dtype=np.float32)
        kernels.compiled.noise(seed, purpose, first_step, self._normal, block, first_env)
        return block

    def evaluate(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities and values; as `ActorCritic.evaluate`."""
        values = torch.empty(obs.shape[:-1], dtype=torch.float32)
        log_probs = torch.empty_like(values)
        self._policy.evaluate(
            as_array(obs), as_array(actions, self._action_type), log_probs.numpy(), values.numpy()
        )
        return log_probs, values

    def values(self, obs: Tensor) -> Tensor:
        """Returns V of raw observations; as `ActorCritic.values`."""
        values = torch.empty(obs.shape[:-1], dtype=torch.float32)
        self._policy.evaluate(as_array(obs), None, None, values.numpy())
        return values

    def next_values(
        self, values: Tensor, final_obs: Tensor, final_at: Tensor, last_obs: Tensor
    ) -> Tensor:
        """Returns V of the observation each step truly ended in; as `ActorCritic.next_values`."""
        found = np.empty(values.shape, dtype=np.float32)
        self._policy.next_values(
            as_array(values),
            as_array(final_obs),
            as_array(final_at, np.int64),
            as_array(last_obs),
            found,
        )
        return torch.from_numpy(found)

    def merge_observations(self, obs: Tensor) -> None:
        """Adds a rollout's raw observations to the normaliser's statistics, to the same bits."""
        normalizer = self._normalizer
        assert normalizer is not None
        if obs.numel() == len(obs):  # one column, which numpy sums in another order
            normalizer.merge_block(obs.numpy())
            return
        kernels.compiled.merge_observations(
            as_array(obs),
            normalizer.moments.numpy(),
            normalizer.columns,
            normalizer.mean.numpy(),
            normalizer.inverse_std.numpy(),
        )

    def are_finite(self, blocks: Sequence[Tensor]) -> bool:
        """Returns True if no number in the blocks is NaN or infinite."""
        return kernels.compiled.are_finite([as_array(block) for block in blocks])

    def is_finite(self) -> bool:
        """Returns True if no number that is learnt is NaN or infinite; as `ActorCritic.is_finite`."""
        normalizer = self._normalizer
        return kernels.compiled.are_finite([self._state.params.numpy()]) and (
            normalizer is None or bool(np.isfinite(normalizer.moments.numpy()).all())
        )

    def first_outside(
        self, obs: Tensor, low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> int | None:
        """Returns where a block is outside its bounds first; as `ActorCritic.first_outside`."""
        at = kernels.compiled.first_outside(as_array(obs), low, high)
        return at if at >= 0 else None

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
