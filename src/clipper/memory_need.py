"""Settings and spaces in, an error out where what they ask for cannot fit into this machine.

Linux promises memory that there is not, and ends the process that uses it: what is out of all
proportion is refused before. Only the large parts are counted, and once.
"""

from __future__ import annotations

import itertools
import math
import os

import numpy as np

from clipper.action_layout import ActionLayout
from clipper.config import Config
from clipper.errors import ConfigError
from clipper.sampler import block_shapes
from clipper.setting_values import show
from clipper.spaces import ObservationLayout

# an environment, its random generator and its bookkeeping take more
_LEAST_ENV = 1024
# parameters, gradient and Adam's two moments
_VECTORS = 4
_GB = 1e9


def check_memory(
    config: Config,
    obs_layout: ObservationLayout,
    action_layout: ActionLayout,
    available: float | None = None,
) -> None:
    """Raises if a rollout, the replay memory, the environments or the layers cannot fit.

    Args:
        config: The settings.
        obs_layout: How observations lie in their rows.
        action_layout: How actions do.
        available: Bytes that there are; None for this machine's memory.

    Raises:
        ConfigError: Names the settings, what they need and what there is.
    """
    if available is None:
        available = _memory_of_machine()
    num_steps = getattr(config, "num_steps", 1)
    row = sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in block_shapes(1, 1, obs_layout, action_layout)
    )
    # a replay memory is filled as the run goes on
    replayed = min(getattr(config, "replay_capacity", 0) * config.num_envs, config.total_timesteps)
    needs = {
        ("num_envs",): config.num_envs * _LEAST_ENV,
        ("num_steps", "num_envs"): num_steps * config.num_envs * row,
        ("replay_capacity",): replayed * row,
    }
    for name in ("hidden_sizes", "value_hidden_sizes"):
        sizes = getattr(config, name, None) or ()
        weights = sum((left + 1) * right for left, right in itertools.pairwise(sizes))
        needs[name,] = 4 * _VECTORS * (weights + sum(sizes[:1]))
    names, need = max(needs.items(), key=lambda pair: pair[1])
    if need > available:
        given = " and ".join(f"{name} {show(getattr(config, name))}" for name in names)
        raise ConfigError(
            f"what a run needs must fit into memory, but {given} need {need / _GB:,.3g} GB or more, "
            f"and this machine has {available / _GB:.3g}.",
            hint=f"lower {' or '.join(names)}.",
        )


def _memory_of_machine() -> float:
    """Returns the bytes of memory of this machine, or infinity where nobody says it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf
