"""Proximal Policy Optimization: a sampler in, a better policy out (Schulman et al. 2017, 1707.06347).

`iterate` is Algorithm 1 of the paper: collect with the old policy, judge what it did, improve. Every
other file is opened at the line that names it. Dimension key: T steps, N envs, B = T * N rows, M
rows of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.advantages import estimate, normalize_advantages, value_fit
from clipper.config_ppo import PPOConfig
from clipper.engine.choice import FROZEN, Engine, build_engine, describe_engine, torch_engine
from clipper.engine.mixed import MixedEngine
from clipper.engine.native import NativeEngine
from clipper.engine.reference import ReferenceEngine
from clipper.engine.state import Snapshot, Updates
from clipper.invariants import FIRST_RATIO_TOLERANCE, check_first_ratio
from clipper.losses import (
    adapted_kl_coef,
    clip_fraction,
    clipped_value_loss,
    kl_k3,
    policy_objective,
    value_loss,
)
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RewardScaler, rewards_to_learn
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import Batch, Rollout, epoch_order, flatten
from clipper.rollout_metrics import complete_fraction
from clipper.sampler import Sampler

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
    """PPO: the clipped surrogate, or another of the policy objectives in `losses`.

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
        self._torch: ReferenceEngine | None = None
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0
        self._kl_coef = config.first_kl_coef

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
        learner = self._learner()
        if isinstance(learner, NativeEngine):
            # all that follows, in one call
            updates = learner.improve(
                rollout,
                self.scaled_rewards(rollout),
                config,
                learning_rate=learning_rate,
                clip_range=clip_range,
                kl_coef=self._kl_coef,
                seed=self._seed,
                iteration=self._num_iterations,
            )
            self.profiler.move(updates.estimate_seconds, "improve", "estimate")
            check_first_ratio(float(updates.reports[0, _RATIO_ERROR]), 0.0)
            return self._metrics(rollout, updates) | self._adapt(updates) | schedules
        normalized_obs = self.policy.normalize(rollout.obs)
        old_params = self._params(normalized_obs) if config.has_kl_penalty else None
        with self.profiler.part("estimate"):
            batch = judged = self.judge(rollout, normalized_obs, old_params)
        order_of = learner.epoch_order if isinstance(learner, MixedEngine) else epoch_order
        reports: list[Tensor] = []
        grad_norms: list[Tensor | float] = []
        epochs = 0
        for epoch in range(config.num_epochs):
            if epoch > 0 and config.recompute_advantages:
                with self.profiler.part("estimate"):
                    batch = self.judge(rollout.revalued(self.policy), normalized_obs, old_params)
            order = order_of(self._seed, self._num_iterations, epoch, rollout.num_rows)
            for report, step in self.steps(batch, order, learning_rate, clip_range):
                if not reports and not self.policy.is_bf16:  # which rounds further
                    check_first_ratio(float(report[_RATIO_ERROR]), FIRST_RATIO_TOLERANCE)
                reports.append(report)
                if config.target_kl is not None and report[_KL] > 1.5 * config.target_kl:
                    break
                grad_norms.append(step())
            else:
                learner.settle()
                epochs += 1
                continue
            learner.settle()
            break
        kl = None
        if old_params is not None:
            kl = float(self.policy.distribution.kl(old_params, self._params(normalized_obs)).mean())
        updates = Updates(
            reports=torch.stack(reports).double().numpy(force=True),
            grad_norms=_as_floats(grad_norms),
            epochs=epochs,
            fit=value_fit(rollout.values.flatten(), judged.value_targets),
            counted=judged.counted,
            kl=kl,
        )
        return self._metrics(rollout, updates) | self._adapt(updates) | schedules

    def steps(
        self, batch: Batch, order: NDArray[np.int64], learning_rate: float, clip_range: float
    ) -> Iterator[tuple[Tensor, Callable[[], Tensor | float]]]:
        """Yields for every minibatch its report and what takes the step and returns the norm."""
        learner = self._learner()
        assert not isinstance(learner, NativeEngine)
        if isinstance(learner, MixedEngine):
            yield from learner.steps(batch, order, learning_rate, clip_range)
            return
        for minibatch in batch.shuffled(self.config.minibatch_size, order):
            loss, report = self.loss(minibatch, clip_range)
            yield report, partial(learner.minimise, loss, learning_rate)

    def _learner(self) -> Engine:
        """Returns what takes the steps: torch while parameters are frozen that were not at first.

        Raises:
            ConfigError: All are frozen, or the settings insist on the native engine.
        """
        engine = self.engine
        if not engine.state.are_frozen() or isinstance(engine, ReferenceEngine):
            return engine
        if self._torch is None:
            self._torch = torch_engine(self.policy, self.config, engine.state)
        return self._torch

    def scaled_rewards(self, rollout: Rollout) -> Tensor:
        """Returns the rewards as the agent is to see them, [T, N]."""
        rewards = rewards_to_learn(
            rollout.rewards.to(rollout.values), is_clipped=self.config.clip_reward
        )
        return rewards if self.reward_scaler is None else self.reward_scaler(rewards)

    @torch.no_grad()
    def _params(self, normalized_obs: Tensor) -> Tensor:
        """Returns the parameters of every row's distribution, [T, N, D] -> [B, P]."""
        rows = normalized_obs.flatten(0, 1)
        return torch.cat([self.policy(part)[0] for part in rows.split(65_536)])

    def judge(
        self, rollout: Rollout, normalized_obs: Tensor, old_params: Tensor | None = None
    ) -> Batch:
        """Returns the rows of a rollout with advantages and value targets."""
        config = self.config
        rewards = self.scaled_rewards(rollout)
        learner = self._learner()
        if isinstance(learner, MixedEngine):
            estimates = learner.estimate(rollout, rewards)
            return flatten(rollout, normalized_obs, estimates, old_params)
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
        return flatten(rollout, normalized_obs, estimates, old_params)

    def loss(self, minibatch: Batch, clip_range: float) -> tuple[Tensor, Tensor]:
        """Returns the loss of a minibatch and a detached row of numbers, `_REPORT`.

        -(objective - vf_coef x value loss + ent_coef x entropy); with the clipped surrogate it is
        -L^{CLIP+VF+S} of eq. 9.
        """
        config = self.config
        params, values = self.policy(minibatch.obs)
        log_probs = self.policy.distribution.log_prob(params, minibatch.actions)
        entropy = self.policy.distribution.entropy(params).mean()
        log_ratio = log_probs - minibatch.log_probs
        ratio = log_ratio.exp()
        advantages = minibatch.advantages
        if config.normalize_advantage == "minibatch":
            advantages = normalize_advantages(advantages, minibatch.counted)

        kl = None
        if minibatch.old_params is not None:
            kl = self.policy.distribution.kl(minibatch.old_params, params)
        policy_loss = -policy_objective(
            config.objective,
            log_probs,
            ratio,
            advantages,
            clip_range=clip_range,
            dual_clip=config.dual_clip_factor,
            kl=kl,
            kl_coef=self._kl_coef,
        )
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

    def _adapt(self, updates: Updates) -> Metrics:
        """Returns the KL penalty's numbers, after setting its weight for the next iteration."""
        if updates.kl is None:
            return {}
        metrics = {"policy/kl": updates.kl, "policy/kl_coef": self._kl_coef}
        if self.config.objective == "kl_adaptive":
            self._kl_coef = adapted_kl_coef(self._kl_coef, updates.kl, self.config.kl_goal)
        return metrics

    def _metrics(self, rollout: Rollout, updates: Updates) -> Metrics:
        # by sums, as numpy's `mean` takes ten times as long for so few numbers
        means = np.add.reduce(updates.reports) / len(updates.reports)
        metrics = dict(zip(_REPORT, means.tolist(), strict=True))
        metrics["policy/first_ratio_error"] = float(updates.reports[0, _RATIO_ERROR])
        metrics["policy/epochs"] = float(updates.epochs)
        if updates.grad_norms:
            metrics["loss/grad_norm"] = sum(updates.grad_norms) / len(updates.grad_norms)
        metrics["value/explained_variance"] = updates.fit.explained_variance
        metrics["value/target_mean"] = updates.fit.target_mean
        metrics["value/target_std"] = updates.fit.target_std
        if self.reward_scaler is not None:
            metrics["value/reward_scale"] = self.reward_scaler.scale
        metrics["rollout/reward_mean"] = _mean(rollout.rewards.numpy())
        metrics |= complete_fraction(updates.counted)
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
        """Returns what computes, as runs are marked with; as `Agent.engine`."""
        learner = self._learner()
        if learner is self.engine:
            return learner.describe()
        return f"{self.engine.describe()} + {learner.describe()}"

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        learns_in_torch = None if self._learner() is self.engine else FROZEN
        return describe_engine(self.policy, self.config, self.engine, learns_in_torch)

    def state_dict(self) -> Snapshot:
        """Returns copies of all that changes during training, by part."""
        state = self.engine.state
        learned, tensors = state.parameters_now(), self.policy.tensors()
        others = {k: v.clone() for k, v in tensors.items() if k not in state.names}
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        iterations, kl_coef = self._num_iterations, self._kl_coef

        def policy() -> dict[str, Tensor]:
            found = others | learned()
            return {name: found[name] for name in tensors}

        def counters() -> dict[str, Tensor]:
            found = {"num_iterations": torch.tensor([iterations])}
            if self.config.objective == "kl_adaptive":
                found["kl_coef"] = torch.tensor([kl_coef], dtype=torch.float64)
            return found

        return Snapshot(
            {
                "policy": policy,
                "engine": state.state_now(),
                "reward_scaler": lambda: {k: torch.from_numpy(v) for k, v in scaler.items()},
                "counters": counters,
            }
        )

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.engine.load_state_dict(state["engine"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
        self._num_iterations = int(state["counters"]["num_iterations"])
        if self.config.objective == "kl_adaptive":
            self._kl_coef = float(state["counters"]["kl_coef"])


def _mean(block: NDArray[Any]) -> float:
    return float(np.add.reduce(block, axis=None, dtype=np.float64)) / block.size


def _as_floats(norms: list[Tensor | float]) -> list[float]:
    """Returns numbers of which some may be on a device, fetched from there at once."""
    there = [norm for norm in norms if isinstance(norm, Tensor)]
    fetched = iter(torch.stack(there).tolist() if there else [])
    return [next(fetched) if isinstance(norm, Tensor) else norm for norm in norms]
