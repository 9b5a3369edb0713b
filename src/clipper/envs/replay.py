"""Where environments are in their episodes in, a state that brings fresh ones there out.

An environment is kept as its episode, which gives the seed, and the actions since its reset. One that
gives a number which is not finite may be let go on: see `clipper.envs.dropping`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.envs.dropping import Blocks, Dropper, NotFinite
from clipper.envs.ending import Ending as Ending
from clipper.faults import Fault, FaultLedger
from clipper.leaves import Float32, Rows
from clipper.metrics import Episode
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.randomness import EpisodeSeeds
from clipper.spaces import ObservationLayout


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in time of N environments: episodes, lengths, returns, observations, actions so far.

    The actions are blocks [t, N, A], the last of which ends at this point.
    """

    log: list[NDArray[Any]]
    episodes: list[int]
    lengths: list[int]
    returns: list[float]
    obs: Rows


class ReplayableEnvs(ABC):
    """N environments that are brought to a point in time by playing their actions again.

    Args:
        num_envs: How many.
        first_env: Index of the first one in the run.
        obs_layout: How observations lie in a row.
        action_layout: How actions are sampled.

    Attributes:
        obs: The observation each environment is in now, [N, D]; overwritten by `step`.
        dropper: Ends episodes in which a number is not finite, or None: such numbers then stand in
            the blocks like others.
    """

    # an episode longer than this is not kept for replay: memory must not grow without end
    MAX_REPLAY_STEPS = 200_000
    # where an episode has just begun there is nothing to replay; so many steps of it are tried twice
    TRIED_STEPS = 64
    # nobody waits for a slow simulator: so long for the first time in all, and as long for the second
    MAX_TRIED_SECONDS = 0.5

    # of the episode each environment is in, [N]
    _returns: MutableSequence[float] | NDArray[np.float64]
    _lengths: MutableSequence[int] | NDArray[np.int64]
    _episodes: MutableSequence[int] | NDArray[np.int64]
    _seeds: EpisodeSeeds

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
        self.obs: Rows = obs_layout.new_rows(num_envs)
        # blocks [t, N, A] of actions
        self._log: list[NDArray[Any]] = []
        # of which so many are older than the rollout that is being collected
        self._num_older = 0
        self.dropper: Dropper | None = None
        self._profiler: Profiler = NO_STOPWATCH
        # rows and environments in which a life was lost since `collect` began, if that is looked for
        self.lives_lost: list[tuple[int, int]] = []
        # the row and the environment that `collect` is at, for whoever watches from outside
        self.position: NDArray[np.int64] = np.zeros(2, dtype=np.int64)
        # of who steps them one by one: environment, episode, seed, step (0: reset), moves
        self.place: NDArray[np.int64] = np.zeros(5, dtype=np.int64)

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
            NotFinite: With a dropper, if the observation or the reward is not finite.
        """

    def rewind(self, i: int) -> None:
        """Starts the next episode in an environment if it is in the middle of one."""
        if self._lengths[i]:
            self._begin(i)
            self._check_first(i)

    def drop_episodes(self, ledger: FaultLedger) -> None:
        """Ends episodes in which a number is not finite from now on, and counts them there."""
        self.dropper = Dropper(self, ledger)

    def take_faults(self) -> list[Fault]:
        """Returns what went wrong since this was last asked; without a dropper nothing."""
        if self.dropper is None:
            return []
        found, self.dropper.faults = self.dropper.faults, []
        return found

    def collect(
        self,
        act: Callable[[int], None],
        obs: Rows,
        actions: NDArray[Any],
        rewards: Float32,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        until_end: bool = False,
    ) -> list[tuple[int, Ending]]:
        """Acts and steps until blocks [T, N, ...] are full; returns endings with their steps.

        Args:
            act: Fills row t of the actions from row t of the observations.
            obs: Receives the observations acted on, [T, N, D].
            actions: Receives the sampled actions, [T, N, A]; kept for replay.
            rewards: Receives the raw rewards, float32 [T, N].
            terminated: All False; receives where the environment's own rules ended the episode,
                [T, N].
            truncated: All False; receives where a limit cut the episode off, [T, N].
            until_end: Stop sooner, after the step in which an episode ends.

        Raises:
            EnvironmentFault: An environment raised or broke the contract; names env and step.
            NumericsError: With a dropper, if a number was not finite for the third time.
        """
        act = self._profiler.timed("act", act)
        self.lives_lost.clear()
        if self.dropper is not None:
            blocks = Blocks(obs, actions, rewards, terminated, truncated)
            return self._collect_good(act, blocks, until_end, self.dropper)
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

    def _collect_good(
        self, act: Callable[[int], None], blocks: Blocks, until_end: bool, dropper: Dropper
    ) -> list[tuple[int, Ending]]:
        """As `collect`, with every number looked at."""
        found: list[tuple[int, Ending]] = []
        self._num_older = len(self._log)
        for t, action_N in enumerate(blocks.actions):
            blocks.obs[t] = self.obs
            act(t)
            self.position[0] = t
            self._log.append(action_N[None])
            for i in range(self.num_envs):
                self.position[1] = i
                try:
                    blocks.rewards[t, i], ending = self.step_one(i, action_N[i : i + 1])
                except NotFinite as bad:
                    if until_end and t and self._lengths[i]:
                        # the episode has ended one row before, and the rollout with it
                        cut = dropper.cut(t, i, bad.reward, blocks)
                        assert cut is not None
                        self._log.pop()
                        return [*found, (t - 1, cut)]
                    found += dropper.play_again(t, i, bad.reward, act, blocks)
                    continue
                if ending is not None:
                    blocks.terminated[t, i] = not ending.episode.truncated
                    blocks.truncated[t, i] = ending.episode.truncated
                    found.append((t, ending))
            if until_end and found:
                break
        return in_order(found)

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
            self.position[:] = (-1, i)
            self._note_reset(i)
            self._begin(i)
            self._check_first(i)

    def begin_next(self, i: int) -> None:
        """Starts the next episode in an environment, whatever its first observation."""
        self._begin(i)

    def _check_first(self, i: int) -> None:
        """Goes on to the next episode where an environment began one with a number not finite."""
        if self.dropper is not None:
            self.dropper.begin(i)

    def note_place(self, i: int) -> None:
        """Notes that the next step of an environment is being taken, for whoever watches."""
        step, moves = int(self._lengths[i]) + 1, int(self.place[4]) + 1
        self.place[:] = (self.first_env + i, self._episodes[i], self.seed_of(i), step, moves)

    def _note_reset(self, i: int) -> None:
        """Notes that the next episode of an environment begins, for whoever watches."""
        env, episode = self.first_env + i, int(self._episodes[i]) + 1
        self.place[:] = (env, episode, self._seeds.of(env, episode), 0, int(self.place[4]) + 1)

    def cut_record(self, i: int) -> Episode:
        """Returns the record of the episode an environment is in, as one that is cut off now."""
        return Episode(
            self.first_env + i,
            int(self._episodes[i]),
            float(self._returns[i]),
            int(self._lengths[i]),
            True,
            0,
        )

    def seed_of(self, i: int) -> int:
        """Returns the seed of the episode that an environment is in."""
        return self._seeds.of(self.first_env + i, int(self._episodes[i]))

    def actions_since_reset(self, i: int, block: NDArray[Any], t: int) -> NDArray[Any]:
        """Returns an environment's sampled actions up to row t of a rollout's, [n, A].

        Args:
            i: The environment.
            block: Actions of the rollout that is being collected, [T, N, A].
            t: The row; its action is the last one.
        """
        inside = min(t, int(self._lengths[i]))
        older = int(self._lengths[i]) - inside
        log = [self._no_actions(0), *self._log[: self._num_older]]
        before = np.concatenate([part[:, i] for part in log])
        return np.concatenate(
            [before[len(before) - min(older, len(before)) :], block[t - inside : t + 1, i]]
        )

    @property
    def no_actions(self) -> NDArray[Any]:
        """No action of one environment, [0, A]."""
        return self._no_actions(0)[:, 0]

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

        An environment at the start of an episode has nothing to replay, so its seed is put to the
        proof: the beginning of that episode is played twice, with actions drawn at random.

        Returns:
            None if every environment reached the very observation and return that were saved, and
            those that were tried did the same twice; otherwise why not, in words. Environments that
            did not reach theirs are at the start of their next episode.
        """
        log = self._no_actions(int(state["replayed"].max(initial=0)))
        self._log = [log]
        failed: list[int] = []
        changing: list[str] = []
        deadline = time.perf_counter() + self.MAX_TRIED_SECONDS
        start = 0
        for i in range(self.num_envs):
            count = int(state["replayed"][i])
            actions = state["actions"][start : start + count]
            start += count
            episode = int(state["episodes"][i])
            self._begin_at(i, episode)
            complete = count == int(state["lengths"][i]) and self._replay(i, actions)
            if (
                complete
                and np.array_equal(self.obs[i], state["obs"][i])
                and self._returns[i] == float(state["returns"][i])
            ):
                log[len(log) - count :, i] = actions
                if not count and time.perf_counter() < deadline:
                    if not self._repeats(i, episode, deadline):
                        changing.append(f"environment {self.first_env + i}, episode {episode}")
                    self._begin_at(i, episode)
            else:
                failed.append(i)
                self._begin(i)
                self._check_first(i)
        reasons = []
        if failed:
            reasons.append(
                f"{len(failed)} of {self.num_envs} environments could not be replayed to the same "
                "observation and return and began new episodes"
            )
        if changing:
            reasons.append(
                f"{len(changing)} of {self.num_envs} environments do not repeat an episode when its "
                f"seed and actions are given again ({changing[0]})"
            )
        return "; ".join(reasons) or None

    def _begin_at(self, i: int, episode: int) -> None:
        """Starts this episode in an environment, whatever was before."""
        self._episodes[i] = episode - 1
        self._note_reset(i)
        self._begin(i)

    def _repeats(self, i: int, episode: int, deadline: float) -> bool:
        """Plays the beginning of an episode that has been started twice; False if the two differ."""
        actions = self.action_layout.drawn(self.TRIED_STEPS, np.random.default_rng(episode))
        num_steps = 1
        while self._replay(i, actions[num_steps - 1 : num_steps]) and num_steps < len(actions):
            if time.perf_counter() > deadline:
                break
            num_steps += 1
        first = self._reached(i)
        self._begin_at(i, episode)
        self._replay(i, actions[:num_steps])
        return self._reached(i) == first

    def _reached(self, i: int) -> tuple[bytes, float, int]:
        """Returns where an environment is: its observation, and its episode's return and length."""
        return self.obs[i].tobytes(), float(self._returns[i]), int(self._lengths[i])

    def _no_actions(self, num_steps: int) -> NDArray[Any]:
        """Returns a block of zeros, [num_steps, N, A]."""
        layout = self.action_layout
        return np.zeros((num_steps, self.num_envs, layout.size), dtype=layout.dtype)


def in_order(endings: list[tuple[int, Ending]]) -> list[tuple[int, Ending]]:
    """Returns endings with their rows in the order of these, then of the environments.

    One that was found a row late stands behind those of its own row.
    """
    return sorted(endings, key=lambda found: (found[0], found[1].env))


def _listed(numbers: Any) -> list[Any]:
    """Returns the numbers of an array as Python's own, or a list's copy."""
    return numbers.tolist() if isinstance(numbers, np.ndarray) else list(numbers)
