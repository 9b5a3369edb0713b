"""Proximal Policy Optimization: a sampler in, a better policy out (Schulman et al. 2017, 1707.06347).

`iterate` is Algorithm 1 of the paper: collect with the old policy, judge what it did, improve. Every
other file is opened at the line that names it. Dimension key: T steps, N envs, B = T * N rows, M
rows of a minibatch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipper.advantages import explained_variance, gae, normalize_advantages
from clipper.config import PPOConfig
from clipper.engine.choice import build_engine, describe_engine
from clipper.engine.native import NativeEngine
from clipper.engine.state import Updates
from clipper.errors import InvariantBreach
from clipper.losses import clip_fraction, clip_objective, clipped_value_loss, kl_k3, value_loss
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RewardScaler
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import Batch, Rollout, Sampler, epoch_order, flatten

# in torch, rounding moves the first ratio from 1 by 1e-6 or so; a policy that depends on more than
# its observation (dropout, batch statistics) by far more. Native rows are the same to the bit.
FIRST_RATIO_TOLERANCE = 1e-2
FIRST_RATIO_WARNING = 1e-3
# the order of the numbers that `loss` reports
_REPORT = (
    "loss/total",
    "loss/policy",
    "loss/value",
    "policy/entropy",
    "policy/approx_kl",
    "policy/clip_fraction",
    "policy/first_ratio_error",
)
_KL = _REPORT.index("policy/approx_kl")
_RATIO_ERROR = _REPORT.index("policy/first_ratio_error")


class PPO:
    """PPO with the clipped surrogate.

    Args:
        policy: What is trained, in place.
        config: Hyperparameters.
        num_envs: Environments of the sampler, N.
        seed: The run's seed; minibatches are a function of it.
    """

    def __init__(self, policy: ActorCritic, config: PPOConfig, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.config = config
        self.engine = build_engine(policy, config)
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Runs one iteration of Algorithm 1 and returns what happened.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; schedules depend on it.
        """
        # "Run policy pi_old in environment for T timesteps"
        rollout = sampler.collect(self.policy, self.config.num_steps)
        # "Compute advantage estimates A_1, ..., A_T" and
        # "Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT"
        metrics = self.improve(rollout, progress)
        # "theta_old <- theta": what was learnt of the observations counts from the next rollout on
        self.policy.merge_observations(rollout.obs)
        self._num_iterations += 1
        return Iteration(metrics, rollout.episodes, rollout.num_rows)

    def improve(self, rollout: Rollout, progress: float) -> Metrics:
        """Returns the metrics of K epochs of minibatch updates on a rollout."""
        config = self.config
        learning_rate = config.learning_rate.at(progress)
        clip_range = config.clip_range.at(progress)
        schedules = {"schedule/learning_rate": learning_rate, "schedule/clip_range": clip_range}
        if self.reward_scaler is not None:
            done = (rollout.terminated | rollout.truncated).numpy()
            self.reward_scaler.merge_block(rollout.rewards.numpy(), done)
        if isinstance(self.engine, NativeEngine):
            # all that follows, in one call
            updates = self.engine.improve(
                rollout,
                self.scaled_rewards(rollout),
                config,
                learning_rate=learning_rate,
                clip_range=clip_range,
                seed=self._seed,
                iteration=self._num_iterations,
            )
            self.profiler.move(updates.estimate_seconds, "improve", "estimate")
            _check_first_ratio(float(updates.reports[0, _RATIO_ERROR]), 0.0)
            return self._metrics(rollout, updates) | schedules
        normalized_obs = self.policy.normalize(rollout.obs)
        with self.profiler.part("estimate"):
            batch = judged = self.judge(rollout, normalized_obs)
        reports: list[Tensor] = []
        grad_norms: list[float] = []
        epochs = 0
        for epoch in range(config.num_epochs):
            if epoch > 0 and config.recompute_advantages:
                with self.profiler.part("estimate"):
                    batch = self.judge(rollout.revalued(self.policy), normalized_obs)
            order = epoch_order(self._seed, self._num_iterations, epoch, rollout.num_rows)
            for minibatch in batch.shuffled(config.minibatch_size, order):
                loss, report = self.loss(minibatch, clip_range)
                if not reports and self.policy.dtype.itemsize >= 4:  # bfloat16 rounds further
                    _check_first_ratio(float(report[_RATIO_ERROR]), FIRST_RATIO_TOLERANCE)
                reports.append(report)
                if config.target_kl is not None and report[_KL] > 1.5 * config.target_kl:
                    break
                grad_norms.append(self.engine.minimise(loss, learning_rate))
            else:
                epochs += 1
                continue
            break
        updates = Updates(torch.stack(reports), grad_norms, epochs, judged.value_targets)
        return self._metrics(rollout, updates) | schedules

    def scaled_rewards(self, rollout: Rollout) -> Tensor:
        """Returns the rewards as the agent is to see them, [T, N]."""
        rewards = rollout.rewards.to(rollout.values)
        return rewards if self.reward_scaler is None else self.reward_scaler(rewards)

    def judge(self, rollout: Rollout, normalized_obs: Tensor) -> Batch:
        """Returns the rows of a rollout with advantages and value targets, GAE (arXiv 1506.02438)."""
        rewards = self.scaled_rewards(rollout)
        advantages_TN = gae(
            rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated.to(rewards.device),
            rollout.truncated.to(rewards.device),
            self.config.gamma,
            self.config.gae_lambda,
        )
        return flatten(rollout, normalized_obs, advantages_TN, advantages_TN + rollout.values)

    def loss(self, minibatch: Batch, clip_range: float) -> tuple[Tensor, Tensor]:
        """Returns -L^{CLIP+VF+S} of a minibatch (eq. 9) and a detached row of numbers, `_REPORT`."""
        config = self.config
        params, values = self.policy(minibatch.obs)
        log_probs = self.policy.distribution.log_prob(params, minibatch.actions)
        entropy = self.policy.distribution.entropy(params).mean()
        log_ratio = log_probs - minibatch.log_probs
        ratio = log_ratio.exp()
        advantages = minibatch.advantages
        if config.normalize_advantage == "minibatch":
            advantages = normalize_advantages(advantages)

        policy_loss = -clip_objective(ratio, advantages, clip_range)
        if config.clip_value is None:
            critic_loss = value_loss(values, minibatch.value_targets)
        else:
            critic_loss = clipped_value_loss(
                values, minibatch.values, minibatch.value_targets, config.clip_value
            )
        loss = policy_loss + config.vf_coef * critic_loss - config.ent_coef * entropy

        with torch.no_grad():
            report = torch.stack(
                [
                    loss,
                    policy_loss,
                    critic_loss,
                    entropy,
                    kl_k3(log_ratio),
                    clip_fraction(ratio, clip_range),
                    (ratio - 1.0).abs().max(),
                ]
            )
        return loss, report

    def _metrics(self, rollout: Rollout, updates: Updates) -> Metrics:
        metrics = dict(zip(_REPORT, updates.reports.mean(0).tolist(), strict=True))
        metrics["policy/first_ratio_error"] = float(updates.reports[0, _RATIO_ERROR])
        metrics["policy/epochs"] = float(updates.epochs)
        if updates.grad_norms:
            metrics["loss/grad_norm"] = sum(updates.grad_norms) / len(updates.grad_norms)
        targets = updates.value_targets
        values_B = rollout.values.flatten()  # [T, N] -> [B]
        metrics["value/explained_variance"] = explained_variance(values_B, targets)
        metrics["value/target_mean"] = float(targets.mean())
        metrics["value/target_std"] = float(targets.std(correction=0))
        if self.reward_scaler is not None:
            metrics["value/reward_scale"] = self.reward_scaler.scale
        metrics["rollout/reward_mean"] = float(rollout.rewards.mean())
        if rollout.episodes:
            cut = sum(episode.truncated for episode in rollout.episodes)
            metrics["rollout/truncated_fraction"] = cut / len(rollout.episodes)
        saturation = self.policy.action_layout.saturation(rollout.actions.numpy())
        if saturation is not None:
            metrics["policy/action_saturation"] = saturation
        if self.policy.log_std is not None:
            metrics["policy/action_std"] = float(self.policy.log_std.detach().exp().mean())
        return metrics

    def use_threads(self, num_threads: int) -> None:
        """Lets updates use so many threads, 1 or 2; the bits are the same."""
        self.engine.num_threads = num_threads

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `reference`, `native avx2`."""
        return self.engine.describe()

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        return describe_engine(self.policy, self.config, self.engine)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part."""
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "engine": self.engine.state_dict(),
            "reward_scaler": {k: torch.from_numpy(v) for k, v in scaler.items()},
            "counters": {"num_iterations": torch.tensor([self._num_iterations])},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.engine.load_state_dict(state["engine"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
        self._num_iterations = int(state["counters"]["num_iterations"])


def _check_first_ratio(error: float, tolerance: float) -> None:
    hint = (
        "a module's output must depend on the observation alone: no dropout, no batch statistics, "
        "no state between calls."
    )
    if not error <= tolerance:
        raise InvariantBreach(
            "the ratio must be 1 on the first minibatch, before any update, "
            f"but is off by up to {error:.3g}.",
            hint=hint,
        )
    if error > FIRST_RATIO_WARNING:
        warnings.warn(
            f"the ratio of the first minibatch is off by {error:.3g} from 1, more than rounding does: "
            f"{hint}",
            stacklevel=2,
        )
