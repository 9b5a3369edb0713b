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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipper.envs.dropping import NotFinite
from clipper.envs.ending import Ending
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
    obs_layout = envs.obs_layout
    obs = obs_layout.new_rows(_BLOCK, 1)
    actions = np.empty((_BLOCK, 1, layout.size), dtype=layout.dtype)
    rewards = np.empty(_BLOCK)
    act = profiler.timed("act", policy.play(obs, None, actions).act)
    moments = RunningMoments((obs_layout.num_vector,))
    episodes: list[Episode] = []
    num_steps = 0
    older: list[NDArray[Any]] = []  # blocks of actions since the reset, if a fault would need them
    while len(episodes) < contest.episodes and num_steps < most_steps:
        count, ending = 0, None
        for t in range(int(min(_BLOCK, most_steps - num_steps))):
            obs[t, 0] = envs.obs[i]
            act(t)
            envs.note_place(i)
            try:
                reward, ending = envs.step_one(i, actions[t])
            except NotFinite as bad:
                assert envs.dropper is not None
                since_reset = np.concatenate([*older, actions[: t + 1, 0]])
                cut = envs.dropper.drop(i, bad.reward, since_reset)
                episodes += [cut] if cut is not None else []
                older.clear()
                break
            count += 1
            rewards[t] = reward
            if ending is not None:
                episodes.append(ending.episode)
                older.clear()
                break
        else:
            if envs.dropper is not None:
                older.append(actions[:count, 0].copy())
        num_steps += count
        seen = obs[:count, 0] if ending is None else np.vstack([obs[:count, 0], ending.final_obs])
        with np.errstate(over="ignore"):  # one too large for float32 is infinite, as in rollouts
            numbers = obs_layout.numbers(seen)
            _check_finite(envs, i, numbers, rewards[:count].astype(np.float32), ending)
        if count:
            moments.merge_block(obs_layout.vector(obs[:count]))
    envs.rewind(i)
    is_complete = len(episodes) == contest.episodes
    return Score(tuple(episodes), num_steps, is_complete, moments.state())


def _check_finite(
    envs: ReplayableEnvs,
    i: int,
    obs: NDArray[np.float32],
    rewards: NDArray[np.float32],
    ending: Ending | None,
) -> None:
    """Raises unless what an environment gave in some steps is finite.

    Args:
        envs: The environments.
        i: Which.
        obs: Observations acted on, and the one that the steps ended in if they ended, [n, D].
        rewards: Rewards of the steps, [n] or [n - 1].
        ending: How the episode ended in the last step, or None.
    """
    if math.isfinite(float(obs.sum())) and math.isfinite(float(rewards.sum())):
        return
    bad_obs, bad_rewards = np.argwhere(~np.isfinite(obs)), np.flatnonzero(~np.isfinite(rewards))
    if not len(bad_obs) and not len(bad_rewards):  # a sum that overflows
        return
    record = envs.cut_record(i) if ending is None else ending.episode
    if len(bad_rewards) and (not len(bad_obs) or bad_rewards[0] < bad_obs[0, 0]):
        row = int(bad_rewards[0])
        what, found = "reward", f"{rewards[row]}"
    else:
        row, column = bad_obs[0].tolist()
        what, found = "observation", f"{obs[row, column]} in {envs.obs_layout.column_name(column)}"
    step = record.episode_length - len(rewards) + row + 1
    where = f"in step {step}" if step <= record.episode_length else f"after step {step - 1}"
    raise NumericsError(
        f"every {what} must be finite, but is {found} {where} of episode {record.index} of "
        f"environment {record.env}.",
        hint="the environment gave it; find the step in its code that divides or overflows. "
        "on_nonfinite drop-episode goes on with the next episode instead.",
    )
