"""Gymnasium spaces in, JSON values and tensors out, and back: how a file says what it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.errors import SpaceError


def space_to_json(
    space: spaces.Space[Any], arrays: dict[str, NDArray[Any]], key: str
) -> dict[str, Any]:
    """Returns a space as JSON values; bounds and sizes go into `arrays` under names from `key`.

    Bounds may be infinite, which JSON cannot say, so they are kept as tensors.

    Raises:
        SpaceError: The kind of space cannot be written.
    """
    if isinstance(space, spaces.Dict):
        items = [
            [name, space_to_json(part, arrays, f"{key}.{i}")]
            for i, (name, part) in enumerate(space.spaces.items())
        ]
        return {"type": "Dict", "items": items}
    if isinstance(space, spaces.Tuple):
        parts = [space_to_json(s, arrays, f"{key}.{i}") for i, s in enumerate(space.spaces)]
        return {"type": "Tuple", "items": parts}
    if isinstance(space, spaces.Box):
        arrays[f"{key}.low"], arrays[f"{key}.high"] = space.low.copy(), space.high.copy()
        return {"type": "Box", "dtype": str(space.dtype), "key": key}
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": np.asarray(space.start).tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {
            "type": "MultiBinary",
            "n": space.n if isinstance(space.n, int) else list(space.shape),
        }
    raise SpaceError(f"a space must be one of the supported kinds to be saved, but is {space}.")


def space_from_json(
    data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> spaces.Space[Any]:
    """Returns the space that `space_to_json` wrote.

    Raises:
        SpaceError: The data does not describe a space.
    """
    try:
        kind = data["type"]
        if not isinstance(kind, str) or set(data) != _KEYS.get(kind, set()):
            raise ValueError(f"the keys are {sorted(data)}")
        if kind == "Dict":
            items = {_text(key): space_from_json(part, arrays) for key, part in data["items"]}
            if len(items) != len(data["items"]):
                raise ValueError("a key stands twice")
            return spaces.Dict(list(items.items()))
        if kind == "Tuple":
            return spaces.Tuple([space_from_json(s, arrays) for s in data["items"]])
        if kind == "Box":
            low, high = arrays[f"{data['key']}.low"], arrays[f"{data['key']}.high"]
            dtype = _dtype(data["dtype"])
            if low.dtype != dtype or high.dtype != dtype:
                raise ValueError(f"bounds are {low.dtype} and {high.dtype}, not {dtype.__name__}")
            return spaces.Box(low, high, dtype=dtype)
        if kind == "Discrete":
            n, start = _whole(data["n"]), _whole(data["start"])
            return spaces.Discrete(n, start=start, dtype=_dtype(data["dtype"]))
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(
                np.array(_wholes(data["nvec"])),
                start=np.array(_wholes(data["start"])),
                dtype=_dtype(data["dtype"]),
            )
        n = data["n"]
        return spaces.MultiBinary(_whole(n) if not isinstance(n, list) else _wholes(n))
    except (LookupError, TypeError, ValueError, AssertionError, OverflowError, AttributeError,
            RecursionError, MemoryError) as error:  # fmt: skip
        raise SpaceError(
            f"the description of a space must be complete, but {error!r:.200}."
        ) from None


_KEYS: Mapping[str, set[str]] = {
    "Dict": {"type", "items"},
    "Tuple": {"type", "items"},
    "Box": {"type", "dtype", "key"},
    "Discrete": {"type", "n", "start", "dtype"},
    "MultiDiscrete": {"type", "nvec", "start", "dtype"},
    "MultiBinary": {"type", "n"},
}
_DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
}  # fmt: skip


def _dtype(name: Any) -> type[Any]:
    if name not in _DTYPES:
        raise ValueError(f"{name!r} is no type of numbers")
    kind: type[Any] = np.dtype(name).type
    return kind


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _wholes(values: Any) -> list[Any]:
    """Returns a list of whole numbers, or of such lists."""
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list")
    return [_wholes(v) if isinstance(v, list) else _whole(v) for v in values]
