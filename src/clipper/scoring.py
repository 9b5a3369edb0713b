"""Parameter vectors of a policy and environments in, the episodes that each vector played out.

Candidate c plays all its episodes in environment c mod N, one candidate after the other, so that
every episode's seed is a function of the run's seed, the environment and how many episodes it had:
who steps which environments changes nothing. Dimension key: C candidates, K numbers of each, N envs,
D observation size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipper.envs.replay import ReplayableEnvs
from clipper.errors import NumericsError
from clipper.metrics import Episode
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.normalize import RunningMoments
from clipper.policies.vectors import mode_parameters, read_vector, write_vector
from clipper.profiling import Profiler

# steps that are looked at together; an episode may take more
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Score:
    """What a candidate did.

    Attributes:
        episodes: Those it finished, in order; their `step` is 0.
        num_steps: Steps it took, those of an episode that was cut included.
        is_complete: True if it finished all its episodes.
        moments: Count, mean and summed squared deviations of the raw observations it acted on, as
            `RunningMoments.state`, [1 + 2 D].
    """

    episodes: tuple[Episode, ...]
    num_steps: int
    is_complete: bool
    moments: NDArray[np.float64]

    @property
    def mean_return(self) -> float:
        """Mean return of its episodes, raw rewards."""
        return math.fsum(e.episode_return for e in self.episodes) / len(self.episodes)


@dataclass(frozen=True, slots=True)
class Contest:
    """What candidates are asked to do.

    Attributes:
        vectors: Values of the parameters that the most likely action depends on, float32 [C, K].
        episodes: How many each plays.
        num_envs: Environments of the run, N.
        budget: Steps in all; environments have equal shares, and one that has used its share cuts
            the episode it is in. None for no limit.
    """

    vectors: NDArray[np.float32]
    episodes: int
    num_envs: int
    budget: int | None = None

    def candidates_of(self, env: int) -> range:
        """Returns the candidates that play in an environment."""
        return range(env, len(self.vectors), self.num_envs)

    def share_of(self, env: int) -> float:
        """Returns the steps that an environment may take."""
        if self.budget is None:
            return math.inf
        return self.budget * (env + 1) // self.num_envs - self.budget * env // self.num_envs


def score_candidates(
    policy: ActorCritic, envs: ReplayableEnvs, contest: Contest, profiler: Profiler
) -> dict[int, Score]:
    """Returns what the candidates of these environments did, by their index.

    Those that an environment had no steps left for are missing. The policy is given back as it was,
    and every environment stands at the start of an episode.

    Args:
        policy: Whose parameters the vectors are; takes the most likely action, with frozen
            normalisation.
        envs: The environments, started.
        contest: What is asked.
        profiler: What acting and stepping are timed with.

    Raises:
        EnvironmentFault: An environment raised or broke the contract.
        NumericsError: An observation or a return is not finite.
    """
    parameters = mode_parameters(policy)
    before = read_vector(parameters)
    found: dict[int, Score] = {}
    try:
        for i in range(envs.num_envs):
            left = contest.share_of(envs.first_env + i)
            for candidate in contest.candidates_of(envs.first_env + i):
                if left <= 0:
                    break
                vector = torch.from_numpy(contest.vectors[candidate]).to(before)
                score = _score(policy, parameters, vector, envs, i, contest, left, profiler)
                found[candidate] = score
                left -= score.num_steps
    finally:
        write_vector(parameters, before)
    return found


def _score(
    policy: ActorCritic,
    parameters: Sequence[nn.Parameter],
    vector: torch.Tensor,
    envs: ReplayableEnvs,
    i: int,
    contest: Contest,
    most_steps: float,
    profiler: Profiler,
) -> Score:
    write_vector(parameters, vector)
    layout = envs.action_layout
    obs = np.empty((_BLOCK, 1, envs.obs_layout.size), dtype=np.float32)
    actions = np.empty((_BLOCK, 1, layout.size), dtype=layout.dtype)
    act = profiler.timed("act", policy.play(obs, None, actions).act)
    moments = RunningMoments((envs.obs_layout.size,))
    episodes: list[Episode] = []
    num_steps = 0
    while len(episodes) < contest.episodes and num_steps < most_steps:
        count = 0
        for t in range(int(min(_BLOCK, most_steps - num_steps))):
            obs[t, 0] = envs.obs[i]
            act(t)
            _, ending = envs.step_one(i, actions[t])
            count += 1
            if ending is not None:
                episodes.append(ending.episode)
                break
        num_steps += count
        _check_finite(envs, i, obs[:count], episodes)
        moments.merge_block(obs[:count])
    envs.rewind(i)
    is_complete = len(episodes) == contest.episodes
    return Score(tuple(episodes), num_steps, is_complete, moments.state())


def _check_finite(
    envs: ReplayableEnvs, i: int, obs: NDArray[np.float32], episodes: Sequence[Episode]
) -> None:
    """Raises unless observations and the last return are finite."""
    last = episodes[-1].episode_return if episodes else 0.0
    if math.isfinite(float(obs.sum())) and math.isfinite(last):
        return
    if not np.isfinite(obs).all() or not math.isfinite(last):
        number = episodes[-1].index if episodes else 0
        raise NumericsError(
            "every observation and reward must be finite, but one is not "
            f"in environment {envs.first_env + i}, at or after episode {number}.",
            hint="the environment gave it; find the step in its code that divides or overflows.",
        )
