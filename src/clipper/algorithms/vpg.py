"""Vanilla policy gradient: a sampler in, a better policy out (Sutton et al. 2000; Williams 1992).

`iterate` is all of it: collect with the policy, judge what it did, take one step up the gradient of
the return, fit the value function. With `adaptive_kl_target` the step size follows the divergence
that a step makes, as in figure 3 of the PPO paper (arXiv 1707.06347). Dimension key: T steps,
N envs, B = T * N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipper.advantages import estimate, normalize_advantages
from clipper.config_relatives import VPGConfig
from clipper.engine.adam import GroupAdam
from clipper.engine.choice import accelerate
from clipper.engine.group import actor_and_critic
from clipper.engine.state import FlatParameters, refuse_frozen
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

# what the adaptive step size stays within
_STEP_SIZES = (1e-8, 1.0)


class VPG:
    """The vanilla policy gradient with a value function as baseline.

    Args:
        policy: What is trained, in place.
        config: Hyperparameters.
        num_envs: Environments of the sampler, N.
        seed: The run's seed; minibatches are a function of it.
    """

    def __init__(self, policy: ActorCritic, config: VPGConfig, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.config = config
        self._native = accelerate(policy, config)
        parameters = FlatParameters(policy) if self._native is None else self._native.parameters
        actor, critic = actor_and_critic(policy, parameters)
        self._learned = [*actor.members, *critic.members]
        self.policy_optimizer = GroupAdam(actor)
        self.value_regression = ValueRegression(policy, critic, self._native)
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0
        self._learning_rate = config.learning_rate.start

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Collects, takes one step of the policy, fits V, and returns what happened.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; schedules depend on it.
        """
        refuse_frozen(self.policy, self._learned)
        if self.config.adaptive_kl_target is None:
            self._learning_rate = self.config.learning_rate.at(progress)
        metrics = {"schedule/learning_rate": self._learning_rate}
        # trajectories of pi
        rollout = sampler.collect(
            self.policy, self.config.num_steps, until_end=self.config.one_episode
        )
        # what its actions were worth
        batch = self.judge(rollout)
        # "theta <- theta + alpha grad J"
        metrics |= self.improve(batch)
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
        """Returns the rows of a rollout with advantages and value targets, GAE (arXiv 1506.02438)."""
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

    def improve(self, batch: Batch) -> Metrics:
        """Takes one step of the policy on all rows and returns what it did."""
        distribution = self.policy.distribution
        params = self.policy.distribution_params(batch.obs)
        log_probs = distribution.log_prob(params, batch.actions)
        ratio_error = float((log_probs.detach() - batch.log_probs).expm1().abs().max())
        if not self.policy.is_bf16:  # which rounds further
            check_first_ratio(ratio_error, FIRST_RATIO_TOLERANCE)
        policy_loss = -self.objective(log_probs, batch)
        entropy = distribution.entropy(params)
        loss = policy_loss - self.config.ent_coef * self._average(entropy)
        grad_norm = self.policy_optimizer.minimise(loss, self._learning_rate)

        with torch.no_grad():
            new_params = self.policy.distribution_params(batch.obs)
            kl = float(distribution.kl(params, new_params).mean())
            log_ratio = distribution.log_prob(new_params, batch.actions) - log_probs
        # a step that nothing was learnt from says nothing of its size
        if self.config.adaptive_kl_target is not None and grad_norm > 0.0:
            self._learning_rate = adapted_learning_rate(
                self._learning_rate, kl, self.config.adaptive_kl_target
            )
        return {
            "loss/policy": float(policy_loss.detach()),
            "loss/grad_norm": grad_norm,
            "policy/entropy": float(entropy.detach().mean()),
            "policy/kl": kl,
            "policy/approx_kl": float(kl_k3(log_ratio)),
            "policy/first_ratio_error": ratio_error,
        }

    def objective(self, log_probs: Tensor, batch: Batch) -> Tensor:
        """Returns what the policy climbs beside the entropy: the average of log pi(a|s) A.

        Its expected gradient is that of the return for gamma = 1 and an advantage without bias; below
        1 the factor gamma^t of the discounted return's gradient is left out, as everybody does.

        Args:
            log_probs: log pi(a|s) of every row, differentiable, [B].
            batch: The rows.
        """
        config, advantages = self.config, batch.advantages
        if config.normalize_advantage == "rollout":
            advantages = normalize_advantages(advantages, batch.counted)
        return self._average(log_probs * advantages)

    def _average(self, rows: Tensor) -> Tensor:
        """Returns the mean over the time steps of a rollout, so that each step counts the same.

        A mean over trajectories would count the steps of short ones for more. Where a rollout is one
        episode, the sum is divided by `num_steps`, the same for all, for the same reason.
        """
        config = self.config
        return rows.sum() / config.num_steps if config.one_episode else rows.mean()

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
        return self.value_regression.describe(self.config, "this gradient is not in C++")

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part."""
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "value_optimizer": self.value_regression.state_dict(),
            "reward_scaler": {k: torch.from_numpy(v) for k, v in scaler.items()},
            "counters": {
                "num_iterations": torch.tensor([self._num_iterations]),
                "learning_rate": torch.tensor([self._learning_rate], dtype=torch.float64),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.value_regression.load_state_dict(state["value_optimizer"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
        self._num_iterations = int(state["counters"]["num_iterations"])
        self._learning_rate = float(state["counters"]["learning_rate"])


def adapted_learning_rate(learning_rate: float, kl: float, target: float) -> float:
    """Returns the next step size: / 1.5 if d > 2 d_targ, x 1.5 if d < d_targ / 2, else the same.

    The rule of the implementation that the PPO paper names for its figure 3, within 1e-8 and 1.

    Args:
        learning_rate: The one that the step was taken with.
        kl: d, mean KL(old || new) that it made.
        target: d_targ.
    """
    if kl > 2.0 * target:
        return max(learning_rate / 1.5, _STEP_SIZES[0])
    if kl < target / 2.0:
        return min(learning_rate * 1.5, _STEP_SIZES[1])
    return learning_rate
