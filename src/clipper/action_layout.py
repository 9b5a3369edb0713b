"""A space of actions in, how they are sampled and handed to `env.step` out.

Box is sampled as numbers and scaled from [-1, 1], the others as category indices from 0 or as bits.
Dimension key: N rows, A numbers or indices of an action.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.errors import SpaceError

SUPPORTED_ACTIONS = "Box, Discrete, MultiDiscrete and MultiBinary"
# the largest float and the like are written for "none"; nobody means to span them
_NO_BOUND = 1e18
ActionKind = Literal["box", "discrete", "multi_discrete", "multi_binary"]


class ActionLayout:
    """How actions of a space are sampled and handed to `env.step`.

    Args:
        space: The action space.

    Attributes:
        kind: box, discrete, multi_discrete or multi_binary.
        size: Numbers (box), category indices or bits of one action, A.
        num_categories: Categories of each index; empty for box and multi_binary.

    Raises:
        SpaceError: The space is not supported.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self.kind: ActionKind
        self.num_categories: tuple[int, ...] = ()
        # true if what is sampled is what the environment takes, but for clipping
        self._plain = False
        if isinstance(space, spaces.Box):
            self.kind = "box"
            self._read_box(space)
        elif isinstance(space, spaces.Discrete):
            self.kind = "discrete"
            self.num_categories = (int(space.n),)
            self._start = np.array([int(space.start)])
            self._plain = self._start[0] == 0 and space.dtype == np.int64
        elif isinstance(space, spaces.MultiDiscrete):
            self.kind = "multi_discrete"
            self.num_categories = tuple(int(n) for n in space.nvec.reshape(-1))
            self._start = np.asarray(space.start, dtype=np.int64).reshape(-1)
        elif isinstance(space, spaces.MultiBinary):
            self.kind = "multi_binary"
        else:
            raise SpaceError(
                f"an action space must be one of {SUPPORTED_ACTIONS}, but is {space}.",
                hint="wrap the environment so that its actions are one of these.",
            )
        self.size = len(self.num_categories) or int(np.prod(space.shape or (1,), dtype=np.int64))
        if not self.size:
            raise SpaceError(
                f"an action must have at least one number, but the space is {space}.",
                hint="give the environment an action that it does not look at.",
            )

    def _read_box(self, space: spaces.Box) -> None:
        if not np.issubdtype(space.dtype, np.floating):
            raise SpaceError(
                f"a Box of actions must hold floating point numbers, but holds {space.dtype}.",
                hint="use MultiDiscrete for whole numbers.",
            )
        self._low: NDArray[Any] = space.low.astype(np.float64).reshape(-1)
        self._high: NDArray[Any] = space.high.astype(np.float64).reshape(-1)
        bounded = self._bounded = (np.abs(self._low) < _NO_BOUND) & (np.abs(self._high) < _NO_BOUND)
        if np.any(self._low > self._high):
            raise SpaceError(
                f"low must be at most high in a Box of actions, but the space is {space}."
            )
        # a bounded axis maps [-1, 1] onto [low, high]; any other is passed through
        low, high = np.where(bounded, self._low, -1.0), np.where(bounded, self._high, 1.0)
        self._scale, self._centre = (high - low) / 2, (high + low) / 2
        is_unscaled = bool(np.all(self._scale == 1) and np.all(self._centre == 0))
        self._plain = is_unscaled and space.dtype != np.float16  # which clipping does not make
        if self._plain:
            self._low, self._high = space.low.reshape(-1), space.high.reshape(-1)

    @property
    def is_continuous(self) -> bool:
        """True for Box."""
        return self.kind == "box"

    @property
    def dtype(self) -> type[np.float32] | type[np.int64]:
        """float32 for Box, int64 for category indices and bits: the type actions are stored in."""
        return np.float32 if self.kind == "box" else np.int64

    @property
    def box_scale(self) -> tuple[bool, list[list[float]]] | None:
        """How `to_env` makes Box actions, for the native engine; None for all other spaces.

        True if samples need clipping alone; low, high, scale and centre of each number.
        """
        if self.kind != "box":
            return None
        columns = (self._low, self._high, self._scale, self._centre)
        return self._plain, [[float(x) for x in column] for column in columns]

    def to_env(self, actions: NDArray[Any]) -> list[Any]:
        """Returns what `env.step` takes for each row of sampled actions [N, A], fresh objects.

        Box actions are scaled to the space and clipped to its bounds here and nowhere else.
        """
        if self.kind == "discrete":
            # scalars of the space's type, as `space.sample()` gives: ints are checked more slowly
            indices = actions[:, 0]
            if not self._plain:
                indices = (indices + self._start[0]).astype(self.space.dtype)
            return list(indices)
        if self._plain and len(self.space.shape or ()) == 1:
            # the method, because np.clip takes three times as long
            return list(actions.clip(self._low, self._high))
        shape = (len(actions), *(self.space.shape or ()))
        if self.kind == "box":
            scaled = actions if self._plain else actions * self._scale + self._centre
            clipped = scaled.clip(self._low, self._high)
            return list(clipped.astype(self.space.dtype, copy=False).reshape(shape))
        if self.kind == "multi_discrete":
            actions = actions + self._start
        return list(actions.astype(self.space.dtype).reshape(shape))

    def drawn(self, count: int, generator: np.random.Generator) -> NDArray[Any]:
        """Returns sampled actions [count, A]: standard normal numbers, or every category alike."""
        if self.kind == "box":
            return generator.standard_normal((count, self.size), dtype=np.float32)
        return generator.integers(0, self.num_categories or 2, (count, self.size))

    def saturation(self, actions: NDArray[Any]) -> float | None:
        """Returns the share of bounded numbers sampled outside the bounds, or None if not box."""
        if self.kind != "box":
            return None
        bounded = self._bounded
        if not bounded.any():
            return None
        return float((np.abs(actions[..., bounded]) > 1.0).mean())

    def describe(self) -> list[str]:
        """Returns a line for every change an action meets on its way to the environment."""
        if self.kind == "box":
            bounded = self._bounded
            if not bounded.any():
                is_free = np.isinf(self._low).all() and np.isinf(self._high).all()
                return [] if is_free else ["actions: clipped to their bounds"]
            if self._plain:
                return ["actions: clipped to [-1, 1] when they are handed to the environment"]
            low, high = _span(self._low[bounded]), _span(self._high[bounded])
            return [f"actions: [-1, 1] scaled to [{low}, {high}] and clipped there"]
        if self.kind == "discrete" and self._start[0] != 0:
            return [f"actions: numbered from {self._start[0]}"]
        return []


def _span(values: NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
