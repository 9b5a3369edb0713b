"""Rollouts in, pieces of past experience out, a different one for every environment.

Dimension key: K rollouts that are remembered, T steps, N envs, D observation size, P actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.randomness import Purpose, uniform
from clipper.rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What some policy did in N environments for T steps; raw observations and rewards.

    Attributes:
        obs: Observations acted on, [T, N, D].
        next_obs: Observations the steps truly ended in, before any reset, [T, N, D].
        actions: Indices of the actions, int64 [T, N].
        rewards: Raw rewards, float32 [T, N].
        terminated: Steps that ended an episode by the environment's rules, bool [T, N].
        truncated: Steps that a limit cut off, bool [T, N].
        behaviour: Log-probabilities of all actions under the policy that acted, [T, N, P].
    """

    obs: Tensor
    next_obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    behaviour: Tensor

    @classmethod
    def of(cls, rollout: Rollout, behaviour: Tensor) -> Trajectory:
        """Returns what is to be remembered of a rollout of single choices.

        Args:
            rollout: What was collected.
            behaviour: Log-probabilities of all actions under the policy that acted, [T, N, P].
        """
        next_obs = torch.cat([rollout.obs[1:], rollout.last_obs[None]])
        next_obs[rollout.final_at[:, 0], rollout.final_at[:, 1]] = rollout.final_obs
        return cls(
            obs=rollout.obs,
            next_obs=next_obs,
            actions=rollout.actions[..., 0],
            rewards=rollout.rewards,
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            behaviour=behaviour.cpu(),
        )


_COLUMNS = tuple(field.name for field in fields(Trajectory))


class ReplayMemory:
    """The last K rollouts, the oldest of which makes room for a new one.

    A state shares its tensors with the memory, for copies of all that is remembered would cost more
    than learning from it. It stays true until two more rollouts are added: there is room for one
    beside the K that can be replayed.

    Args:
        capacity: K.
    """

    def __init__(self, capacity: int) -> None:
        self._num_slots = capacity + 1
        self._columns: dict[str, Tensor] = {}
        self._num_added = 0

    def __len__(self) -> int:
        """Returns how many rollouts can be replayed."""
        return min(self._num_added, self._num_slots - 1)

    def add(self, trajectory: Trajectory) -> None:
        """Remembers a rollout; all of them must have the same shapes."""
        at = self._num_added % self._num_slots
        for name in _COLUMNS:
            block: Tensor = getattr(trajectory, name)
            if name not in self._columns:
                self._columns[name] = block.new_empty((self._num_slots, *block.shape))
            self._columns[name][at] = block
        self._num_added += 1

    def sample(self, ages: NDArray[np.int64]) -> Trajectory:
        """Returns experience of every environment, each from a rollout of its own.

        Args:
            ages: For each environment the rollout, 0 the newest, int64 [N].
        """
        slots = torch.from_numpy((self._num_added - 1 - ages) % self._num_slots)
        envs = torch.arange(len(ages))
        # [K, T, N, ...] -> [N, T, ...] -> [T, N, ...]
        parts = {
            name: column[slots, :, envs].transpose(0, 1) for name, column in self._columns.items()
        }
        return Trajectory(**parts)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns all that is remembered, without copying it."""
        used = min(self._num_added, self._num_slots)
        columns = {name: column[:used] for name, column in self._columns.items()}
        return {"num_added": torch.tensor([self._num_added], dtype=torch.int64), **columns}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._num_added = int(state["num_added"])
        if not self._num_added:
            self._columns = {}
        for name in _COLUMNS if self._num_added else ():
            block = state[name]
            if name not in self._columns:
                self._columns[name] = block.new_empty((self._num_slots, *block.shape[1:]))
            self._columns[name][: len(block)] = block


def poisson(mean: float, uniform_number: float) -> int:
    """Returns a Poisson number by inverting its distribution at a number from [0, 1)."""
    count, term = 0, math.exp(-mean)
    total = term
    while uniform_number >= total and term > 0.0:
        count += 1
        term *= mean / count
        total += term
    return count


def replay_plan(
    seed: int, iteration: int, mean: float, num_rollouts: int, num_envs: int
) -> NDArray[np.int64]:
    """Returns which rollouts are replayed in an iteration: the ages of each, int64 [replays, N].

    How many there are is Poisson's with the given mean; each environment's rollout is drawn with
    equal chances. A function of its arguments alone.

    Args:
        seed: The run's seed.
        iteration: Index of the iteration.
        mean: Replays of an iteration on average.
        num_rollouts: How many can be replayed, at least 1.
        num_envs: N.
    """
    count = poisson(mean, float(uniform(seed, Purpose.REPLAY, num_envs, iteration, 1)[0]))
    numbers = uniform(seed, Purpose.REPLAY, np.arange(num_envs), iteration, count)
    return (numbers.T.astype(np.float64) * num_rollouts).astype(np.int64)
