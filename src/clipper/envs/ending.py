"""How the episode of one environment ended in a step: the observation it ended in, and its record."""

from __future__ import annotations

from dataclasses import dataclass

from clipper.leaves import Rows
from clipper.metrics import Episode


@dataclass(slots=True)
class Ending:
    """How an episode of one environment ended in a step.

    Attributes:
        env: Index of the environment among those stepped together.
        final_obs: The observation the episode truly ended in, [D].
        episode: Its record; `step` is left at 0 for the sampler to fill.
    """

    env: int
    final_obs: Rows
    episode: Episode
