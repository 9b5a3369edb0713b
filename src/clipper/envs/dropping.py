"""An environment that gave a number which is not finite in, the same one in its next episode out.

The episode ends as truncated at its last good step: the step that went wrong is no row of the rollout
and is not counted, and its row is played in the next episode. Where the last good step lies in the
rollout before, it has been learnt from already, with V of the observation after it. Dimension key:
T steps, N envs, D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, isinf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper.envs.ending import Ending
from clipper.errors import NumericsError
from clipper.faults import MOST_FAULTS, Fault, FaultLedger
from clipper.leaves import Rows
from clipper.metrics import Episode
from clipper.spaces import ObservationLayout

if TYPE_CHECKING:
    from clipper.envs.replay import ReplayableEnvs

LARGEST = float(np.finfo(np.float32).max)
"""The largest reward: rollouts have them as float32."""


class NotFinite(Exception):
    """A step gave an observation or a reward that is not finite; it is not counted.

    Attributes:
        reward: The reward of the step.
    """

    def __init__(self, reward: float) -> None:
        super().__init__(reward)
        self.reward = reward


class Blocks(NamedTuple):
    """What a rollout is collected into, [T, N, ...]; as `ReplayableEnvs.collect`."""

    obs: Rows
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class Dropper:
    """Ends the episodes in which environments give numbers that are not finite.

    Args:
        envs: The environments.
        ledger: Where it is counted.

    Attributes:
        faults: What went wrong since this was last emptied.
    """

    def __init__(self, envs: ReplayableEnvs, ledger: FaultLedger) -> None:
        self._envs = envs
        self._ledger = ledger
        self.faults: list[Fault] = []

    def is_good(self, i: int, reward: float = 0.0) -> bool:
        """Returns True if a reward, and the observation that an environment is in, are finite."""
        return what_is_not_finite(self._envs.obs_layout, self._envs.obs[i], reward) is None

    def begin(self, i: int) -> None:
        """Starts the next episode whose first observation is finite, if the present one's is not.

        Raises:
            NumericsError: It was the environment's third fault within an hour.
        """
        while not self.is_good(i):
            self._note(i, 0.0, None)
            self._envs.begin_next(i)

    def drop(self, i: int, reward: float, actions: NDArray[Any]) -> Episode | None:
        """Starts the next episode and returns the record of the one that went wrong.

        Args:
            i: The environment; the observation it is in is that of the step that went wrong.
            reward: The reward of that step.
            actions: Sampled actions since the reset, that step's included, [n, A].

        Returns:
            The episode up to its last good step, or None if it had none.

        Raises:
            NumericsError: It was the environment's third fault within an hour.
        """
        self._note(i, reward, actions)
        record = self._envs.cut_record(i)
        self._envs.begin_next(i)
        self.begin(i)
        return record if record.episode_length else None

    def cut(self, t: int, i: int, reward: float, blocks: Blocks) -> Ending | None:
        """Starts the next episode in row t of a rollout; returns how the one that went wrong ended.

        Args:
            t: The row in which it went wrong; the one before is marked as truncated.
            i: The environment.
            reward: The reward of the step that went wrong.
            blocks: The rollout.

        Returns:
            The ending, in row t - 1, or None if no step of the episode is in this rollout.

        Raises:
            NumericsError: It was the environment's third fault within an hour.
        """
        record = self.drop(i, reward, self._envs.actions_since_reset(i, blocks.actions, t))
        if record is None or t == 0:
            return None
        blocks.truncated[t - 1, i] = True
        return Ending(i, blocks.obs[t, i].copy(), record)

    def play_again(
        self, t: int, i: int, reward: float, act: Callable[[int], None], blocks: Blocks
    ) -> list[tuple[int, Ending]]:
        """Plays row t of environment i in its next episode; returns endings with their rows.

        Args:
            t: The row in which it went wrong.
            i: The environment.
            reward: The reward of the step that went wrong.
            act: Fills row t of the actions from row t of the observations.
            blocks: The rollout, in which row t of the environment is written.

        Raises:
            EnvironmentFault: The environment raised or broke the contract.
            NumericsError: It was the environment's third fault within an hour.
        """
        found: list[tuple[int, Ending]] = []
        while True:
            cut = self.cut(t, i, reward, blocks)
            if cut is not None:
                found.append((t - 1, cut))
            blocks.obs[t, i] = self._envs.obs[i]
            # the other environments have been stepped with theirs
            kept = blocks.actions[t].copy()
            act(t)
            kept[i] = blocks.actions[t, i]
            blocks.actions[t] = kept
            try:
                blocks.rewards[t, i], ending = self._envs.step_one(i, blocks.actions[t, i : i + 1])
            except NotFinite as bad:
                reward = bad.reward
                continue
            if ending is not None:
                blocks.terminated[t, i] = not ending.episode.truncated
                blocks.truncated[t, i] = ending.episode.truncated
                found.append((t, ending))
            return found

    def _note(self, i: int, reward: float, actions: NDArray[Any] | None) -> None:
        """Notes what an environment gave, in a step or, without actions, in a reset."""
        envs = self._envs
        record = envs.cut_record(i)
        what = what_is_not_finite(envs.obs_layout, envs.obs[i], reward)
        fault = Fault(
            env=record.env,
            episode=record.index,
            seed=envs.seed_of(i),
            step=0 if actions is None else record.episode_length + 1,
            how=f"gave {what}",
            report="",
            actions=envs.no_actions if actions is None else actions.copy(),
            num_lost=0,
        )
        self.faults.append(fault)
        if self._ledger.count(fault.env):
            raise too_often(fault)


def what_is_not_finite(layout: ObservationLayout, row: Rows, reward: float) -> str | None:
    """Returns what of a step's result is not finite, in words to follow "gave", or None.

    Args:
        layout: How the observation lies in its row.
        row: The observation, [D].
        reward: The reward; one too large for float32 is infinite, as in the blocks of a rollout.
    """
    if not abs(reward) <= LARGEST:
        return f"{reward} as the reward" + (" (too large for float32)" if isfinite(reward) else "")
    numbers = layout.numbers(row)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if not len(bad):
        return None
    column = int(bad[0])
    found = f"{numbers[column]}" + (" (or too large for float32)" if isinf(numbers[column]) else "")
    return f"{found} in {layout.column_name(column)} of the observation"


def too_often(fault: Fault) -> NumericsError:
    """Returns the error that ends a run for an environment's third fault within an hour."""
    return NumericsError(
        f"an environment must not fail {MOST_FAULTS} times within an hour, but {fault}.",
        hint="find the step in its code that divides or overflows: `clipper replay` plays an episode "
        "of the run's faults/ again.",
    )
