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
        if kind == "Dict":
            return spaces.Dict([(k, space_from_json(s, arrays)) for k, s in data["items"]])
        if kind == "Tuple":
            return spaces.Tuple([space_from_json(s, arrays) for s in data["items"]])
        if kind == "Box":
            low, high = arrays[f"{data['key']}.low"], arrays[f"{data['key']}.high"]
            return spaces.Box(low, high, dtype=np.dtype(data["dtype"]).type)
        if kind == "Discrete":
            kind_of = np.dtype(data["dtype"]).type
            return spaces.Discrete(int(data["n"]), start=int(data["start"]), dtype=kind_of)
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(
                np.array(data["nvec"]),
                start=np.array(data["start"]),
                dtype=np.dtype(data["dtype"]).type,
            )
        if kind == "MultiBinary":
            return spaces.MultiBinary(data["n"])
    except (LookupError, TypeError, ValueError, AssertionError, OverflowError, AttributeError,
            RecursionError) as error:  # fmt: skip
        raise SpaceError(f"the description of a space must be complete, but {error!r}.") from None
    raise SpaceError(f"a space must be of a known kind, but is {kind!r}.")
