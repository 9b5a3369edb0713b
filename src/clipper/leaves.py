"""The simple spaces within an observation, and how each is written into its columns of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.config import ImageLayout
from clipper.errors import SpaceError
from clipper.images import Image, image_of

Float32 = NDArray[np.float32]
Rows = NDArray[Any]
"""Observations [..., D] of an `ObservationLayout`: float32, or bytes where there are images of them."""
SUPPORTED_OBS = (
    "Box vectors and images, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
)
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Leaf:
    """One simple space within an observation.

    Attributes:
        name: Path in the space, such as `camera.angle` or `0`; empty for a simple space.
        path: The keys that lead to it.
        space: The simple Gymnasium space.
        start: First column of its numbers among a row's float32 numbers; of an image of bytes, its
            first column in the row.
        size: How many numbers it has.
        image: How it is taken as an image, or None.
    """

    name: str
    path: tuple[str | int, ...]
    space: spaces.Space[Any]
    start: int
    size: int
    image: Image | None = None

    @property
    def is_box(self) -> bool:
        """True if its numbers are measurements, to be normalised; False for one-hot and bits."""
        return isinstance(self.space, spaces.Box)

    @property
    def is_bytes(self) -> bool:
        """True if it is kept as bytes."""
        return self.image is not None and self.image.is_bytes

    @property
    def columns(self) -> slice:
        """Where its numbers are, see `start`."""
        return slice(self.start, self.start + self.size)


_Part = tuple[str, tuple[str | int, ...], spaces.Space[Any], int, Image | None]


def simple_parts(
    space: spaces.Space[Any], path: tuple[str | int, ...], image_layout: ImageLayout
) -> Iterator[_Part]:
    """Yields name, path, space, size and image of the simple spaces in a space, in their order."""
    children: list[tuple[str | int, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
        if bad := [key for key, _ in children if not isinstance(key, str)]:
            raise SpaceError(
                f"the parts of a Dict observation must have names, but one is {bad[0]!r}.",
                hint="names are kept in files, so that an agent finds its parts again.",
            )
    elif isinstance(space, spaces.Tuple):
        children = list(enumerate(space.spaces))
    else:
        name = ".".join(str(key) if "." not in str(key) else repr(key) for key in path)
        where = f" ({name})" if name else ""
        image = None
        if isinstance(space, spaces.Box):
            image = image_of(space, image_layout, where)
        yield name, path, space, _flat_size(space, where), image
        return
    for key, child in children:
        yield from simple_parts(child, (*path, key), image_layout)


def placed(parts: Sequence[_Part]) -> tuple[tuple[Leaf, ...], int, int, int]:
    """Returns the leaves with their places, K, V, and the bytes that are used (0 for float32 rows)."""
    vector = sum(size for *_, size, image in parts if image is None)
    floats = sum(size for *_, size, image in parts if image is not None and not image.is_bytes)
    has_bytes = any(image is not None and image.is_bytes for *_, image in parts)
    next_vector, next_image, next_byte = 0, vector, (vector + floats) * FLOAT_BYTES
    found = []
    for name, path, space, size, image in parts:
        if image is None:
            start, next_vector = next_vector, next_vector + size
        elif image.is_bytes:
            start, next_byte = next_byte, next_byte + size
        else:
            start, next_image = next_image, next_image + size
        found.append(Leaf(name, path, space, start, size, image))
    return tuple(found), vector, vector + floats, next_byte if has_bytes else 0


def _flat_size(space: spaces.Space[Any], where: str) -> int:
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape, dtype=np.int64))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.MultiBinary):
        return int(np.prod(space.shape, dtype=np.int64))
    raise SpaceError(
        f"an observation space must be made of {SUPPORTED_OBS}, but{where} is {space}.",
        hint="wrap the environment so that its observations are made of these.",
    )


def follow(obs: Any, leaf: Leaf) -> Any:
    """Returns the part of an observation that belongs to a leaf.

    Raises:
        SpaceError: There is none.
    """
    for key in leaf.path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError):
            found = sorted(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
            raise SpaceError(
                f"an observation must have the part {leaf.name!r}, but has {found}."
            ) from None
    return obs


def write_leaf(leaf: Leaf, value: Any, row: Rows) -> None:
    """Writes the value of a leaf into its columns.

    Raises:
        SpaceError: It is not of the leaf's space.
    """
    space = leaf.space
    try:
        array = as_array(value, leaf)
        if array.shape != shape_of(space):
            raise SpaceError(
                f"an observation{of_part(leaf)} must have the shape {shape_of(space)}, "
                f"but has {array.shape}."
            )
        if isinstance(space, spaces.Discrete):
            _one_hot(array.reshape(1) - int(space.start), (int(space.n),), row)
        elif isinstance(space, spaces.MultiDiscrete):
            start = np.asarray(space.start).reshape(-1)
            _one_hot(array.reshape(-1) - start, tuple(space.nvec.reshape(-1)), row)
        elif isinstance(space, spaces.MultiBinary) and not np.isin(array, (0, 1)).all():
            raise ValueError(value)
        elif leaf.is_bytes:
            row[:] = _as_bytes(array).reshape(-1)
        else:
            row[:] = array.reshape(-1)
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, SpaceError):
            raise
        raise SpaceError(
            f"an observation{of_part(leaf)} must belong to {space}, but is {value!r}."
        ) from None


def as_array(value: Any, leaf: Leaf) -> NDArray[Any]:
    """Returns a value as an array of numbers."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty((), dtype=object)
    if array.dtype.kind not in "biuf" and array.size:
        found = "None" if value is None else f"{value!r}"
        raise SpaceError(
            f"an observation{of_part(leaf)} must be numbers of the shape {shape_of(leaf.space)}, "
            f"as {leaf.space} has, but is {found[:80]}."
        )
    return array


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns whole numbers from 0 to 255 as bytes.

    Raises:
        ValueError: There are others.
    """
    with np.errstate(invalid="ignore"):
        found = array.astype(np.uint8, copy=False)
    if found.dtype != array.dtype and not np.array_equal(found, array):
        raise ValueError(array)
    return found


def _one_hot(indices: NDArray[Any], sizes: tuple[int, ...], row: Float32) -> None:
    row[:] = 0.0
    offset = 0
    for index, size in zip(indices.tolist(), sizes, strict=True):
        if not 0 <= index < size or index != int(index):
            raise ValueError(index)
        row[offset + int(index)] = 1.0
        offset += int(size)


def shape_of(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Returns the shape of a space's values."""
    return tuple(space.shape or ())


def of_part(leaf: Leaf) -> str:
    """Returns a leaf's name for a message, or nothing for a simple space."""
    return f" part {leaf.name!r}" if leaf.name else ""
