"""What a share's environments did in, where they are out: without the process that they are in.

Dimension key: T steps, K envs of a share, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.errors import InvariantBreach
from clipper.rollout import Rollout
from clipper.spaces import ObservationLayout

# of an episode longer than this the actions are not kept
_MOST_ACTIONS = 200_000
# rollouts whose actions are sorted by episode at once: after every one it takes a percent of CartPole
_MOST_RECENT = 32

# where the episodes of a rollout ended, [F, 2] of steps and environments, and its actions, [T, K, A]
_Played = tuple[NDArray[np.int64], NDArray[Any]]
_Standing = dict[str, NDArray[Any]]


class _Point(NamedTuple):
    """Where the environments were after so many steps."""

    steps: int
    standing: _Standing | None
    since: list[list[NDArray[Any]]]
    recent: list[_Played]
    obs: NDArray[Any] | None


class Whereabouts:
    """Where the environments of a share are, and at one point in time that was marked.

    Args:
        num_envs: K.

    Attributes:
        standing: Episode, length and return of each, [K], or None before a worker has told them.
    """

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self.standing: _Standing | None = None
        # for each environment blocks of actions since its last reset
        self._since: list[list[NDArray[Any]]] = [[] for _ in range(num_envs)]
        self._recent: list[_Played] = []
        # observations that they are in, or None if the worker alone knows
        self._obs: NDArray[Any] | None = None
        self.mark(0)

    def now(self) -> _Standing:
        """Returns where they are, before a worker has told in their first episodes."""
        return at_first(self._num_envs) if self.standing is None else self.standing

    def begin(self, standing: _Standing) -> None:
        """Has them be where `standing` says; of their actions nothing is known."""
        self.standing = standing
        self._since = [[] for _ in range(self._num_envs)]
        self._recent.clear()
        self._obs = None

    def take(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes over where a worker says that they are, and their actions since the reset."""
        self.begin({name: state[name] for name in ("episodes", "lengths", "returns")})
        since = np.split(state["actions"], np.cumsum(state["replayed"])[:-1])
        self._since = [[actions] for actions in since]
        self._obs = state["obs"]

    def remember(self, rollout: Rollout) -> None:
        """Keeps the actions of a rollout, of which a fault or a checkpoint may need the last ones."""
        # not its flags: a life that was lost ends nothing
        self._recent.append((rollout.final_at.numpy(), rollout.actions.numpy()))
        self._obs = rollout.last_obs.numpy()
        if len(self._recent) >= _MOST_RECENT:
            _sort_out(self._since, self._recent)

    def actions_of(self, env: int) -> list[NDArray[Any]]:
        """Returns the actions of an environment since its last reset, in blocks [n, A]."""
        _sort_out(self._since, self._recent)
        return self._since[env]

    def mark(self, steps: int) -> None:
        """Remembers this point in time, until the next one is marked."""
        since = [blocks.copy() for blocks in self._since]
        self._marked = _Point(steps, self.standing, since, self._recent.copy(), self._obs)

    def marked(
        self, steps: int, obs_layout: ObservationLayout, action_layout: ActionLayout
    ) -> _Standing | None:
        """Returns a sampler's state at the point that was marked, or None if the worker alone knows it.

        Args:
            steps: Of that point.
            obs_layout: How observations lie in their rows.
            action_layout: How actions do.

        Raises:
            InvariantBreach: Another point is asked for.
        """
        point = self._marked
        if point.steps != steps:
            raise InvariantBreach(
                f"a worker's environments must be known at step {steps}, but are at {point.steps}."
            )
        if point.standing is None:
            return {"steps": np.array([steps], dtype=np.int64)}
        if point.obs is None:
            return None
        _sort_out(point.since, point.recent)
        none, parts = _no_actions(action_layout), []
        for blocks, length in zip(point.since, point.standing["lengths"].tolist(), strict=True):
            actions = np.concatenate([none, *blocks])
            parts.append(actions[len(actions) - length :] if len(actions) >= length else none)
        return {
            "steps": np.array([steps], dtype=np.int64),
            "actions": np.concatenate(parts),
            "replayed": np.array([len(part) for part in parts], dtype=np.int64),
            "obs": point.obs,
            **point.standing,
        }

    def marked_anew(self, obs_layout: ObservationLayout, action_layout: ActionLayout) -> _Standing:
        """Returns the state in which those of the marked point begin their next episodes."""
        steps, standing = self._marked.steps, self._marked.standing
        assert standing is not None
        return {
            "steps": np.array([steps], dtype=np.int64),
            **at_first(self._num_envs),
            "episodes": standing["episodes"] + 1,
            "replayed": np.zeros(self._num_envs, np.int64),
            "obs": obs_layout.new_rows(self._num_envs),
            "actions": _no_actions(action_layout),
        }


def at_first(num_envs: int) -> _Standing:
    """Returns where environments are of which nobody has told yet."""
    return {
        "episodes": np.zeros(num_envs, np.int64),
        "lengths": np.zeros(num_envs, np.int64),
        "returns": np.zeros(num_envs),
    }


def _no_actions(layout: ActionLayout) -> NDArray[Any]:
    return np.zeros((0, layout.size), dtype=layout.dtype)


def _sort_out(since: list[list[NDArray[Any]]], recent: list[_Played]) -> None:
    """Adds recent actions to those since the last resets and drops those of episodes that ended.

    Args:
        since: For each environment blocks of actions [n, A], in order; changed in place.
        recent: Of rollouts, in order; emptied.
    """
    for final_at, actions in recent:
        for i, blocks in enumerate(since):
            ends = final_at[final_at[:, 1] == i, 0]
            if len(ends):
                blocks.clear()
            blocks.append(actions[ends[-1] + 1 if len(ends) else 0 :, i])
            if sum(map(len, blocks)) > _MOST_ACTIONS:
                blocks.clear()
    recent.clear()
