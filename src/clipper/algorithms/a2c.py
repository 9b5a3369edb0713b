"""Advantage actor-critic: a sampler in, a better policy out (Mnih et al. 2016, arXiv 1602.01783).

The synchronous form of the paper's A3C: all environments step together, and one update follows
every few steps. `iterate` shows it: collect a short rollout, judge it by returns of n steps, take one
step of RMSprop. With `trust_region` the step is held back where it would leave the policy's running
average (Wang et al. 2016, arXiv 1611.01224, section 3.3). Dimension key: T steps, N envs, B = T * N
rows of a rollout, P distribution parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipper.advantages import Estimates, reward_to_go
from clipper.config_a2c import A2CConfig
from clipper.engine.average import AveragePolicy
from clipper.engine.choice import FROZEN, accelerate, describe_engine
from clipper.engine.rmsprop import RMSprop
from clipper.engine.state import FlatParameters
from clipper.losses import value_loss
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RewardScaler, rewards_to_learn
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import Batch, Rollout, flatten
from clipper.rollout_metrics import rollout_metrics, value_metrics
from clipper.sampler import Sampler

# the order of the numbers that an update reports
_REPORT = ("loss/grad_norm", "loss/total", "loss/policy", "loss/value", "policy/entropy")
# and with a trust region
_TRUST_REGION_REPORT = ("policy/average_kl", "policy/trust_region_fraction")


class A2C:
    """A2C with returns of n steps and RMSprop, and the trust region of ACER as an option.

    Args:
        policy: What is trained, in place.
        config: Hyperparameters.
        num_envs: Environments of the sampler, N.
        seed: The run's seed; not used, for nothing here is drawn.
    """

    def __init__(self, policy: ActorCritic, config: A2CConfig, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.config = config
        self._native = accelerate(policy, config)
        parameters = FlatParameters(policy) if self._native is None else self._native.parameters
        self._parameters = parameters
        self.optimizer = RMSprop(
            parameters,
            alpha=config.rmsprop_alpha,
            eps=config.rmsprop_eps,
            max_grad_norm=config.max_grad_norm,
        )
        self.average: AveragePolicy | None = None
        if config.trust_region:
            self.average = AveragePolicy(policy, parameters, config.average_decay)
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Collects and updates `rollouts_per_iteration` times and returns what happened.

        An update takes so few steps that a row of metrics for each would cost more than learning.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; schedules depend on it.
        """
        learning_rate = self.config.learning_rate.at(progress)
        rollouts, reports, value_targets = [], [], []
        for _ in range(self.config.rollouts_per_iteration):
            # "perform a_t according to policy pi(a_t|s_t)" for t_max steps
            rollout = sampler.collect(self.policy, self.config.num_steps)
            # "R <- r_i + gamma R" and "perform asynchronous update of theta using d theta"
            report, targets = self.improve(rollout, learning_rate)
            # what was learnt of the observations counts from the next rollout on
            self.policy.merge_observations(rollout.obs)
            rollouts.append(rollout)
            reports.append(report)
            value_targets.append(targets)
        metrics = self._metrics(rollouts, torch.stack(reports), torch.cat(value_targets))
        metrics["schedule/learning_rate"] = learning_rate
        episodes = tuple(episode for rollout in rollouts for episode in rollout.episodes)
        return Iteration(metrics, episodes, sum(rollout.num_rows for rollout in rollouts))

    def improve(self, rollout: Rollout, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Takes one step on all rows of a rollout.

        Returns:
            Its numbers, `_REPORT`, and what V was fitted to, [B].
        """
        rewards = self.scaled_rewards(rollout)
        if self._native is not None and self._learns_in_torch() is None:
            # judge and differentiate in one call
            numbers, targets = self._native.policy_gradient(
                rollout, rewards, self.config, self.config.num_steps, self.optimizer.grad
            )
            norm = self.optimizer.descend(float(numbers[0]), learning_rate)
        else:
            batch = self.judge(rollout, rewards)
            loss, numbers = self.loss(batch)
            norm = self.optimizer.minimise(loss, learning_rate)
            targets = batch.value_targets
        if self.average is not None:
            self.average.follow()
        return torch.cat([numbers.new_tensor([norm]), numbers]), targets

    def scaled_rewards(self, rollout: Rollout) -> Tensor:
        """Returns the rewards as the agent is to see them, [T, N]; the statistics take them in."""
        rewards = rewards_to_learn(
            rollout.rewards.to(rollout.values), is_clipped=self.config.clip_reward
        )
        if self.reward_scaler is None:
            return rewards
        done = (rollout.terminated | rollout.truncated).numpy()
        self.reward_scaler.merge_block(rollout.rewards.numpy(), done)
        return self.reward_scaler(rewards)

    def judge(self, rollout: Rollout, rewards: Tensor) -> Batch:
        """Returns the rows of a rollout with targets of n steps and the advantages that follow.

        The target of s_t is r_t + ... + gamma^n V(s_{t+n}), to the end of the rollout or of the
        episode, whichever is first.
        """
        with self.profiler.part("estimate"):
            targets = reward_to_go(
                rewards,
                rollout.next_values,
                rollout.terminated.to(rewards.device),
                rollout.truncated.to(rewards.device),
                self.config.gamma,
            )
            estimates = Estimates(targets - rollout.values, targets, None)
        return flatten(rollout, self.policy.normalize(rollout.obs), estimates)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss of a rollout's rows and a detached row of `_REPORT` without the first.

        It is -mean[log pi(a|s) A + ent_coef entropy] + vf_coef mean[0.5 (V - target)^2]; under a
        trust region the first mean is replaced by one with the gradient that was held back.
        """
        config, distribution = self.config, self.policy.distribution
        params, values = self.policy(batch.obs)
        log_probs = distribution.log_prob(params, batch.actions)
        entropy = distribution.entropy(params).mean()
        policy_loss = -(log_probs * batch.advantages).mean()
        critic_loss = value_loss(values, batch.value_targets)
        actor_loss = policy_loss - config.ent_coef * entropy
        loss = actor_loss + config.vf_coef * critic_loss
        report = [loss, policy_loss, critic_loss, entropy]
        if self.average is not None:
            actor_loss, found = self.average.hold_back(
                actor_loss, params, batch.obs, config.trust_region_delta
            )
            loss = actor_loss + config.vf_coef * critic_loss
            report += found
        return loss, torch.stack(report).detach()

    def _metrics(self, rollouts: list[Rollout], reports: Tensor, targets: Tensor) -> Metrics:
        names = _REPORT if self.average is None else _REPORT + _TRUST_REGION_REPORT
        metrics = dict(zip(names, reports.mean(0).tolist(), strict=True))
        values = torch.stack([rollout.values for rollout in rollouts]).flatten()
        metrics |= value_metrics(values, targets)
        if self.reward_scaler is not None:
            metrics["value/reward_scale"] = self.reward_scaler.scale
        return metrics | rollout_metrics(rollouts, self.policy)

    def use_threads(self, num_threads: int) -> None:
        """Does nothing: updates are too small for two threads."""

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `native avx2`, `native avx2 + reference`."""
        if self._native is None:
            return "reference"
        return self._native.describe() + (" + reference" if self._learns_in_torch() else "")

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        return describe_engine(self.policy, self.config, self._native, self._learns_in_torch())

    def _learns_in_torch(self) -> str | None:
        """Returns why the native engine does not learn, in words, or None if it can."""
        is_frozen = self._parameters.are_frozen()
        if self.config.trust_region:
            return "the trust region is not in C++"
        return FROZEN if is_frozen else None

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part."""
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "reward_scaler": {k: torch.from_numpy(v) for k, v in scaler.items()},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
