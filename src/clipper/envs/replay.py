"""Where environments are in their episodes in, a state that brings fresh ones there out.

An environment is kept as its episode, which gives the seed, and the actions since its reset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.metrics import Episode
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.spaces import ActionLayout, Float32, ObservationLayout


@dataclass(slots=True)
class Ending:
    """How an episode of one environment ended in a step.

    Attributes:
        env: Index of the environment among those stepped together.
        final_obs: The observation the episode truly ended in, float32 [D].
        episode: Its record; `step` is left at 0 for the sampler to fill.
    """

    env: int
    final_obs: Float32
    episode: Episode


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in time of N environments: episodes, lengths, returns, observations, actions so far.

    The actions are blocks [t, N, A], the last of which ends at this point.
    """

    log: list[NDArray[Any]]
    episodes: list[int]
    lengths: list[int]
    returns: list[float]
    obs: Float32


class ReplayableEnvs(ABC):
    """N environments that are brought to a point in time by playing their actions again.

    Args:
        num_envs: How many.
        first_env: Index of the first one in the run.
        obs_layout: How observations lie in a row.
        action_layout: How actions are sampled.

    Attributes:
        obs: The observation each environment is in now, float32 [N, D]; overwritten by `step`.
    """

    # an episode longer than this is not kept for replay: memory must not grow without end
    MAX_REPLAY_STEPS = 200_000

    # of the episode each environment is in, [N]
    _returns: MutableSequence[float] | NDArray[np.float64]
    _lengths: MutableSequence[int] | NDArray[np.int64]
    _episodes: MutableSequence[int] | NDArray[np.int64]

    def __init__(
        self,
        num_envs: int,
        first_env: int,
        obs_layout: ObservationLayout,
        action_layout: ActionLayout,
    ) -> None:
        self.num_envs = num_envs
        self.first_env = first_env
        self.obs_layout = obs_layout
        self.action_layout = action_layout
        self.obs: Float32 = np.zeros((num_envs, obs_layout.size), dtype=np.float32)
        # blocks [t, N, A] of actions
        self._log: list[NDArray[Any]] = []
        self._profiler: Profiler = NO_STOPWATCH
        # the row and the environment that `collect` is at, for whoever watches from outside
        self.position: NDArray[np.int64] = np.zeros(2, dtype=np.int64)

    @abstractmethod
    def step(
        self,
        actions: NDArray[Any],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> list[Ending]:
        """Steps every environment once and returns the endings."""

    @abstractmethod
    def step_one(self, i: int, action: NDArray[Any]) -> tuple[float, Ending | None]:
        """Steps one environment and returns its raw reward, and how its episode ended if it did.

        It is not kept for replay: who steps environments one by one leaves them at the start of an
        episode.

        Args:
            i: Which.
            action: A sampled action, float32 or int64 [1, A].

        Raises:
            EnvironmentFault: The environment raised or broke the contract; names env and step.
        """

    def rewind(self, i: int) -> None:
        """Starts the next episode in an environment if it is in the middle of one."""
        if self._lengths[i]:
            self._begin(i)

    def collect(
        self,
        act: Callable[[int], None],
        obs: Float32,
        actions: NDArray[Any],
        rewards: Float32,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        until_end: bool = False,
    ) -> list[tuple[int, Ending]]:
        """Acts and steps until blocks [T, N, ...] are full; returns endings with their steps.

        Args:
            act: Fills row t of the actions from row t of the observations.
            obs: Receives the observations acted on, float32 [T, N, D].
            actions: Receives the sampled actions, [T, N, A]; kept for replay.
            rewards: Receives the raw rewards, float32 [T, N].
            terminated: All False; receives where the environment's own rules ended the episode,
                [T, N].
            truncated: All False; receives where a limit cut the episode off, [T, N].
            until_end: Stop sooner, after the step in which an episode ends.

        Raises:
            EnvironmentFault: An environment raised or broke the contract; names env and step.
        """
        act = self._profiler.timed("act", act)
        found: list[tuple[int, Ending]] = []
        rows = zip(obs, actions, rewards, terminated, truncated, strict=True)
        for t, (obs_N, action_N, reward_N, terminated_N, truncated_N) in enumerate(rows):
            obs_N[...] = self.obs
            act(t)
            self.position[0] = t
            for ending in self.step(action_N, reward_N, terminated_N, truncated_N):
                found.append((t, ending))
            if until_end and found:
                break
        return found

    def count_time(self, profiler: Profiler) -> None:
        """Has the time of acting and within environments counted from now on, or no more."""
        self._profiler = profiler

    @abstractmethod
    def close(self) -> None:
        """Closes the environments."""

    @abstractmethod
    def _begin(self, i: int) -> None:
        """Starts the next episode in an environment."""

    @abstractmethod
    def _replay(self, i: int, actions: NDArray[Any]) -> bool:
        """Plays actions again as `step` did; returns False if the episode ends or goes wrong."""

    def own(self, block: NDArray[Any]) -> None:
        """Copies actions that are kept for replay out of a block whose memory will be used again."""
        self._log = [np.array(e) if np.may_share_memory(e, block) else e for e in self._log]

    def begin_at(self, episodes: NDArray[np.int64]) -> None:
        """Starts these episodes, int64 [N], whatever was before."""
        for i, episode in enumerate(episodes):
            self._episodes[i] = int(episode) - 1
        self.reset()

    def standing(self) -> dict[str, NDArray[Any]]:
        """Returns each environment's episode index, steps and return in it, [N] each."""
        return {
            "episodes": np.array(self._episodes, dtype=np.int64),
            "lengths": np.array(self._lengths, dtype=np.int64),
            "returns": np.array(self._returns, dtype=np.float64),
        }

    def reset(self) -> None:
        """Starts the next episode in every environment."""
        self._log.clear()
        for i in range(self.num_envs):
            self._begin(i)

    def positions(self) -> tuple[list[int], list[int]]:
        """Returns each environment's episode index and the steps taken in it."""
        return _listed(self._episodes), _listed(self._lengths)

    def mark(self) -> Mark:
        """Returns this point in time, cheaply, for `state_dict` to describe now or later."""
        episodes, lengths = self.positions()
        self._forget(max((n for n in lengths if n <= self.MAX_REPLAY_STEPS), default=0))
        return Mark(
            log=self._log.copy(),
            episodes=episodes,
            lengths=lengths,
            returns=_listed(self._returns),
            obs=self.obs.copy(),
        )

    def _forget(self, keep: int) -> None:
        """Drops the blocks of actions that none of the last `keep` steps is in."""
        for i in range(len(self._log) - 1, -1, -1):
            if keep <= 0:
                del self._log[: i + 1]
                return
            keep -= len(self._log[i])

    def state_dict(self, mark: Mark | None = None) -> dict[str, NDArray[Any]]:
        """Returns what `load_state_dict` needs to bring fresh environments to a point in time.

        An environment is kept as the index of its episode (which gives the seed) and the actions
        since its reset; `obs` is there to check the replay.

        Args:
            mark: The point in time, or None for now.
        """
        mark = mark or self.mark()
        log = np.concatenate([self._no_actions(0), *mark.log])
        replayed = [length if length <= len(log) else 0 for length in mark.lengths]
        parts = [log[len(log) - count :, i] for i, count in enumerate(replayed)]
        return {
            "actions": np.concatenate(parts),
            "episodes": np.array(mark.episodes, dtype=np.int64),
            "lengths": np.array(mark.lengths, dtype=np.int64),
            "replayed": np.array(replayed, dtype=np.int64),
            "returns": np.array(mark.returns, dtype=np.float64),
            "obs": mark.obs,
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> str | None:
        """Replays every environment to the saved point.

        Returns:
            None if every environment reached the very observation and return that were saved;
            otherwise why not, in words. Environments that did not are at the start of their next
            episode.
        """
        log = self._no_actions(int(state["replayed"].max(initial=0)))
        self._log = [log]
        failed = []
        start = 0
        for i in range(self.num_envs):
            count = int(state["replayed"][i])
            actions = state["actions"][start : start + count]
            start += count
            self._episodes[i] = int(state["episodes"][i]) - 1
            self._begin(i)
            complete = count == int(state["lengths"][i]) and self._replay(i, actions)
            if (
                complete
                and np.array_equal(self.obs[i], state["obs"][i])
                and self._returns[i] == float(state["returns"][i])
            ):
                log[len(log) - count :, i] = actions
            else:
                failed.append(i)
                self._begin(i)
        if not failed:
            return None
        return (
            f"{len(failed)} of {self.num_envs} environments could not be replayed to the same "
            "observation and return and began new episodes"
        )

    def _no_actions(self, num_steps: int) -> NDArray[Any]:
        """Returns a block of zeros, [num_steps, N, A]."""
        layout = self.action_layout
        return np.zeros((num_steps, self.num_envs, layout.size), dtype=layout.dtype)


def _listed(numbers: Any) -> list[Any]:
    """Returns the numbers of an array as Python's own, or a list's copy."""
    return numbers.tolist() if isinstance(numbers, np.ndarray) else list(numbers)
