"""Trust Region Policy Optimization: a sampler in, a better policy out (Schulman et al. 2015).

arXiv 1502.05477. `iterate` is Algorithm 1 with the practical choices of its section 6 and appendix C:
collect with the old policy, judge what it did, go along the natural gradient as far as the mean
KL(old || new) stays within delta and the surrogate gains, fit the value function. Dimension key:
T steps, N envs, B = T * N rows, K numbers of the policy's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clipper.advantages import estimate, normalize_advantages
from clipper.config_relatives import TRPOConfig
from clipper.engine.choice import accelerate
from clipper.engine.group import actor_and_critic
from clipper.engine.state import FlatParameters, not_finite, refuse_frozen
from clipper.engine.value_regression import ValueRegression
from clipper.invariants import FIRST_RATIO_TOLERANCE, check_first_ratio
from clipper.losses import kl_k3
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RewardScaler, rewards_to_learn
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import Batch, Rollout, flatten
from clipper.rollout_metrics import complete_fraction, rollout_metrics, value_metrics
from clipper.sampler import Sampler
from clipper.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    full_step,
    line_search,
)


class TRPO:
    """TRPO with generalized advantage estimation.

    Args:
        policy: What is trained, in place.
        config: Hyperparameters.
        num_envs: Environments of the sampler, N.
        seed: The run's seed; minibatches are a function of it.
    """

    def __init__(self, policy: ActorCritic, config: TRPOConfig, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.config = config
        self._native = accelerate(policy, config)
        parameters = FlatParameters(policy) if self._native is None else self._native.parameters
        self.actor, critic = actor_and_critic(policy, parameters)
        self._learned = [*self.actor.members, *critic.members]
        self.value_regression = ValueRegression(policy, critic, self._native)
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Collects, takes one step within the trust region, fits V, and returns what happened.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; V's step size may follow it.
        """
        refuse_frozen(self.policy, self._learned)
        # "use the single path procedure to collect a set of state-action pairs"
        rollout = sampler.collect(self.policy, self.config.num_steps)
        # "along with Monte Carlo estimates of their Q-values"
        batch = self.judge(rollout)
        # "approximately solve this constrained optimization problem"
        is_rounded = self.policy.is_bf16
        with self.policy.full_precision():
            metrics = self.improve(self._judged_again(batch) if is_rounded else batch)
        # V <- argmin mean[(V(s_t) - target_t)^2]
        metrics["loss/value"] = self.value_regression.fit(
            rollout,
            batch,
            self.config,
            learning_rate=self.config.value_learning_rate.at(progress),
            seed=self._seed,
            iteration=self._num_iterations,
        )
        metrics |= self._metrics(rollout, batch)
        # what was learnt of the observations counts from the next rollout on
        self.policy.merge_observations(rollout.obs)
        self._num_iterations += 1
        return Iteration(metrics, rollout.episodes, rollout.num_rows)

    def judge(self, rollout: Rollout) -> Batch:
        """Returns the rows of a rollout with advantages and value targets."""
        config = self.config
        with self.profiler.part("estimate"):
            rewards = rewards_to_learn(
                rollout.rewards.to(rollout.values), is_clipped=self.config.clip_reward
            )
            if self.reward_scaler is not None:
                done = (rollout.terminated | rollout.truncated).numpy()
                self.reward_scaler.merge_block(rollout.rewards.numpy(), done)
                rewards = self.reward_scaler(rewards)
            estimates = estimate(
                config.advantage,
                rewards,
                rollout.values,
                rollout.next_values,
                rollout.terminated.to(rewards.device),
                rollout.truncated.to(rewards.device),
                rollout.begins.to(rewards.device),
                gamma=config.gamma,
                gae_lambda=config.gae_lambda,
                num_steps=config.num_advantage_steps,
            )
            return flatten(rollout, self.policy.normalize(rollout.obs), estimates)

    @torch.no_grad()
    def _judged_again(self, batch: Batch) -> Batch:
        """Returns rows with the log-probabilities of full precision, not of what acted in bfloat16."""
        params = self.policy.distribution_params(batch.obs)
        return replace(batch, log_probs=self.policy.distribution.log_prob(params, batch.actions))

    def improve(self, batch: Batch) -> Metrics:
        """Maximises E[rho A] subject to E[KL(old || new)] <= delta, once, and returns what it did.

        arXiv 1502.05477, eq. 14 and appendix C.
        """
        config, distribution = self.config, self.policy.distribution
        advantages = batch.advantages
        if config.normalize_advantage == "rollout":
            advantages = normalize_advantages(advantages, batch.counted)
        params = self.policy.distribution_params(batch.obs)
        old_params = params.detach()
        log_ratio = distribution.log_prob(params, batch.actions) - batch.log_probs
        ratio_error = float(log_ratio.detach().expm1().abs().max())
        check_first_ratio(ratio_error, FIRST_RATIO_TOLERANCE)
        surrogate = (log_ratio.exp() * advantages).mean()
        gradient = self.actor.gradient(surrogate, retain_graph=True)
        grad_norm, old_surrogate = float(gradient.norm()), float(surrogate.detach())
        if not torch.isfinite(gradient).all():
            raise not_finite(old_surrogate, grad_norm, self._num_iterations + 1)

        # x = F^-1 g, F the Hessian of the mean KL
        kl_gradient = self.actor.gradient(
            distribution.kl(old_params, params).mean(), create_graph=True
        )

        def fisher(vector: Tensor) -> Tensor:
            return fisher_vector_product(kl_gradient, self.actor.members, vector, config.cg_damping)

        direction = conjugate_gradient(fisher, gradient, config.num_cg_iterations)
        step = full_step(direction, float(direction.dot(fisher(direction))), config.max_kl)

        start = self.actor.read()

        @torch.no_grad()
        def judge(candidate: Tensor) -> tuple[float, float]:
            self.actor.write(candidate)
            new_params = self.policy.distribution_params(batch.obs)
            log_probs = distribution.log_prob(new_params, batch.actions)
            gain = ((log_probs - batch.log_probs).exp() * advantages).mean() - old_surrogate
            return float(gain), float(distribution.kl(old_params, new_params).mean())

        found = line_search(
            judge,
            start,
            torch.zeros_like(start) if step is None else step,
            max_kl=config.max_kl,
            factor=config.line_search_factor,
            num_tries=0 if step is None else config.num_line_search_tries,
        )
        # the last point that was looked at need not be the one that was accepted
        self.actor.write(found.parameters)
        with torch.no_grad():
            new_params = self.policy.distribution_params(batch.obs)
            moved = distribution.log_prob(new_params, batch.actions) - batch.log_probs
        return {
            "loss/policy": -old_surrogate,
            "loss/grad_norm": grad_norm,
            "policy/entropy": float(distribution.entropy(old_params).mean()),
            "policy/kl": found.kl,
            "policy/approx_kl": float(kl_k3(moved)),
            "policy/surrogate_gain": found.gain,
            "policy/step_fraction": found.fraction,
            "policy/line_search_tries": float(found.num_tries),
            "policy/first_ratio_error": ratio_error,
        }

    def _metrics(self, rollout: Rollout, batch: Batch) -> Metrics:
        metrics = rollout_metrics([rollout], self.policy)
        metrics |= value_metrics(batch.values, batch.value_targets)
        metrics |= complete_fraction(batch.counted)
        if self.reward_scaler is not None:
            metrics["value/reward_scale"] = self.reward_scaler.scale
        return metrics

    def use_threads(self, num_threads: int) -> None:
        """Does nothing: torch has threads of its own."""

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `reference`, `native avx2 + reference`."""
        return "reference" if self._native is None else f"{self._native.describe()} + reference"

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        return self.value_regression.describe(self.config, "second derivatives are not in C++")

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part."""
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "value_optimizer": self.value_regression.state_dict(),
            "reward_scaler": {k: torch.from_numpy(v) for k, v in scaler.items()},
            "counters": {"num_iterations": torch.tensor([self._num_iterations])},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.value_regression.load_state_dict(state["value_optimizer"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
        self._num_iterations = int(state["counters"]["num_iterations"])
