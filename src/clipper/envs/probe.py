"""A maker of environments in, whether an episode on a used one differs from one on a new one out."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from clipper.spaces import ObservationLayout

_SEED = 1
_STEPS = 8
# BipedalWalker's third reset is the first that shows it: Box2D then solves contacts in another order
_REPEATS = 6
# nobody waits for the probe of a slow simulator: what it does not find, resuming does
_MAX_SECONDS = 1.0


def depends_on_past(make: Callable[[], gymnasium.Env[Any, Any]]) -> bool:
    """Returns True if an episode on a used environment is another than on a new one.

    The same short episode, with the same seed and actions, is played on one instance again and
    again. If one differs from the first, and the first does not from another new instance's (then
    the environment does not obey its seed at all), a new instance per episode makes it obey.
    Whatever raises is left for the run to tell.
    """
    opened = [make()]
    started = time.perf_counter()
    try:
        actions = copy.deepcopy(opened[0].action_space)
        actions.seed(_SEED)
        chosen = [actions.sample() for _ in range(_STEPS)]
        layout = ObservationLayout(opened[0].observation_space)
        first = _episode(opened[0], layout, chosen)
        for _ in range(_REPEATS):
            if _episode(opened[0], layout, chosen) != first:
                opened.append(make())
                return _episode(opened[1], layout, chosen) == first
            if time.perf_counter() - started > _MAX_SECONDS:
                break
        return False
    except (Exception, SystemExit):
        return False
    finally:
        for env in opened:
            with contextlib.suppress(Exception, SystemExit):
                env.close()


def _episode(
    env: gymnasium.Env[Any, Any], layout: ObservationLayout, actions: list[Any]
) -> list[tuple[Any, ...]]:
    """Returns all that a short episode gives."""
    row = layout.new_rows()
    obs, _ = env.reset(seed=_SEED)
    layout.write(obs, row)
    found: list[tuple[Any, ...]] = [(row.tobytes(),)]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        layout.write(obs, row)
        if not (np.isfinite(layout.numbers(row)).all() and math.isfinite(float(reward))):
            raise ValueError(reward)  # a fault, which is the run's to tell
        found.append((row.tobytes(), float(reward), bool(terminated), bool(truncated)))
        if terminated or truncated:
            break
    return found
