"""Actor-critic with experience replay: a sampler in, a better policy out (ACER, discrete actions).

Wang et al. 2016, arXiv 1611.01224, algorithms 1 and 2. `iterate` collects a rollout, learns from it,
and then from some pieces of the memory, whose actions were another policy's: importance weights are
truncated and what is cut off is corrected for, Q is learnt from Retrace targets, and every update is
held back where it would leave the policy's running average. Dimension key: T steps, N envs, B = T * N
rows, P actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipper.advantages import retrace
from clipper.config_acer import ACERConfig
from clipper.engine.average import AveragePolicy
from clipper.engine.choice import accelerate, describe_engine
from clipper.engine.rmsprop import RMSprop
from clipper.engine.state import FlatParameters
from clipper.invariants import FIRST_RATIO_TOLERANCE, check_first_ratio
from clipper.losses import acer_objective, value_loss
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RewardScaler, rewards_to_learn
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.replay import ReplayMemory, Trajectory, replay_plan
from clipper.rollout import Rollout
from clipper.rollout_metrics import rollout_metrics, value_metrics
from clipper.sampler import Sampler

# the order of the numbers that an update reports
_REPORT = ("loss/grad_norm", "loss/total", "loss/policy", "loss/value", "policy/entropy")
# and with a trust region
_TRUST_REGION_REPORT = ("policy/average_kl", "policy/trust_region_fraction")


class Judged(NamedTuple):
    """Rows to learn from, with what they are worth.

    Attributes:
        obs: Observations as the network sees them, [B, D].
        params: Distribution parameters of the policy, [B, P]; differentiable.
        action_values: Q(s, a) of every action, [B, P]; differentiable.
        values: V(s) = sum_a pi(a|s) Q(s, a), [B].
        ratio: pi(a|s) / mu(a|s) of every action, [B, P].
        targets: Q^ret of the actions that were taken, [B].
    """

    obs: Tensor
    params: Tensor
    action_values: Tensor
    values: Tensor
    ratio: Tensor
    targets: Tensor


class ACER:
    """ACER for discrete actions.

    Args:
        policy: What is trained, in place; its network values every action.
        config: Hyperparameters.
        num_envs: Environments of the sampler, N.
        seed: The run's seed; what is replayed is a function of it.
    """

    def __init__(self, policy: ActorCritic, config: ACERConfig, num_envs: int, seed: int) -> None:
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
        self.memory = ReplayMemory(config.replay_capacity // config.num_steps)
        self.reward_scaler = (
            RewardScaler(num_envs, config.gamma) if config.normalize_reward else None
        )
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Runs one turn of Algorithm 1: a rollout, an update on it, and some on the memory.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; schedules depend on it.
        """
        config = self.config
        learning_rate = config.learning_rate.at(progress)
        self._parameters.are_frozen()  # raises if all are: RMSprop leaves alone what has no gradient
        # "Call ACER on-policy"
        rollout = sampler.collect(self.policy, config.num_steps)
        trajectory = self.remember(rollout)
        judged = self.judge(trajectory)
        own = taken(judged.action_values, trajectory).detach(), judged.targets
        reports = [self.improve(trajectory, judged, learning_rate)]
        # "n <- Poisson(r); for i in {1, ..., n} do: Call ACER off-policy"
        ratios = []
        for trajectory in self.replays():
            judged = self.judge(trajectory)
            ratios.append(taken(judged.ratio, trajectory))
            reports.append(self.improve(trajectory, judged, learning_rate))
        # what was learnt of the observations counts from the next rollout on
        self.policy.merge_observations(rollout.obs)
        self._num_iterations += 1
        names = _REPORT if self.average is None else _REPORT + _TRUST_REGION_REPORT
        metrics = dict(zip(names, torch.stack(reports).mean(0).tolist(), strict=True))
        metrics |= value_metrics(*own)
        metrics |= rollout_metrics([rollout], self.policy)
        if self.reward_scaler is not None:
            metrics["value/reward_scale"] = self.reward_scaler.scale
        metrics |= self._replay_metrics(ratios)
        metrics["schedule/learning_rate"] = learning_rate
        return Iteration(metrics, rollout.episodes, rollout.num_rows)

    def remember(self, rollout: Rollout) -> Trajectory:
        """Adds a rollout of the policy as it is now to the memory and returns what is kept of it."""
        with torch.no_grad():
            obs = self.policy.normalize(rollout.obs).flatten(0, 1)  # [T, N, D] -> [B, D]
            params = self.policy.distribution_params(obs)
        behaviour = torch.log_softmax(params, -1).unflatten(0, rollout.rewards.shape)
        if not self.policy.is_bf16:  # which rounds further
            found = behaviour.gather(-1, rollout.actions.to(behaviour.device)).squeeze(-1)
            error = (found - rollout.log_probs.to(found)).exp().sub(1.0).abs().max()
            check_first_ratio(float(error), FIRST_RATIO_TOLERANCE)
        if self.reward_scaler is not None:
            done = (rollout.terminated | rollout.truncated).numpy()
            self.reward_scaler.merge_block(rollout.rewards.numpy(), done)
        trajectory = Trajectory.of(rollout, behaviour)
        self.memory.add(trajectory)
        return trajectory

    def replays(self) -> Iterator[Trajectory]:
        """Yields the pieces of experience that are replayed in this iteration."""
        config = self.config
        if len(self.memory) * config.rollout_size < config.replay_start:
            return
        for ages in replay_plan(
            self._seed,
            self._num_iterations,
            config.replay_ratio,
            len(self.memory),
            config.num_envs,
        ):
            yield self.memory.sample(ages)

    def judge(self, trajectory: Trajectory) -> Judged:
        """Returns the rows of a trajectory with what the policy as it is now makes of them."""
        policy = self.policy
        obs = policy.normalize(trajectory.obs).flatten(0, 1)  # [T, N, D] -> [B, D]
        params, action_values = policy.action_values(obs)
        with torch.no_grad(), self.profiler.part("estimate"):
            shape = trajectory.rewards.shape
            log_probs = torch.log_softmax(params, -1)
            behaviour = trajectory.behaviour.flatten(0, 1).to(params)  # [T, N, P] -> [B, P]
            ratio = (log_probs - behaviour).exp()
            values = (log_probs.exp() * action_values).sum(-1)
            terminated, truncated = (
                trajectory.terminated.to(values.device),
                trajectory.truncated.to(values.device),
            )
            # V of the true successor: the next row's, but where the rows break off
            next_values = values.view(shape).roll(-1, 0)
            is_last = truncated.clone()
            is_last[-1] = True
            next_values[is_last] = policy.values(trajectory.next_obs[is_last.cpu()])
            rewards = rewards_to_learn(
                trajectory.rewards.to(values), is_clipped=self.config.clip_reward
            )
            targets = retrace(
                rewards if self.reward_scaler is None else self.reward_scaler(rewards),
                taken(action_values, trajectory).view(shape),
                next_values,
                taken(ratio, trajectory).view(shape),
                terminated,
                truncated,
                self.config.gamma,
            )
        return Judged(obs, params, action_values, values, ratio, targets.flatten())

    def improve(self, trajectory: Trajectory, judged: Judged, learning_rate: float) -> Tensor:
        """Takes one step on all rows of a trajectory and returns its numbers, `_REPORT`."""
        loss, numbers = self.loss(trajectory, judged)
        norm = self.optimizer.minimise(loss, learning_rate)
        if self.average is not None:
            self.average.follow()
        return torch.cat([numbers.new_tensor([norm]), numbers])

    def loss(self, trajectory: Trajectory, judged: Judged) -> tuple[Tensor, Tensor]:
        """Returns the loss of a trajectory's rows and a detached row of `_REPORT` without the first.

        It is -(objective + ent_coef entropy) + vf_coef mean[0.5 (Q - Q^ret)^2]; under a trust
        region the first part is replaced by one with the gradient that was held back.
        """
        config = self.config
        entropy = self.policy.distribution.entropy(judged.params).mean()
        policy_loss = -acer_objective(
            torch.log_softmax(judged.params, -1),
            trajectory.actions.flatten().to(judged.params.device),  # [T, N] -> [B]
            judged.ratio,
            judged.action_values,
            judged.values,
            judged.targets,
            config.importance_clip,
        )
        critic_loss = value_loss(taken(judged.action_values, trajectory), judged.targets)
        actor_loss = policy_loss - config.ent_coef * entropy
        loss = actor_loss + config.vf_coef * critic_loss
        report = [loss, policy_loss, critic_loss, entropy]
        if self.average is not None:
            actor_loss, found = self.average.hold_back(
                actor_loss, judged.params, judged.obs, config.trust_region_delta
            )
            loss = actor_loss + config.vf_coef * critic_loss
            report += found
        return loss, torch.stack(report).detach()

    def _replay_metrics(self, ratios: list[Tensor]) -> Metrics:
        metrics = {
            "replay/updates": float(len(ratios)),
            "replay/timesteps": float(len(self.memory) * self.config.rollout_size),
        }
        if ratios:
            ratio = torch.cat(ratios)
            metrics["replay/ratio_mean"] = float(ratio.mean())
            cut = ratio > self.config.importance_clip
            metrics["replay/truncated_fraction"] = float(cut.double().mean())
        return metrics

    def use_threads(self, num_threads: int) -> None:
        """Does nothing: torch has threads of its own."""

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `reference`, `native avx2 + reference`."""
        return "reference" if self._native is None else f"{self._native.describe()} + reference"

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        return describe_engine(
            self.policy, self.config, self._native, "values of every action are not in C++"
        )

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns all that changes during training, by part; the memory alone is not copied."""
        scaler = {} if self.reward_scaler is None else self.reward_scaler.state_dict()
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "memory": self.memory.state_dict(),
            "reward_scaler": {k: torch.from_numpy(v) for k, v in scaler.items()},
            "counters": {"num_iterations": torch.tensor([self._num_iterations])},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.memory.load_state_dict(state["memory"])
        if self.reward_scaler is not None:
            scaler = {k: v.numpy() for k, v in state["reward_scaler"].items()}
            self.reward_scaler.load_state_dict(scaler)
        self._num_iterations = int(state["counters"]["num_iterations"])


def taken(numbers: Tensor, trajectory: Trajectory) -> Tensor:
    """Returns of every row the number of the action that was taken, [B, P] -> [B]."""
    actions = trajectory.actions.flatten().to(numbers.device)  # [T, N] -> [B]
    return numbers.gather(-1, actions[:, None]).squeeze(-1)
