"""An observation space in, a flat layout of named tensors out, and back.

An observation of any supported space becomes one row of float32 numbers: Box as it is, Discrete and
MultiDiscrete one-hot, MultiBinary as 0 and 1, Dict and Tuple one leaf after the other. Where a part is
an image of bytes, the row is bytes: those of the float32 numbers, then those of the images.
Dimension key: N rows, D observation size, V float32 numbers of a row, K of them that are no image's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.config import ImageLayout
from clipper.errors import NumericsError, SpaceError
from clipper.leaves import (
    FLOAT_BYTES,
    Float32,
    Leaf,
    Rows,
    as_array,
    follow,
    of_part,
    placed,
    shape_of,
    simple_parts,
    write_leaf,
)


class ObservationLayout:
    """How observations of a space lie in a row of `size` numbers.

    A row is float32 [D] unless the space holds images of bytes; then it is uint8 [D]: the bytes of V
    float32 numbers, the images, and zeros up to a multiple of four. The first K of the V numbers are
    those of all parts that are no images.

    Args:
        space: The observation space.
        image_layout: Where images have their channels; see `clipper.images.image_of`.

    Attributes:
        leaves: The simple spaces in it, in their order.
        images: Those that are images.
        num_numbers: V.
        num_vector: K.
        row_type: Type of a row's numbers, float32 or uint8.
        size: D.

    Raises:
        SpaceError: The space, or a part of it, is not supported.
    """

    def __init__(self, space: spaces.Space[Any], image_layout: ImageLayout = "auto") -> None:
        self.space = space
        parts = list(simple_parts(space, (), image_layout))
        self.leaves, self.num_vector, self.num_numbers, used = placed(parts)
        self.images = tuple(leaf for leaf in self.leaves if leaf.image is not None)
        self.row_type: type[np.float32] | type[np.uint8] = np.float32
        self.size = self.num_numbers
        self._used = self.size
        if used:
            self.row_type = np.uint8
            self._used = used
            self.size = -(-used // FLOAT_BYTES) * FLOAT_BYTES
        if self.size == 0:
            raise SpaceError(
                f"an observation must have at least one number, but the space is {space}."
            )
        # a Box that keeps its promise is copied without further looking
        self._shape = space.shape if isinstance(space, spaces.Box) else None
        self._dtype = space.dtype if isinstance(space, spaces.Box) else None
        self._is_wide = any(leaf.space.dtype == np.float64 for leaf in self.leaves)

    @property
    def has_bytes(self) -> bool:
        """True if rows are bytes, for the images in them."""
        return self.row_type is np.uint8

    @property
    def kind_of_images(self) -> str:
        """`images` if there are no other numbers, `images-and-numbers` if there are; else empty."""
        if not self.images:
            return ""
        return "images-and-numbers" if self.num_vector else "images"

    @property
    def plain(self) -> tuple[np.dtype[Any] | None, tuple[int, ...] | None]:
        """Type and shape of observations that are rows already: Box vectors; else None."""
        if self._shape is None or len(self._shape) != 1:
            return None, None
        return self._dtype, self._shape

    @property
    def box_columns(self) -> NDArray[np.bool_]:
        """True for the columns that come from Box vectors, bool [K]."""
        columns = np.zeros(self.num_vector, dtype=bool)
        for leaf in self.leaves:
            if leaf.image is None:
                columns[leaf.columns] = leaf.is_box
        return columns

    @property
    def bounds(self) -> tuple[Float32, Float32]:
        """Least and largest of every number that the space allows, [V] each; may be infinite."""
        low = np.full(self.num_numbers, -np.inf, dtype=np.float32)
        high = np.full(self.num_numbers, np.inf, dtype=np.float32)
        # a float64 bound too large for float32 is none
        with np.errstate(over="ignore"):
            for leaf in self.leaves:
                if isinstance(leaf.space, spaces.Box) and not leaf.is_bytes:
                    low[leaf.columns] = leaf.space.low.reshape(-1)
                    high[leaf.columns] = leaf.space.high.reshape(-1)
        return low, high

    def leaf_of(self, column: int) -> Leaf:
        """Returns the simple space that one of the V numbers belongs to."""
        return next(
            leaf
            for leaf in self.leaves
            if not leaf.is_bytes and leaf.start <= column < leaf.start + leaf.size
        )

    def column_name(self, column: int) -> str:
        """Returns one of the V numbers in words: `column 2`, or `column 0 of part 'clock'`."""
        leaf = self.leaf_of(column)
        return f"column {column - leaf.start}{of_part(leaf).replace(' part', ' of part')}"

    @property
    def module_size(self) -> int | tuple[int, ...] | dict[str, tuple[int, ...]]:
        """What a network of the user's is told of its input: D, or its shapes if there are images.

        [channels, height, width] of an image that is the whole observation; else the shape of every
        part by its name.
        """
        if not self.images:
            return self.size
        shapes: dict[str, tuple[int, ...]] = {
            leaf.name: (leaf.size,) if leaf.image is None else leaf.image.network_shape
            for leaf in self.leaves
        }
        return shapes[""] if list(shapes) == [""] else shapes

    def new_rows(self, *shape: int) -> Rows:
        """Returns rows of zeros, [*shape, D]."""
        return np.zeros((*shape, self.size), dtype=self.row_type)

    def numbers(self, rows: Rows) -> Float32:
        """Returns the float32 numbers of rows [..., D], those of images included, a view [..., V]."""
        if not self.has_bytes:
            return rows
        return rows[..., : self.num_numbers * FLOAT_BYTES].view(np.float32)

    def vector(self, rows: Rows) -> Float32:
        """Returns the numbers of rows [..., D] that are no image's, a view [..., K]."""
        return self.numbers(rows)[..., : self.num_vector]

    def write(self, obs: Any, row: Rows) -> None:
        """Copies one observation into a row, [D].

        Raises:
            SpaceError: It does not have the shape or type that the space promises.
        """
        if self._is_wide:
            # a float64 too large for float32 is infinite, which is told where rows are looked at
            with np.errstate(over="ignore"):
                self._write(obs, row)
        else:
            self._write(obs, row)

    def _write(self, obs: Any, row: Rows) -> None:
        if type(obs) is np.ndarray and obs.shape == self._shape and obs.dtype == self._dtype:
            flat = obs if obs.ndim == 1 else obs.reshape(-1)
            if self._used == self.size:
                row[:] = flat
            else:
                row[: self._used], row[self._used :] = flat, 0
            return
        if not self.has_bytes:
            for leaf in self.leaves:
                write_leaf(leaf, follow(obs, leaf), row[leaf.columns])
            return
        row[self._used :] = 0
        numbers = self.numbers(row)
        for leaf in self.leaves:
            write_leaf(leaf, follow(obs, leaf), (row if leaf.is_bytes else numbers)[leaf.columns])

    def is_single(self, obs: Any) -> bool:
        """Returns True if `obs` is one observation, False if it has a leading batch axis.

        Raises:
            SpaceError: It is neither.
        """
        leaf = self.leaves[0]
        value = as_array(follow(obs, leaf), leaf)
        single = shape_of(leaf.space)
        if value.shape == single:
            return True
        if value.shape[1:] == single and value.ndim == len(single) + 1:
            return False
        raise SpaceError(
            f"an observation{of_part(leaf)} must have the shape {single}, or [N, ...] for a batch, "
            f"but has {value.shape}.",
            hint=f"the observation space is {self.space}.",
        )

    def rows(self, obs: Any) -> Rows:
        """Returns one observation or a batch of them as rows, [N, D] (N = 1 for one).

        Raises:
            SpaceError: The observation does not fit the space.
            NumericsError: A number in it is not finite.
        """
        # a float64 too large for float32 is infinite, which is told below
        with np.errstate(over="ignore"):
            rows = self._rows(obs)
        numbers = self.numbers(rows)
        bad = np.argwhere(~np.isfinite(numbers))
        if len(bad):
            row, column = bad[0].tolist()
            raise NumericsError(
                f"every number of an observation must be finite, but {self.column_name(column)} "
                f"is {numbers[row, column]}"
                f"{f' in row {row}' if len(rows) > 1 else ''}."
            )
        return rows

    def _rows(self, obs: Any) -> Rows:
        if self.is_single(obs):
            rows = self.new_rows(1)
            self.write(obs, rows[0])
            return rows
        parts = [as_array(follow(obs, leaf), leaf) for leaf in self.leaves]
        rows = self.new_rows(len(parts[0]))
        numbers = self.numbers(rows)
        for leaf, part in zip(self.leaves, parts, strict=True):
            if len(part) != len(rows):
                raise SpaceError(
                    f"all parts of a batch must have {len(rows)} rows, but{of_part(leaf)} has "
                    f"{len(part)}."
                )
            for row, value in zip(rows if leaf.is_bytes else numbers, part, strict=True):
                write_leaf(leaf, value, row[leaf.columns])
        return rows

    def split(self, rows: Any) -> dict[str, Any]:
        """Returns the columns of each leaf by name; works on float arrays and tensors [..., V]."""
        return {leaf.name: rows[..., leaf.columns] for leaf in self.leaves if not leaf.is_bytes}

    def describe(self) -> list[str]:
        """Returns a line for every leaf that is changed on its way into the network."""
        lines = []
        for leaf in self.leaves:
            label = leaf.name or "observation"
            if leaf.image is not None:
                lines.append(f"{label}: {leaf.image.describe(shape_of(leaf.space))}")
            elif isinstance(leaf.space, spaces.Box) and len(leaf.space.shape) >= 2:
                lines.append(
                    f"{label}: Box{list(leaf.space.shape)} is flattened to {leaf.size} numbers"
                )
            elif isinstance(leaf.space, (spaces.Discrete, spaces.MultiDiscrete)):
                lines.append(f"{label}: {leaf.space} becomes {leaf.size} one-hot numbers")
        return lines


def describe_space(space: spaces.Space[Any]) -> str:
    """Returns a space in a few words, such as `Box of 8 numbers, -10 to 10`."""
    if isinstance(space, spaces.Box):
        size = int(np.prod(space.shape, dtype=np.int64))
        low = float(space.low.astype(np.float64).min(initial=np.inf))
        high = float(space.high.astype(np.float64).max(initial=-np.inf))
        shape = f" {list(space.shape)}" if len(space.shape) != 1 else ""
        return f"Box{shape} of {size} number{'s' * (size != 1)}, {low:g} to {high:g}"
    if isinstance(space, spaces.Dict):
        parts = [f"{name}: {describe_space(part)}" for name, part in space.spaces.items()]
        return "Dict of " + "; ".join(parts)
    if isinstance(space, spaces.Tuple):
        return "Tuple of " + "; ".join(describe_space(part) for part in space.spaces)
    return str(space)


Spaces = tuple[spaces.Space[Any], spaces.Space[Any]]
"""Of observations and of actions."""


def check_same_spaces(name: str, found: Spaces, wanted: Spaces) -> None:
    """Raises unless an environment has the spaces that an agent was trained in.

    Args:
        name: The environment's.
        found: What it has.
        wanted: What the agent knows.

    Raises:
        SpaceError: One of the two differs.
    """
    for kind, has, knows in zip(("observation", "action"), found, wanted, strict=True):
        if has != knows:
            raise SpaceError(
                f"the {kind} space of {name} must be the one the agent was trained in, "
                f"{describe_space(knows)}, but is {describe_space(has)}.",
                hint="was its code, or what its arguments name, changed since? An agent fits the "
                "environment it was trained in alone.",
            )
