"""The cross-entropy method: a sampler in, a better policy out, without a gradient.

Rubinstein 1999; with extra variance for reinforcement learning, Szita and Lorincz 2006, "Learning
Tetris using the noisy cross-entropy method". `iterate` is one generation: draw candidates around the
mean, score each by its return, fit mean and variance to the best. Dimension key: C candidates,
K numbers of a policy's parameters, E elites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.config_relatives import CEMConfig
from clipper.engine.choice import accelerate, describe_engine
from clipper.engine.state import refuse_frozen
from clipper.metrics import Episode, Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.vectors import mode_parameters, read_vector, write_vector
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.randomness import Purpose, normal
from clipper.sampler import Sampler
from clipper.scoring import Score


class CEM:
    """CEM over the parameters that the most likely action depends on; the policy is their mean.

    Args:
        policy: What is searched for, in place.
        config: Settings.
        num_envs: Environments of the sampler, N; what is found depends on it, for each has episodes
            of its own.
        seed: The run's seed; candidates are a function of it.
    """

    def __init__(self, policy: ActorCritic, config: CEMConfig, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.config = config
        self._native = accelerate(policy, config)
        self._parameters = mode_parameters(policy)
        self.mean: NDArray[np.float64] = read_vector(self._parameters).double().cpu().numpy()
        self.variance = np.full_like(self.mean, config.initial_std**2)
        self.profiler: Profiler = NO_STOPWATCH
        self._seed = seed
        self._num_iterations = 0
        self._num_timesteps = 0

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Plays one generation and returns what happened.

        Args:
            sampler: Plays candidates in its environments.
            progress: Share of the run that is done, 0 to 1; the extra variance follows it.
        """
        refuse_frozen(self.policy, self._parameters)
        config = self.config
        extra_std = config.extra_std.at(progress)
        # "draw N samples from the distribution"
        candidates = self.draw(extra_std)
        # "evaluate them"; what is left of the run's steps is never exceeded
        left = config.total_timesteps - self._num_timesteps
        scores = sampler.score(
            self.policy, candidates, config.num_score_episodes, left if left > 0 else None
        )
        metrics = {"schedule/extra_std": extra_std}
        # "and select the best": mean and variance of the elite; of a generation that the run's end
        # cuts, only those with short episodes are known, and so it counts for nothing
        if len(scores) == len(candidates) and all(s.is_complete for s in scores.values()):
            returns = [scores[index].mean_return for index in range(len(candidates))]
            metrics |= self.fit(candidates, np.array(returns))
        write_vector(self._parameters, torch.from_numpy(self.mean).to(self._parameters[0]))
        # what was seen of the observations counts from the next generation on
        if self.policy.normalizer is not None:
            for score in scores.values():
                self.policy.normalizer.merge_moments(score.moments)
        episodes, num_timesteps = self._episodes(scores)
        metrics |= self._metrics(episodes, num_timesteps)
        self._num_iterations += 1
        self._num_timesteps += num_timesteps
        return Iteration(metrics, episodes, num_timesteps)

    def draw(self, extra_std: float) -> NDArray[np.float32]:
        """Returns a generation, normal around the mean with the variance and the extra one, [C, K].

        Every number is a function of the seed, the generation, the candidate and its place.
        """
        index = np.arange(self.config.population_size)
        noise = normal(
            self._seed, Purpose.CANDIDATE, index, self._num_iterations, len(self.mean)
        ).astype(np.float64)
        std = np.sqrt(self.variance + extra_std**2)
        return (self.mean + std * noise).astype(np.float32)

    def fit(self, candidates: NDArray[np.float32], returns: NDArray[np.float64]) -> Metrics:
        """Sets mean and variance to those of the elite, and returns how candidates scored.

        The elite is the `elite_fraction` of the candidates with the highest returns, one at least;
        of equals the earlier ones.

        Args:
            candidates: What was drawn, [C, K].
            returns: The mean return of each, [C].
        """
        num_elites = max(1, round(self.config.elite_fraction * len(returns)))
        best = np.argsort(-returns, kind="stable")[:num_elites]
        elite = candidates[best].astype(np.float64)
        self.mean = elite.mean(axis=0)
        self.variance = elite.var(axis=0)
        return {
            "search/score_mean": float(returns.mean()),
            "search/score_elite": float(returns[best].mean()),
            "search/score_best": float(returns.max()),
            "search/num_elites": float(num_elites),
            "search/std": float(np.sqrt(self.variance).mean()),
        }

    def _episodes(self, scores: Mapping[int, Score]) -> tuple[tuple[Episode, ...], int]:
        """Returns the episodes in the order of their candidates, as if played so, and all steps."""
        step = 0
        found = []
        for score in scores.values():
            at = step
            for episode in score.episodes:
                at += episode.episode_length
                found.append(replace(episode, step=self._num_timesteps + at))
            step += score.num_steps
        return tuple(found), step

    def _metrics(self, episodes: tuple[Episode, ...], num_timesteps: int) -> Metrics:
        if not episodes:
            return {}
        steps = sum(episode.episode_length for episode in episodes)
        cut = sum(episode.truncated for episode in episodes)
        return {
            "rollout/reward_mean": sum(e.episode_return for e in episodes) / steps,
            "rollout/truncated_fraction": cut / len(episodes),
        }

    def use_threads(self, num_threads: int) -> None:
        """Does nothing: there is no update to share."""

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `reference`, `native avx2 + numpy`."""
        return "reference" if self._native is None else f"{self._native.describe()} + numpy"

    def describe_engine(self) -> str:
        """Returns which engine computes, and why if it is not the native one."""
        if self._native is not None:
            return f"engine: {self._native.describe()} acts, numpy searches"
        return describe_engine(self.policy, self.config, None)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part."""
        return {
            "policy": {k: v.clone() for k, v in self.policy.state_dict().items()},
            "search": {
                "mean": torch.from_numpy(self.mean.copy()),
                "variance": torch.from_numpy(self.variance.copy()),
            },
            "counters": {
                "num_iterations": torch.tensor([self._num_iterations]),
                "num_timesteps": torch.tensor([self._num_timesteps]),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets what `state_dict` returned."""
        self.policy.load_state(dict(state["policy"]))
        self.mean = state["search"]["mean"].numpy().copy()
        self.variance = state["search"]["variance"].numpy().copy()
        self._num_iterations = int(state["counters"]["num_iterations"])
        self._num_timesteps = int(state["counters"]["num_timesteps"])
