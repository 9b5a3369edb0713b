"""Gymnasium spaces in, flat layouts of named tensors out, and back.

An observation of any supported space becomes one row of float32 numbers: Box as it is, Discrete and
MultiDiscrete one-hot, MultiBinary as 0 and 1, Dict and Tuple one leaf after the other. Where a part is
an image of bytes, the row is bytes: those of the float32 numbers, then those of the images. An action
is sampled as numbers (Box scaled to [-1, 1]) or category indices from 0 and becomes what `env.step`
expects. Dimension key: N rows, D observation size, V float32 numbers of a row, K of them that are no
image's, A numbers or indices of an action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.config import ImageLayout
from clipper.errors import NumericsError, SpaceError
from clipper.images import Image, image_of

Float32 = NDArray[np.float32]
Rows = NDArray[Any]
"""Observations [..., D] of an `ObservationLayout`: float32, or bytes where there are images of them."""
SUPPORTED_OBS = (
    "Box vectors and images, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
)
_FLOAT_BYTES = 4
SUPPORTED_ACTIONS = "Box, Discrete, MultiDiscrete and MultiBinary"


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
        parts = list(_parts(space, (), image_layout))
        self.leaves, self.num_vector, self.num_numbers, used = _placed(parts)
        self.images = tuple(leaf for leaf in self.leaves if leaf.image is not None)
        self.row_type: type[np.float32] | type[np.uint8] = np.float32
        self.size = self.num_numbers
        self._used = self.size
        if used:
            self.row_type = np.uint8
            self._used = used
            self.size = -(-used // _FLOAT_BYTES) * _FLOAT_BYTES
        if self.size == 0:
            raise SpaceError(
                f"an observation must have at least one number, but the space is {space}."
            )
        # a Box that keeps its promise is copied without further looking
        self._shape = space.shape if isinstance(space, spaces.Box) else None
        self._dtype = space.dtype if isinstance(space, spaces.Box) else None

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
        return f"column {column - leaf.start}{_of(leaf).replace(' part', ' of part')}"

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
        return rows[..., : self.num_numbers * _FLOAT_BYTES].view(np.float32)

    def vector(self, rows: Rows) -> Float32:
        """Returns the numbers of rows [..., D] that are no image's, a view [..., K]."""
        return self.numbers(rows)[..., : self.num_vector]

    def write(self, obs: Any, row: Rows) -> None:
        """Copies one observation into a row, [D].

        Raises:
            SpaceError: It does not have the shape or type that the space promises.
        """
        if type(obs) is np.ndarray and obs.shape == self._shape and obs.dtype == self._dtype:
            flat = obs if obs.ndim == 1 else obs.reshape(-1)
            if self._used == self.size:
                row[:] = flat
            else:
                row[: self._used], row[self._used :] = flat, 0
            return
        if not self.has_bytes:
            for leaf in self.leaves:
                _write_leaf(leaf, _follow(obs, leaf), row[leaf.columns])
            return
        row[self._used :] = 0
        numbers = self.numbers(row)
        for leaf in self.leaves:
            _write_leaf(leaf, _follow(obs, leaf), (row if leaf.is_bytes else numbers)[leaf.columns])

    def is_single(self, obs: Any) -> bool:
        """Returns True if `obs` is one observation, False if it has a leading batch axis.

        Raises:
            SpaceError: It is neither.
        """
        leaf = self.leaves[0]
        value = _as_array(_follow(obs, leaf), leaf)
        single = _shape_of(leaf.space)
        if value.shape == single:
            return True
        if value.shape[1:] == single and value.ndim == len(single) + 1:
            return False
        raise SpaceError(
            f"an observation{_of(leaf)} must have the shape {single}, or [N, ...] for a batch, "
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
        parts = [_as_array(_follow(obs, leaf), leaf) for leaf in self.leaves]
        rows = self.new_rows(len(parts[0]))
        numbers = self.numbers(rows)
        for leaf, part in zip(self.leaves, parts, strict=True):
            if len(part) != len(rows):
                raise SpaceError(
                    f"all parts of a batch must have {len(rows)} rows, but{_of(leaf)} has {len(part)}."
                )
            for row, value in zip(rows if leaf.is_bytes else numbers, part, strict=True):
                _write_leaf(leaf, value, row[leaf.columns])
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
                lines.append(f"{label}: {leaf.image.describe(_shape_of(leaf.space))}")
            elif isinstance(leaf.space, spaces.Box) and len(leaf.space.shape) >= 2:
                lines.append(
                    f"{label}: Box{list(leaf.space.shape)} is flattened to {leaf.size} numbers"
                )
            elif isinstance(leaf.space, (spaces.Discrete, spaces.MultiDiscrete)):
                lines.append(f"{label}: {leaf.space} becomes {leaf.size} one-hot numbers")
        return lines


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

    def _read_box(self, space: spaces.Box) -> None:
        if not np.issubdtype(space.dtype, np.floating):
            raise SpaceError(
                f"a Box of actions must hold floating point numbers, but holds {space.dtype}.",
                hint="use MultiDiscrete for whole numbers.",
            )
        self._low: NDArray[Any] = space.low.astype(np.float64).reshape(-1)
        self._high: NDArray[Any] = space.high.astype(np.float64).reshape(-1)
        bounded = np.isfinite(self._low) & np.isfinite(self._high)
        if np.any(self._low > self._high):
            raise SpaceError(
                f"low must be at most high in a Box of actions, but the space is {space}."
            )
        # a bounded axis maps [-1, 1] onto [low, high]; any other is passed through
        low, high = np.where(bounded, self._low, -1.0), np.where(bounded, self._high, 1.0)
        self._scale, self._centre = (high - low) / 2, (high + low) / 2
        self._plain = bool(np.all(self._scale == 1) and np.all(self._centre == 0))
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

    def saturation(self, actions: NDArray[Any]) -> float | None:
        """Returns the share of bounded numbers sampled outside the bounds, or None if not box."""
        if self.kind != "box":
            return None
        bounded = np.isfinite(self._low) & np.isfinite(self._high)
        if not bounded.any():
            return None
        return float((np.abs(actions[..., bounded]) > 1.0).mean())

    def describe(self) -> list[str]:
        """Returns a line for every change an action meets on its way to the environment."""
        if self.kind == "box":
            bounded = np.isfinite(self._low) & np.isfinite(self._high)
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


_Part = tuple[str, tuple[str | int, ...], spaces.Space[Any], int, Image | None]


def _parts(
    space: spaces.Space[Any], path: tuple[str | int, ...], image_layout: ImageLayout
) -> Iterator[_Part]:
    """Yields name, path, space, size and image of the simple spaces in a space, in their order."""
    children: list[tuple[str | int, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
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
        yield from _parts(child, (*path, key), image_layout)


def _placed(parts: Sequence[_Part]) -> tuple[tuple[Leaf, ...], int, int, int]:
    """Returns the leaves with their places, K, V, and the bytes that are used (0 for float32 rows)."""
    vector = sum(size for *_, size, image in parts if image is None)
    floats = sum(size for *_, size, image in parts if image is not None and not image.is_bytes)
    has_bytes = any(image is not None and image.is_bytes for *_, image in parts)
    next_vector, next_image, next_byte = 0, vector, (vector + floats) * _FLOAT_BYTES
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


def _follow(obs: Any, leaf: Leaf) -> Any:
    for key in leaf.path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError):
            found = sorted(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
            raise SpaceError(
                f"an observation must have the part {leaf.name!r}, but has {found}."
            ) from None
    return obs


def _write_leaf(leaf: Leaf, value: Any, row: Rows) -> None:
    space = leaf.space
    try:
        array = _as_array(value, leaf)
        if array.shape != _shape_of(space):
            raise SpaceError(
                f"an observation{_of(leaf)} must have the shape {_shape_of(space)}, "
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
            f"an observation{_of(leaf)} must belong to {space}, but is {value!r}."
        ) from None


def _as_array(value: Any, leaf: Leaf) -> NDArray[Any]:
    """Returns a value as an array of numbers."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty((), dtype=object)
    if array.dtype.kind not in "biuf" and array.size:
        found = "None" if value is None else f"{value!r}"
        raise SpaceError(
            f"an observation{_of(leaf)} must be numbers of the shape {_shape_of(leaf.space)}, "
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


def _shape_of(space: spaces.Space[Any]) -> tuple[int, ...]:
    return tuple(space.shape or ())


def _of(leaf: Leaf) -> str:
    return f" part {leaf.name!r}" if leaf.name else ""


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
