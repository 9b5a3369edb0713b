"""A policy and environments in, rollouts out: what collects, and the collector of this process.

Dimension key: T steps, N envs, A action size, F episodes that ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.block_checks import BoundsWatch, check_finite
from clipper.envs.replay import Mark, ReplayableEnvs
from clipper.faults import Fault
from clipper.policies.accelerator import Play
from clipper.policies.actor_critic import ActorCritic
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.randomness import Purpose
from clipper.rollout import Rollout
from clipper.scoring import Contest, Score, score_candidates
from clipper.spaces import ObservationLayout


class Sampler(Protocol):
    """Whatever collects rollouts: environments in this process, in workers, on a cluster."""

    num_envs: int
    obs_layout: ObservationLayout
    action_layout: ActionLayout

    def collect(self, policy: ActorCritic, num_steps: int, *, until_end: bool = False) -> Rollout:
        """Returns what the policy does in `num_steps` steps of every environment.

        Args:
            policy: Acts.
            num_steps: T.
            until_end: Stop sooner, when an episode ends; of one environment alone.
        """
        ...

    def score(
        self,
        policy: ActorCritic,
        vectors: NDArray[np.float32],
        episodes: int,
        budget: int | None = None,
    ) -> dict[int, Score]:
        """Returns what a policy does with each of C parameter vectors [C, K], by their index."""
        ...

    def take_faults(self) -> list[Fault]:
        """Returns what went wrong in environments that go on, since this was last asked."""
        ...

    def mark(self) -> SamplerMark:
        """Returns this point in time, cheaply, for `state_dict`."""
        ...

    def state_dict(self, mark: SamplerMark | None = None) -> dict[str, NDArray[Any]]:
        """Returns all that is needed to go on from a point in time, by default from now."""
        ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> str | None:
        """Goes on from a saved point; returns why it is not exact, or None."""
        ...

    def close(self) -> None:
        """Closes the environments."""
        ...


def block_shapes(
    num_steps: int, num_envs: int, obs_layout: ObservationLayout, action_layout: ActionLayout
) -> list[tuple[tuple[int, ...], Any]]:
    """Returns shapes and types of the blocks that are filled step by step: [T, N, ...].

    Observations acted on, sampled actions, raw rewards, `terminated` and `truncated`.
    """
    shape = (num_steps, num_envs)
    return [
        ((*shape, obs_layout.size), obs_layout.row_type),
        ((*shape, action_layout.size), action_layout.dtype),
        (shape, np.float32),
        (shape, np.bool_),
        (shape, np.bool_),
    ]


class Board(Protocol):
    """Memory that another process can see.

    Attributes:
        position: The row and the environment that are being filled, int64 [2]; how many rows there are
            and -1 when all are.
        place: Where scoring is, int64 [5]: environment, episode, seed, step, moves.
    """

    position: NDArray[np.int64]
    place: NDArray[np.int64]

    def blocks(self, num_steps: int) -> tuple[NDArray[Any], ...]:
        """Returns blocks of `block_shapes`, endings all False; the same memory every time."""
        ...


@dataclass(frozen=True, slots=True)
class SamplerMark:
    """A point in time of a sampler."""

    steps: int
    envs: Mark | None


class LocalSampler:
    """Collects from environments stepped one after the other in this process.

    Args:
        envs: The environments.
        seed: The run's seed; the noise of an action is a function of it, the env and the step.
        num_envs_in_all: Environments of the run, if others are stepped elsewhere, or None: then
            whoever has them all looks at bounds.
    """

    def __init__(self, envs: ReplayableEnvs, seed: int, num_envs_in_all: int | None = None) -> None:
        self.num_envs = envs.num_envs
        self._num_envs_in_all = num_envs_in_all or envs.num_envs
        self.obs_layout = envs.obs_layout
        self.action_layout = envs.action_layout
        self._envs = envs
        self._seed = seed
        self._steps = 0
        self._started = False
        self._profiler: Profiler = NO_STOPWATCH
        self._board: Board | None = None
        self._watch = BoundsWatch(self.obs_layout) if num_envs_in_all is None else None

    def count_time(self, profiler: Profiler) -> None:
        """Has the time in environments and in the policy counted from now on, or no more."""
        self._profiler = profiler
        self._envs.count_time(profiler)

    def collect(self, policy: ActorCritic, num_steps: int, *, until_end: bool = False) -> Rollout:
        """Returns what the policy does in `num_steps` steps of every environment.

        Args:
            policy: Acts.
            num_steps: T.
            until_end: Stop sooner, when an episode ends; of one environment alone.

        Raises:
            EnvironmentFault: An environment raised or broke the contract.
            NumericsError: A number in the block is not finite.
        """
        assert not until_end or self._num_envs_in_all == 1
        if not self._started:
            self._envs.reset()
            self._started = True
        first_step = self._steps
        positions = self._envs.positions()
        envs = self._envs
        obs, actions, rewards, terminated, truncated = self._blocks(num_steps)
        with self._profiler.part("act"):
            noise = policy.noise(
                self._seed, Purpose.ACTION, first_step, num_steps, self.num_envs, envs.first_env
            )
            play = policy.play(obs, noise, actions)
        endings = envs.collect(play.act, obs, actions, rewards, terminated, truncated, until_end)
        if self._board is not None:
            # what follows is nobody's step, however long it takes
            self._board.position[:] = endings[-1][0] + 1 if until_end and endings else num_steps, -1
        if until_end and endings:
            num_steps = endings[-1][0] + 1
            obs, actions, rewards = obs[:num_steps], actions[:num_steps], rewards[:num_steps]
            terminated, truncated = terminated[:num_steps], truncated[:num_steps]
        if self._board is not None:
            envs.own(actions)
        if envs.lives_lost:
            # in a copy: who looks at the board after a crash finds the episodes that truly ended
            terminated = terminated.copy()
            terminated[tuple(zip(*envs.lives_lost, strict=True))] = True
        self._steps += num_steps
        finals = np.stack([ending.final_obs for _, ending in endings]) if endings else obs[:0, 0]
        final_at = [(t, ending.env) for t, ending in endings]
        for t, ending in endings:
            ending.episode.step = (first_step + t + 1) * self._num_envs_in_all
        rollout = self._judged(
            policy,
            play,
            positions,
            obs=torch.from_numpy(obs),
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(rewards),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            final_obs=torch.from_numpy(finals),
            final_at=torch.from_numpy(np.array(final_at, dtype=np.int64).reshape(-1, 2)),
            last_obs=torch.from_numpy(envs.obs.copy()),
            episodes=tuple(ending.episode for _, ending in endings),
        )
        if self._watch is not None:
            self._watch.look(rollout, policy, first_step)
        return rollout

    def take_faults(self) -> list[Fault]:
        """Returns which episodes a number that is not finite ended since this was last asked."""
        return self._envs.take_faults()

    def show_on(self, board: Board) -> None:
        """Lays what is collected from now on where another process can see it."""
        self._board = board
        self._envs.position = board.position
        self._envs.place = board.place

    def _blocks(self, num_steps: int) -> tuple[NDArray[Any], ...]:
        """Returns room for observations, actions, rewards and the two kinds of endings, [T, N]."""
        if self._board is not None:
            return self._board.blocks(num_steps)
        shapes = block_shapes(num_steps, self.num_envs, self.obs_layout, self.action_layout)
        return tuple(np.zeros(shape, dtype) for shape, dtype in shapes)

    def begin_at(self, steps: int, episodes: NDArray[np.int64]) -> None:
        """Starts these episodes, int64 [N], after so many steps of the run."""
        self._steps = steps
        self._started = True
        self._envs.begin_at(episodes)

    def standing(self) -> dict[str, NDArray[Any]]:
        """Returns each environment's episode index, steps and return in it, [N] each."""
        return self._envs.standing()

    def _judged(
        self,
        policy: ActorCritic,
        play: Play,
        positions: tuple[list[int], list[int]],
        **block: Any,
    ) -> Rollout:
        """Returns the block with log-probabilities and values."""
        with self._profiler.part("act"):
            log_probs, values = play.judgement(len(block["rewards"]))
            at = (block["final_obs"], block["final_at"], block["last_obs"])
            next_values = policy.next_values(values, *at)
        rollout = Rollout(log_probs=log_probs, values=values, next_values=next_values, **block)
        check_finite(rollout, policy, *positions, self._envs.first_env)
        return rollout

    def score(
        self,
        policy: ActorCritic,
        vectors: NDArray[np.float32],
        episodes: int,
        budget: int | None = None,
    ) -> dict[int, Score]:
        """Returns what a policy does with each of C parameter vectors, by their index.

        Args:
            policy: Takes the most likely actions; it is given back with its own parameters.
            vectors: Values of the parameters those actions depend on, float32 [C, K].
            episodes: How many each vector plays, whole ones.
            budget: Steps in all, after which the rest is cut; None for no limit.

        Raises:
            EnvironmentFault: An environment raised or broke the contract.
            NumericsError: An observation or a return is not finite.
        """
        if not self._started:
            self._envs.reset()
            self._started = True
        contest = Contest(vectors, episodes, self._num_envs_in_all, budget)
        found = score_candidates(policy, self._envs, contest, self._profiler)
        self._steps += 1  # what tells this point in time from the one before
        return dict(sorted(found.items()))

    def mark(self) -> SamplerMark:
        """Returns this point in time, cheaply, for `state_dict`."""
        return SamplerMark(self._steps, self._envs.mark() if self._started else None)

    def state_dict(self, mark: SamplerMark | None = None) -> dict[str, NDArray[Any]]:
        """Returns all that is needed to go on from a point in time, by default from now."""
        mark = mark or self.mark()
        state = {"steps": np.array([mark.steps], dtype=np.int64)}
        return state if mark.envs is None else state | self._envs.state_dict(mark.envs)

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> str | None:
        """Goes on from a saved point by replaying each environment's actions since its reset.

        Returns:
            Why the environments are not exactly where they were, or None if they are.
        """
        self._steps = int(state["steps"][0])
        self._started = "episodes" in state
        return self._envs.load_state_dict(state) if self._started else None

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()
