"""A shared library in, many of its environments as one Gymnasium vector environment out."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from clipper.engine import kernels
from clipper.envs.library import are_categories, load_library
from clipper.errors import ConfigError, EnvironmentFault
from clipper.randomness import Purpose


class LibraryVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """N environments of a library stepped in C++, for whatever takes Gymnasium's vector environments.

    Autoreset is SAME_STEP: the observation after an ending is the next episode's first, the true
    last one is in `infos["final_obs"]`. The seed of every episode is a function of the seed given to
    `reset`, the environment and the episode.

    Args:
        path: The library.
        num_envs: How many.
        max_episode_steps: Truncates episodes after so many steps; None for the library's own limit.
        **options: JSON values, handed to `clipper_env_create`.

    Raises:
        EnvironmentUnknown: There is no such file.
        EnvironmentFault: It cannot be loaded or created.
        SpaceError: A space is not supported.
        ConfigError: The native engine is not there.
    """

    def __init__(
        self, path: str, num_envs: int, max_episode_steps: int | None = None, **options: Any
    ) -> None:
        if kernels.ABSENCE is not None:
            raise ConfigError(f"LibraryVectorEnv needs the native engine, but {kernels.ABSENCE}.")
        self._library = library = load_library(path)
        self._options = json.dumps(options)
        self._limit = max_episode_steps or library.max_episode_steps or 0
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = library.observation_space
        self.single_action_space = library.action_space
        self.observation_space = batch_space(library.observation_space, num_envs)
        self.action_space = batch_space(library.action_space, num_envs)
        self._is_box = isinstance(library.observation_space, spaces.Box)
        width = library.observation_size
        if isinstance(library.observation_space, spaces.Discrete):
            width = int(library.observation_space.n)
        self._obs = np.zeros((num_envs, width), dtype=np.float32)
        self._states = (np.zeros(num_envs), *np.zeros((2, num_envs), dtype=np.int64))
        self._start(0)

    def _start(self, seed: int) -> None:
        library = self._library
        action, scale = library.action_space, None
        self._action_type: type[np.float32] | type[np.int64] = np.int64
        if isinstance(action, spaces.Box):
            self._action_type = np.float32
            # actions are the environment's own, so there is nothing but clipping
            columns = [action.low, action.high, np.ones(action.shape), np.zeros(action.shape)]
            scale = (True, [column.tolist() for column in columns])
        returns, lengths, episodes = self._states
        episodes[:] = -1
        try:
            self._has_begun = np.zeros(self.num_envs, dtype=np.bool_)
            self._batch = kernels.Envs(
                path=str(library.path),
                options=self._options,
                max_episode_steps=self._limit,
                seed=seed,
                purpose=Purpose.EPISODE_SEED,
                first_env=0,
                action_size=library.action_size,
                scale=scale,
                obs=self._obs,
                returns=returns,
                lengths=lengths,
                episodes=episodes,
            )
        except RuntimeError as error:
            raise EnvironmentFault(f"{error}.") from error

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins the next episodes.

        Args:
            seed: A whole number, with which all begins anew; or one for each environment, where None
                goes on with the seed it had. The same number for each is one number for all.
            options: `reset_mask`, a bool array [num_envs], names those that begin; the episodes of the
                others go on, whatever the seed. Nothing else is looked at.

        Raises:
            ConfigError: The seed is neither, or the mask is none.
            EnvironmentFault: An environment failed.
        """
        self._check_open()
        begins = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            begins = _read_mask(options["reset_mask"], self.num_envs)
        if isinstance(seed, list | tuple) or (isinstance(seed, np.ndarray) and seed.ndim > 0):
            seeds = _read_seeds(seed, self.num_envs)
        else:
            own = None if seed is None else _read_seed(seed, seed)
            seeds = [own] * self.num_envs
            if own is not None and begins.all():
                self._start(own)  # as if just made
                seeds = [None] * self.num_envs
        for i in np.flatnonzero(begins).tolist():
            own = seeds[i]
            if own is not None:
                self._batch.reseed(i, own)
            if not self._batch.begin(i):
                raise self._fault()
        self._has_begun |= begins
        return self._seen(self._obs), {}

    def step(self, actions: Any) -> Any:
        """Steps every environment once."""
        self._check_open()
        rewards = np.empty(self.num_envs, dtype=np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        if not self._has_begun.all():
            raise gymnasium.error.ResetNeeded(
                f"environment {int(np.argmin(self._has_begun))} must be reset before it is stepped."
            )
        space, given = self.single_action_space, np.asarray(actions)
        if given.shape != self.action_space.shape:
            raise EnvironmentFault(
                f"actions must be of shape {self.action_space.shape}, but are of {given.shape}."
            )
        if not isinstance(space, spaces.Box) and not are_categories(space, given):
            raise EnvironmentFault(f"all actions must belong to {space}, but are {actions}.")
        taken = np.ascontiguousarray(given, dtype=self._action_type)
        if not self._batch.step(taken, rewards, terminated, truncated):
            raise self._fault()
        return self._seen(self._obs), rewards, terminated, truncated, self._infos()

    def _check_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("reset and step must come before close.")

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the environments."""
        del self._batch

    def _seen(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        """Returns rows as the space has them: indices in place of one-hot rows."""
        return rows.copy() if self._is_box else rows.argmax(-1)

    def _infos(self) -> dict[str, Any]:
        endings = self._batch.endings()
        if not endings:
            return {}
        rows = np.empty((len(endings), self._obs.shape[1]), dtype=np.float32)
        self._batch.final_obs(rows)
        final_obs = np.full(self.num_envs, None, dtype=object)
        has_ended = np.zeros(self.num_envs, dtype=np.bool_)
        for ending, last in zip(endings, self._seen(rows), strict=True):
            final_obs[ending[1]], has_ended[ending[1]] = last, True
        return {"final_obs": final_obs, "_final_obs": has_ended}

    def _fault(self) -> EnvironmentFault:
        env, in_reset, text, *_ = self._batch.failure()
        call = "reset" if in_reset else "step"
        return EnvironmentFault(
            f"{self._library.name} must not fail in {call}, but did: "
            f"{text.decode(errors='replace')} (environment {env})."
        )


def _read_mask(mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """Returns who begins; at least one does."""
    is_mask = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (num_envs,)
    if not is_mask or not mask.any():
        raise ConfigError(
            f"reset_mask must be a numpy array of {num_envs} bools, at least one of them True, "
            f"but is {mask!r}."
        )
    return np.asarray(mask)


def _read_seeds(seeds: Sequence[Any] | NDArray[Any], num_envs: int) -> list[int | None]:
    """Returns the seed of each environment; None stays None."""
    if len(seeds) != num_envs:
        raise ConfigError(
            f"seed must be one whole number, or one for each of {num_envs} environments, "
            f"but there are {len(seeds)}."
        )
    return [None if seed is None else _read_seed(seed, seeds) for seed in seeds]


def _read_seed(seed: Any, given: Any) -> int:
    """Returns a seed as Python's int, whichever library's it was."""
    try:
        found = operator.index(seed)
    except TypeError:
        found = -1
    if not 0 <= found < 2**64:
        raise ConfigError(
            f"seed must be a whole number from 0 to 2^64 - 1, or one for each environment, "
            f"but is {given!r}."
        )
    return found
