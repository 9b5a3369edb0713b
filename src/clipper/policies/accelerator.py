"""What may compute a policy faster than torch does, and what it makes of a rollout.

Dimension key: T steps, N envs, D observation size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipper.randomness import Purpose


@dataclass(frozen=True, slots=True)
class Play:
    """Acting in N environments for T steps.

    Attributes:
        act: Fills row t of the actions from row t of the observations.
        judgement: Returns, when so many rows are filled, the log-probabilities of their actions and
            the values of their observations, [T, N] each.
    """

    act: Callable[[int], None]
    judgement: Callable[[int], tuple[Tensor, Tensor]]


class Home(Protocol):
    """Where an engine keeps a policy's parameters."""

    def are_in_place(self) -> bool:
        """Returns True if the parameters are still there, as far as a quick look tells."""
        ...

    def hold(self) -> None:
        """Takes parameters that were put elsewhere back, with the numbers they have now."""
        ...


class Accelerator(Protocol):
    """What computes an MLP policy faster than torch does; its results are those of `ActorCritic`."""

    def act(self, obs: NDArray[np.float32], noise: Tensor | None) -> NDArray[np.generic]:
        """Returns an action for every row of raw observations."""
        ...

    def evaluate(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities and values at raw observations."""
        ...

    def values(self, obs: Tensor) -> Tensor:
        """Returns V of raw observations."""
        ...

    def next_values(
        self, values: Tensor, final_obs: Tensor, final_at: Tensor, last_obs: Tensor
    ) -> Tensor:
        """Returns V of the observation that each step truly ended in."""
        ...

    def merge_observations(self, obs: Tensor) -> None:
        """Adds a rollout's raw observations [T, N, D] to the normaliser's statistics."""
        ...

    def are_finite(self, blocks: Sequence[Tensor]) -> bool:
        """Returns True if no number in the blocks is NaN or infinite."""
        ...

    def is_finite(self) -> bool:
        """Returns True if no number that is learnt is NaN or infinite."""
        ...

    def first_outside(
        self, obs: Tensor, low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> int | None:
        """Returns the flat index of the first number of a block outside its column's bounds."""
        ...

    def play(
        self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None, actions: NDArray[Any]
    ) -> Play:
        """Returns what acts on blocks step by step."""
        ...

    def noise(
        self,
        seed: int,
        purpose: Purpose,
        first_step: int,
        num_steps: int,
        num_envs: int,
        first_env: int = 0,
    ) -> NDArray[np.float32]:
        """Returns the noise of a block's actions."""
        ...
