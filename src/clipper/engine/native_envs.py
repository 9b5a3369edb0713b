"""Actions of N environments of a shared library in, observations, rewards and endings out, in C++.

The laws are those of `clipper.envs.vector`: SAME_STEP, true final observations, a seed for every
episode. With the native engine a whole rollout is acted and stepped without entering Python.
Dimension key: T steps, N envs, D observation size, A action size, F episodes that ended.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.engine import kernels
from clipper.engine.classic import classic_library
from clipper.engine.gym_envs import GymEnvs
from clipper.envs.dropping import Blocks, NotFinite
from clipper.envs.ending import Ending
from clipper.envs.library import LibraryEnv, is_library, load_library
from clipper.envs.make import EnvSource
from clipper.envs.replay import ReplayableEnvs, in_order
from clipper.envs.vector import VectorEnv, spaces_of
from clipper.errors import ConfigError, EnvironmentFault
from clipper.faults import FaultLedger
from clipper.leaves import Float32, Rows
from clipper.metrics import Episode
from clipper.randomness import EpisodeSeeds
from clipper.sampler import LocalSampler

VECTORIZATIONS = ("auto", "gymnasium", "native")
if kernels.ABSENCE is None:
    # a library that Python steps may call exit as well
    LibraryEnv.is_calling = ctypes.c_int32.from_address(kernels.compiled.watch_exit())


def is_native(source: EnvSource, vectorization: str) -> bool:
    """Returns True if environments are stepped by the engine, False if by Gymnasium's interface.

    Args:
        source: Where they come from.
        vectorization: `native`, `gymnasium`, or `auto`: native for shared libraries.

    Raises:
        ConfigError: It is another word, or they cannot be stepped by the engine.
    """
    if vectorization not in VECTORIZATIONS:
        raise ConfigError(
            f"vectorization must be one of {', '.join(VECTORIZATIONS)}, but is {vectorization!r}."
        )
    if source.terminal_on_life_loss and vectorization == "native":
        raise ConfigError(
            "terminal_on_life_loss must be false with vectorization native, but is true.",
            hint="native environments count no lives.",
        )
    if vectorization == "auto":
        return (
            not source.terminal_on_life_loss
            and source.is_named
            and is_library(source.name)
            and kernels.ABSENCE is None
        )
    if vectorization == "native":
        _library_of(source)
    return vectorization == "native"


def _library_of(source: EnvSource) -> str:
    """Returns the file of the library that an environment's steps can be left to."""
    if not source.is_named:
        raise ConfigError(
            "vectorization native needs an environment that is given by its name alone, without "
            f"wrappers, but {source.name} is not.",
        )
    if kernels.ABSENCE is not None:
        raise ConfigError(f"vectorization native needs the native engine, but {kernels.ABSENCE}.")
    if is_library(source.name):
        return str(load_library(source.name).path)
    path = classic_library(source.name)
    if source.env_kwargs:
        raise ConfigError(
            f"env_kwargs must be empty with vectorization native of {source.name}, "
            f"but are {json.dumps(dict(source.env_kwargs))}."
        )
    return str(path)


class NativeEnvs(ReplayableEnvs):
    """N environments of a shared library, stepped in C++.

    Args:
        source: A library's file, or one of the classic tasks.
        num_envs: How many.
        seeds: The seed of every episode.
        first_env: Index of the first one in the run, if others are stepped elsewhere.

    Raises:
        EnvironmentFault: The library cannot be loaded, or an environment not created.
        ConfigError: The source is neither.
    """

    def __init__(
        self, source: EnvSource, num_envs: int, seeds: EpisodeSeeds, first_env: int = 0
    ) -> None:
        obs_layout, action_layout, limit = spaces_of(source)
        super().__init__(num_envs, first_env, obs_layout, action_layout)
        self.name = source.name
        self._seeds = seeds
        # written by the extension
        self._returns: NDArray[np.float64] = np.zeros(num_envs)
        self._lengths: NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        self._episodes: NDArray[np.int64] = np.full(num_envs, -1, dtype=np.int64)
        options = json.dumps(dict(source.env_kwargs))
        try:
            self._batch = kernels.Envs(
                path=_library_of(source),
                options=options,
                max_episode_steps=limit or 0,
                seed=seeds.seed,
                purpose=seeds.purpose,
                first_env=first_env,
                action_size=action_layout.size,
                scale=action_layout.box_scale,
                obs=self.obs,
                returns=self._returns,
                lengths=self._lengths,
                episodes=self._episodes,
            )
        except RuntimeError as error:
            raise EnvironmentFault(f"{error}.") from error

    def step(
        self,
        actions: NDArray[Any],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> list[Ending]:
        """Steps every environment once and returns the endings; as `VectorEnv.step`."""
        self._log.append(actions[None])
        if not self._batch.step(actions, rewards, terminated, truncated):
            raise self._fault()
        return [ending for _, ending in self._endings()]

    def step_one(self, i: int, action: NDArray[Any]) -> tuple[float, Ending | None]:
        """Steps one environment; as `ReplayableEnvs.step_one`."""
        reward, (terminated, truncated) = np.zeros(1, np.float32), np.zeros((2, 1), np.bool_)
        if not self._batch.step_one(i, action, reward, terminated, truncated):
            _, in_reset, _, is_not_finite, given = self._batch.failure()
            if not is_not_finite:
                raise self._fault()
            if not in_reset:
                raise NotFinite(given)
        endings = self._endings()
        self._check_first(i)
        return float(reward[0]), endings[0][1] if endings else None

    def advance(self, i: int, actions: NDArray[Any]) -> int:
        """Plays sampled actions in one environment until they or its episode end; says how many.

        Where the episode ends the next one begins. Nothing is kept for replay.

        Args:
            i: Which.
            actions: Float32 or int64 [n, A].

        Raises:
            EnvironmentFault: The environment failed.
        """
        before = int(self._lengths[i])
        goes_on = self._batch.replay(i, actions)
        if self._batch.failure()[0] >= 0:
            raise self._fault()
        count = int(self._lengths[i]) - before
        if not goes_on:
            self._begin(i)
        return count

    def drop_episodes(self, ledger: FaultLedger) -> None:
        """Ends episodes in which a number is not finite from now on, and counts them there."""
        super().drop_episodes(ledger)
        self._batch.refuse_not_finite()

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
        """Acts and steps until blocks are full; as `ReplayableEnvs.collect`.

        With the native engine that is one call; the profile is told what of it was acting.
        """
        if until_end or not isinstance(act, kernels.Stepper):
            return super().collect(act, obs, actions, rewards, terminated, truncated, until_end)
        self._num_older = len(self._log)
        self._log.append(actions)
        found: list[tuple[int, Ending]] = []
        dropper = self.dropper

        def drop(t: int, i: int, in_reset: bool, reward: float) -> None:
            assert dropper is not None
            # those until now: what is done here makes others in their place
            found.extend(self._endings())
            if in_reset:
                dropper.begin(i)
            else:
                blocks = Blocks(obs, actions, rewards, terminated, truncated)
                found.extend(dropper.play_again(t, i, reward, act, blocks))
            self._batch.begin_block()

        with self._profiler.part("env"):
            if not self._batch.collect(
                act,
                obs,
                rewards,
                terminated,
                truncated,
                self.position,
                None if dropper is None else drop,
            ):
                raise self._fault()
            found += self._endings()
        self._profiler.move(self._batch.acting_seconds, "env", "act")
        return found if dropper is None else in_order(found)

    def close(self) -> None:
        """Frees the environments."""
        del self._batch

    def _begin(self, i: int) -> None:
        # what is not finite is for the dropper, which looks at every first observation
        if not self._batch.begin(i) and not self._batch.failure()[3]:
            raise self._fault()

    def _replay(self, i: int, actions: NDArray[Any]) -> bool:
        # step by step, so that whoever watches sees it move
        for action in np.ascontiguousarray(actions)[:, None]:
            self.note_place(i)
            if not self._batch.replay(i, action):
                return False
        return True

    def _endings(self) -> list[tuple[int, Ending]]:
        found = self._batch.endings()
        final_obs = np.empty((len(found), self.obs_layout.size), dtype=np.float32)
        self._batch.final_obs(final_obs)
        endings = []
        for row, (t, env, index, length, episode_return, is_terminated) in zip(
            final_obs, found, strict=True
        ):
            number = self.first_env + env
            episode = Episode(number, index, episode_return, length, not is_terminated, 0)
            endings.append((t, Ending(env, row, episode)))
        return endings

    def _fault(self) -> EnvironmentFault:
        i, in_reset, text, *_ = self._batch.failure()
        env, episode = self.first_env + i, int(self._episodes[i])
        step = "" if in_reset else f", step {int(self._lengths[i]) + 1}"
        call = "reset" if in_reset else "step"
        # a terminal would do what it finds in it
        said = "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
        return EnvironmentFault(
            f"{self.name} must not fail in {call}, but did: {said.rstrip('.')} "
            f"(environment {env}, episode {episode}{step}).",
            hint=f"The episode's seed was {self._seeds.of(env, episode)}.",
        )


def step_envs(
    source: EnvSource, num_envs: int, seeds: EpisodeSeeds, first_env: int, vectorization: str
) -> VectorEnv | NativeEnvs:
    """Returns N environments of a source, stepped as `vectorization` says."""
    kind: type[VectorEnv] | type[NativeEnvs] = VectorEnv if kernels.ABSENCE else GymEnvs
    if is_native(source, vectorization):
        kind = NativeEnvs
    return kind(source, num_envs, seeds, first_env)


def local_sampler(
    source: EnvSource,
    share: range,
    seed: int,
    vectorization: str,
    num_envs_in_all: int | None = None,
    ledger: FaultLedger | None = None,
) -> LocalSampler:
    """Returns what collects in this process.

    Args:
        source: Where the environments come from.
        share: Their indices in the run.
        seed: The run's seed.
        vectorization: See `is_native`.
        num_envs_in_all: Environments of the run, if others are stepped elsewhere, or None.
        ledger: Where episodes are counted that end for a number which is not finite; None to let
            such a number stop the run.
    """
    envs = step_envs(source, len(share), EpisodeSeeds(seed), share.start, vectorization)
    if ledger is not None:
        envs.drop_episodes(ledger)
    return LocalSampler(envs, seed, num_envs_in_all)
