"""Actions of N environments in, their next observations, rewards and endings out.

SAME_STEP semantics: an environment whose episode ends is reset within the same step, and the true
final observation is handed out beside the new episode's first one. Observations are copied on
arrival, and every reset gets a seed that is a function of (run seed, env, episode).
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.envs.building import tell_normalisers
from clipper.envs.contract import fault, first_obs, read_flag, read_reward
from clipper.envs.dropping import NotFinite
from clipper.envs.ending import Ending as Ending
from clipper.envs.make import EnvSource, close_all, episode_limit
from clipper.envs.names import Env
from clipper.envs.replay import ReplayableEnvs
from clipper.errors import EnvironmentFault, SpaceError
from clipper.metrics import Episode
from clipper.profiling import Profiler
from clipper.randomness import EpisodeSeeds
from clipper.spaces import ObservationLayout


class VectorEnv(ReplayableEnvs):
    """N environments of one source, stepped one after the other in this process.

    Args:
        source: Where the environments come from.
        num_envs: How many.
        seeds: The seed of every episode.
        first_env: Index of the first one in the run, if others are stepped elsewhere; seeds,
            records and messages go by it.

    Attributes:
        obs: The observation each environment is in now, [N, D]; overwritten by `step`.
        is_fresh_per_episode: True if every episode is played on an environment made for it.

    Raises:
        EnvironmentFault: An environment could not be built.
        SpaceError: A space is not supported.
        ConfigError: A callable gave the same environment twice.
    """

    def __init__(
        self, source: EnvSource, num_envs: int, seeds: EpisodeSeeds, first_env: int = 0
    ) -> None:
        self.name = source.name
        self._source = source
        self._make: Callable[[], Env] = source.make
        self.is_fresh_per_episode = source.is_fresh_per_episode
        self.envs: list[Env] = source.make_several(num_envs)
        super().__init__(
            num_envs,
            first_env,
            ObservationLayout(self.envs[0].observation_space, source.image_layout),
            ActionLayout(self.envs[0].action_space),
        )
        for env in self.envs[1:]:
            self._check_same_spaces(env)
        self._rows = list(self.obs)
        # a Box vector that keeps its promise is copied in the loop itself
        self._plain_type, self._plain_shape = self.obs_layout.plain
        self._seeds = seeds
        # plain lists: numbers of numpy's would cost more than the steps of a fast environment
        self._returns: list[float] = [0.0] * num_envs
        self._lengths: list[int] = [0] * num_envs
        self._episodes: list[int] = [-1] * num_envs
        self._is_used = [False] * num_envs
        self._lives: list[float] | None = [0.0] * num_envs if source.terminal_on_life_loss else None

    def step(
        self,
        actions: NDArray[Any],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> list[Ending]:
        """Steps every environment once and returns the endings.

        Args:
            actions: Sampled actions, float32 or int64 [N, A]; kept for replay, so do not reuse it.
            rewards: Receives the raw rewards, float32 [N].
            terminated: All False; receives True where the environment's own rules ended the
                episode, [N].
            truncated: All False; receives True where a limit cut the episode off, [N].

        Raises:
            EnvironmentFault: An environment raised or broke the contract; names env and step.
        """
        self._log.append(actions[None])
        endings: list[Ending] = []
        returns, lengths = self._returns, self._lengths
        plain_type, plain_shape = self._plain_type, self._plain_shape
        # this loop is all that stands between a fast environment and its speed
        columns = zip(self.envs, self.action_layout.to_env(actions), self._rows, strict=True)
        position = self.position
        for i, (env, action, row) in enumerate(columns):
            position[1] = i
            try:
                found: Any = env.step(action)
                obs, reward, is_terminated, is_truncated, info = found
                rewards[i] = reward = reward if type(reward) is float else read_reward(reward)
                if type(is_terminated) is not bool or type(is_truncated) is not bool:
                    is_terminated = read_flag(is_terminated, "terminated")
                    is_truncated = read_flag(is_truncated, "truncated")
                is_done = is_terminated or is_truncated
                if is_done:
                    row = np.empty_like(row)
                if type(obs) is ndarray and obs.dtype is plain_type and obs.shape == plain_shape:
                    row[...] = obs
                else:
                    self.obs_layout.write(obs, row)
            except (Exception, SystemExit) as error:
                raise self._fault(i, "step", error) from error
            returns[i] += reward
            lengths[i] += 1
            if self._lives is not None and self._lost_life(i, info) and not is_done:
                self.lives_lost.append((int(position[0]), i))
            if is_done:
                terminated[i] = is_terminated
                truncated[i] = is_truncated
                endings.append(Ending(i, row, self._record(i, not is_terminated, info)))
                self._begin(i)
        return endings

    def step_one(self, i: int, action: NDArray[Any]) -> tuple[float, Ending | None]:
        """Steps one environment; as `ReplayableEnvs.step_one`."""
        try:
            obs, reward, is_terminated, is_truncated, info = self.envs[i].step(
                self.action_layout.to_env(action)[0]
            )
            reward = read_reward(reward)
            self.obs_layout.write(obs, self._rows[i])
            is_terminated = read_flag(is_terminated, "terminated")
            is_done = is_terminated or read_flag(is_truncated, "truncated")
        except (Exception, SystemExit) as error:
            raise self._fault(i, "step", error) from error
        if self.dropper is not None and not self.dropper.is_good(i, reward):
            raise NotFinite(reward)
        self._returns[i] += reward
        self._lengths[i] += 1
        if self._lives is not None and self._lost_life(i, info) and not is_done:
            self.lives_lost.append((int(self.position[0]), i))
        if not is_done:
            return reward, None
        ending = Ending(i, self.obs[i].copy(), self._record(i, not is_terminated, info))
        self._begin(i)
        self._check_first(i)
        return reward, ending

    def count_time(self, profiler: Profiler) -> None:
        """Has the time of acting and within environments counted from now on, or no more."""
        super().count_time(profiler)

        def counted(env: Env) -> Env:
            return profiler.around(env, step="env", reset="env")

        self._make = profiler.timed("env", lambda: counted(self._source.make()))
        self.envs = [counted(env) for env in self.envs]

    def close(self) -> None:
        """Closes the environments that were made here (not an instance of the user's)."""
        if self._source.instance is None:
            close_all(self.envs)

    def _replay(self, i: int, actions: NDArray[Any]) -> bool:
        """Plays actions again as `step` did; returns False if the episode ends or goes wrong."""
        for action in actions:
            self.note_place(i)
            try:
                obs, reward, is_terminated, is_truncated, info = self.envs[i].step(
                    self.action_layout.to_env(action[None])[0]
                )
                self.obs_layout.write(obs, self._rows[i])
                self._returns[i] += read_reward(reward)
                if self._lives is not None:
                    self._lost_life(i, info)
                is_terminated = read_flag(is_terminated, "terminated")
                is_done = is_terminated or read_flag(is_truncated, "truncated")
            except (Exception, SystemExit):
                return False
            self._lengths[i] += 1
            if is_done:
                return False
        return True

    def _lost_life(self, i: int, info: Any) -> bool:
        """Returns True if an environment has fewer lives than a step ago.

        Raises:
            EnvironmentFault: It does not say how many it has.
        """
        assert self._lives is not None
        before, left = self._lives[i], info.get("lives")
        if not isinstance(left, numbers.Real):
            raise EnvironmentFault(
                f"{self.name} must count lives in info['lives'] with terminal_on_life_loss, but has "
                f"{left!r} there.",
                hint="set terminal_on_life_loss to false.",
            )
        self._lives[i] = float(left)
        return self._lives[i] < before

    def _begin(self, i: int) -> None:
        if self._lives is not None:
            self._lives[i] = 0.0
        self._episodes[i] += 1
        self._returns[i] = 0.0
        self._lengths[i] = 0
        if self.is_fresh_per_episode and self._is_used[i]:
            close_all([self.envs[i]])
            self.envs[i] = self._make()
        self._is_used[i] = True
        try:
            obs = first_obs(self.envs[i], self.seed_of(i))
            self.obs_layout.write(obs, self._rows[i])
        except (Exception, SystemExit) as error:
            raise self._fault(i, "reset", error) from error

    def _record(self, i: int, was_truncated: bool, info: Any) -> Episode:
        extras = numeric_extras(info)
        return Episode(
            self.first_env + i,
            self._episodes[i],
            float(self._returns[i]),
            int(self._lengths[i]),
            was_truncated,
            0,
            extras,
        )

    def _check_same_spaces(self, env: Env) -> None:
        pairs = (
            ("observation", env.observation_space, self.obs_layout.space),
            ("action", env.action_space, self.action_layout.space),
        )
        for kind, found, first in pairs:
            if found != first:
                raise SpaceError(
                    f"all environments of a run must have the same {kind} space, "
                    f"but one has {found} and another {first}."
                )

    def _fault(self, i: int, call: str, error: BaseException) -> EnvironmentFault:
        step = f", step {self._lengths[i] + 1}" if call == "step" else ""
        where = f"environment {self.first_env + i}, episode {self._episodes[i]}{step}"
        return fault(self.name, call, error, where, self.seed_of(i))


def numeric_extras(info: Any) -> dict[str, float]:
    """Returns the finite numbers of an episode's last `info`: its own and those of `episode`.

    `r`, `l` and `t` of Gymnasium's episode statistics are left out: Clipper counts those itself.
    Names become columns, so every character but letters, digits, blanks and `_.:/%()+-` is `_`.
    """
    found: dict[str, float] = {}
    if not isinstance(info, Mapping):
        return found
    inner = info.get("episode")
    sources: Sequence[tuple[Mapping[Any, Any], tuple[str, ...]]] = [(info, ())]
    if isinstance(inner, Mapping):
        sources = [*sources, (inner, ("r", "l", "t"))]
    for mapping, skipped in sources:
        for key, value in mapping.items():
            is_number = isinstance(value, (numbers.Real, np.bool_)) or (
                isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"
            )
            if not is_number or key in skipped:
                continue
            try:
                number = float(value)
            except OverflowError:  # a whole number that no float holds
                continue
            if math.isfinite(number):
                found[re.sub(r"[^\w .:/%()+-]", "_", str(key))] = number
    return found


def spaces_of(source: EnvSource) -> tuple[ObservationLayout, ActionLayout, int | None]:
    """Returns the layouts and the episode limit of a source, from one environment made for it."""
    env = source.look()
    tell_normalisers(env)
    obs_layout = ObservationLayout(env.observation_space, source.image_layout)
    return obs_layout, ActionLayout(env.action_space), episode_limit(env)
