"""A rollout in, nothing out if it is what it must be; else where it is not, by its numbers.

Whole blocks are looked at: a check in every step would cost more than the step of a fast environment.
Dimension key: T steps, N envs, D observation size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipper.errors import NumericsError
from clipper.policies.actor_critic import ActorCritic
from clipper.spaces import ObservationLayout

if TYPE_CHECKING:
    from clipper.rollout import Rollout

_LOG = logging.getLogger("clipper")
_OF_ENV = ("obs", "rewards", "final_obs", "last_obs")
_OF_POLICY = ("actions", "log_probs", "values", "next_values")
_AFTER = ("final_obs", "last_obs", "next_values")
_NOUNS = {
    "obs": "observation",
    "final_obs": "observation",
    "last_obs": "observation",
    "rewards": "reward",
    "actions": "action",
    "log_probs": "log-prob",
    "values": "value",
    "next_values": "value",
}


def check_finite(
    rollout: Rollout,
    policy: ActorCritic,
    episodes: Sequence[int],
    lengths: Sequence[int],
    first_env: int = 0,
) -> None:
    """Raises if a number in a rollout is NaN or infinite, and says where the first one is.

    Args:
        rollout: What was collected.
        policy: Looks through the blocks.
        episodes: Index of the episode each environment was in before the rollout.
        lengths: Steps it had taken in it.
        first_env: Index of the first environment, for the message.

    Raises:
        NumericsError: Names what, its value, the environment, the episode and the step.
    """
    blocks = {
        name: policy.numbers(block) if name.endswith("obs") else block
        for name in (*_OF_ENV, *_OF_POLICY)
        if (block := getattr(rollout, name)).is_floating_point() or name.endswith("obs")
    }
    if policy.are_finite(list(blocks.values())):
        return
    # what the environment gave comes first: the rest may follow from it
    for names in (_OF_ENV, _OF_POLICY):
        found = [
            (*_row_of(rollout, name, at), name, at)
            for name in names
            if name in blocks
            for at in torch.nonzero(~torch.isfinite(blocks[name]))[:1].tolist()
        ]
        if found:
            step, env, name, at = min(found)
            episode, number = _locate(rollout, env, step, episodes[env], lengths[env])
            when = f"{'after' if name in _AFTER else 'in'} step {number}"
            if name == "obs":  # given by the step before
                when = f"after step {number - 1}" if number > 1 else "after the reset"
            where = f"{when} of episode {episode} of environment {first_env + env}"
            value = float(blocks[name][tuple(at)])
            raise _not_finite(name, value, at[-1], policy.obs_layout, where)


def _row_of(rollout: Rollout, name: str, at: Sequence[int]) -> tuple[int, int]:
    """Returns the step and the environment of a place in one of a rollout's tensors."""
    if name == "final_obs":
        step, env = rollout.final_at[at[0]].tolist()
        return step, env
    return (len(rollout.rewards) - 1, at[0]) if name == "last_obs" else (at[0], at[1])


def _locate(rollout: Rollout, env: int, step: int, episode: int, length: int) -> tuple[int, int]:
    """Returns the episode and the step in it (from 1) of a row of the rollout."""
    ends = [t for t, n in rollout.final_at.tolist() if n == env and t < step]
    if not ends:
        return episode, length + step + 1
    return episode + len(ends), step - ends[-1]


def _not_finite(
    name: str, value: float, column: int, layout: ObservationLayout, where: str
) -> NumericsError:
    place = ""
    if name not in _OF_POLICY and math.isinf(value):
        place = " (or too large for float32)"
    if name.endswith("obs"):
        place += f" in {layout.column_name(column)}"
    elif name == "actions":
        place = f", column {column}"
    hint = (
        "the environment gave it; find the step in its code that divides or overflows. "
        "on_nonfinite drop-episode goes on with the next episode instead."
    )
    if name in _OF_POLICY:
        hint = "the policy gave it; lower learning_rate, or check your module."
    return NumericsError(
        f"every {_NOUNS[name]} must be finite, but is {value}{place} {where}.", hint=hint
    )


class BoundsWatch:
    """Tells, once for every part, of observations outside the bounds that their space promises.

    Nothing is changed: many environments stray from their bounds now and then, and the normaliser
    does not ask for them. But bounds that are wrong often mean a unit or a scale that is.

    Args:
        layout: How observations lie in a row.
    """

    def __init__(self, layout: ObservationLayout) -> None:
        self._layout = layout
        self._low, self._high = layout.bounds
        self._is_needed = self._is_bounded()

    def look(self, rollout: Rollout, policy: ActorCritic, first_step: int) -> None:
        """Looks through the observations that were acted on.

        Args:
            rollout: What was collected.
            policy: Looks through the block.
            first_step: Steps of every environment before the rollout.
        """
        if not self._is_needed:
            return
        obs = policy.numbers(rollout.obs)
        while (at := policy.first_outside(obs, self._low, self._high)) is not None:
            step, env, column = np.unravel_index(at, obs.shape)
            leaf = self._layout.leaf_of(int(column))
            low, high = float(self._low[column]), float(self._high[column])
            _LOG.warning(
                "observations should be within the bounds of their space, but %s is %g, outside %g "
                "to %g (environment %d, %s); it is taken as it is, and not told of again",
                self._layout.column_name(int(column)), float(obs[step, env, column]), low,
                high, env, _place(rollout, int(step), int(env), first_step),
            )  # fmt: skip
            self._low[leaf.start : leaf.start + leaf.size] = -np.inf
            self._high[leaf.start : leaf.start + leaf.size] = np.inf

            self._is_needed = self._is_bounded()

    def _is_bounded(self) -> bool:
        """Returns True while there are bounds that were kept so far."""
        return bool((np.isfinite(self._low) | np.isfinite(self._high)).any())


def _place(rollout: Rollout, step: int, env: int, first_step: int) -> str:
    """Returns the episode and the step in it, from 1, of a row, where an ending tells them."""
    pairs = zip(rollout.final_at.tolist(), rollout.episodes, strict=True)
    endings = [(t, episode) for (t, n), episode in pairs if n == env]
    for t, episode in endings:
        if t >= step:
            return f"episode {episode.index}, step {episode.episode_length - (t - step)}"
    if endings:
        t, episode = endings[-1]
        return f"episode {episode.index + 1}, step {step - t}"
    return f"its step {first_step + step + 1} of the run"
