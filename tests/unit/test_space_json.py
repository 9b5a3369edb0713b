"""Laws of spaces in files: what was written is read back, and damage is one typed error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipper.errors import SpaceError
from clipper.space_json import space_from_json, space_to_json

Space = spaces.Space[Any]


def simple_spaces() -> st.SearchStrategy[Space]:
    """Every kind of simple space, with starts, 2-D sizes, infinite bounds and several types."""
    return st.one_of(
        st.sampled_from(
            [
                spaces.Box(-np.inf, np.inf, (2,)),
                spaces.Box(np.array([-np.inf, 0.1]), np.array([3.0, np.inf]), dtype=np.float64),
                spaces.Box(0, 255, (2, 2), dtype=np.uint8),
                spaces.Box(-1.0, 1.0, ()),
                spaces.MultiBinary([2, 3]),
                spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
            ]
        ),
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9)
        ),
        st.builds(
            lambda n: spaces.MultiDiscrete(n, start=[-3] * len(n)),
            st.lists(st.integers(1, 9), min_size=1, max_size=3),
        ),
        st.builds(spaces.MultiBinary, st.integers(1, 5)),
    )


def any_spaces() -> st.SearchStrategy[Space]:
    """Simple spaces in arbitrarily nested Dict and Tuple spaces."""
    return st.recursive(
        simple_spaces(),
        lambda inner: (
            st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3))
            | st.builds(spaces.Dict, st.dictionaries(st.text(max_size=3), inner, min_size=1))
        ),
        max_leaves=6,
    )


def round_trip(space: Space) -> Space:
    """Returns the space after a pass through strict JSON text."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(space_to_json(space, arrays, "space"), allow_nan=False)
    return space_from_json(json.loads(text), arrays)


@given(space=any_spaces())
def test_spaces_survive_json(space: Space) -> None:
    """Any supported space, infinite bounds included, is read back equal."""
    assert round_trip(space) == space


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, dtype=np.int32),
        spaces.MultiDiscrete([2, 3], dtype=np.int32),
        spaces.Box(-1.0, 1.0, (2,), dtype=np.float64),
        spaces.Box(0, 255, (2,), dtype=np.uint8),
        spaces.MultiBinary([4]),
    ],
)
def test_the_type_of_a_space_survives_json(space: Space) -> None:
    """A loaded agent must hand out actions of the type that the environment promised to take."""
    assert round_trip(space) == space
    assert round_trip(space).dtype == space.dtype


def test_parts_whose_paths_read_alike_keep_their_bounds() -> None:
    """`{"a": {"b": ...}, "a.b": ...}` has two Boxes; neither's bounds hide the other's."""
    space = spaces.Dict(
        {"a": spaces.Dict({"b": spaces.Box(-1.0, 1.0, (1,))}), "a.b": spaces.Box(-2.0, 2.0, (1,))}
    )
    assert round_trip(space) == space


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "Cube"},
        {"type": "Box", "dtype": "float32", "key": "missing"},
        {"type": "Discrete", "n": "many", "start": 0},
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "MultiDiscrete", "nvec": [[2], [3, 4]], "start": [0]},
        {"type": "Dict", "items": [["a"]]},
        {"type": "Tuple", "items": [7]},
    ],
)
def test_a_description_that_is_none_is_refused(data: dict[str, Any]) -> None:
    """Damaged descriptions of spaces are one typed error."""
    with pytest.raises(SpaceError):
        space_from_json(data, {})


def test_a_space_of_another_kind_cannot_be_written() -> None:
    """What could not be read back is not written."""
    with pytest.raises(SpaceError):
        space_to_json(spaces.Text(3), {}, "space")
