"""Laws of layouts: any supported space to a row of numbers, sampled numbers to any action."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.errors import NumericsError, SpaceError
from clipper.spaces import ObservationLayout

Space = spaces.Space[Any]
BOX4 = spaces.Box(-1.0, 1.0, (4,))


def simple_spaces() -> st.SearchStrategy[Space]:
    """Every kind of simple space, with starts, 2-D sizes, infinite bounds and several types."""
    shape = st.sampled_from([(), (1,), (3,), (2, 2)])
    box = st.one_of(
        st.builds(lambda s: spaces.Box(-np.inf, np.inf, s), shape),
        st.builds(lambda s: spaces.Box(0.0, np.inf, s, dtype=np.float64), shape),
        st.builds(lambda n: spaces.Box(0, 255, (n,), dtype=np.uint8), st.integers(1, 4)),
        st.builds(lambda s: spaces.Box(-2.0, 3.0, s), shape),
    )
    discrete = st.builds(
        lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)
    )
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    multi_discrete = st.one_of(
        st.builds(spaces.MultiDiscrete, sizes),
        st.builds(lambda n: spaces.MultiDiscrete(n, start=[-1] * len(n)), sizes),
        st.builds(lambda n: spaces.MultiDiscrete(np.array([n, n[::-1]])), sizes),
    )
    multi_binary = st.builds(spaces.MultiBinary, st.sampled_from([1, 3, [2, 3]]))
    return st.one_of(box, discrete, multi_discrete, multi_binary)


def any_spaces() -> st.SearchStrategy[Space]:
    """Simple spaces in arbitrarily nested Dict and Tuple spaces."""
    return st.recursive(
        simple_spaces(),
        lambda inner: (
            st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3))
            | st.builds(
                spaces.Dict,
                st.dictionaries(st.sampled_from(["pose", "goal", "b", "a"]), inner, min_size=1),
            )
        ),
        max_leaves=6,
    )


def stack(space: Space, samples: Sequence[Any]) -> Any:
    """Returns samples as one batch: a leading axis on every part."""
    if isinstance(space, spaces.Dict):
        return {k: stack(s, [x[k] for x in samples]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(s, [x[i] for x in samples]) for i, s in enumerate(space.spaces))
    return np.stack([np.asarray(x) for x in samples])


def leaves(space: Space) -> list[Space]:
    """Returns the simple spaces in order."""
    if isinstance(space, spaces.Dict):
        return [leaf for s in space.spaces.values() for leaf in leaves(s)]
    if isinstance(space, spaces.Tuple):
        return [leaf for s in space.spaces for leaf in leaves(s)]
    return [space]


def written(space: Space, obs: Any) -> NDArray[np.float32]:
    """Returns the row of an observation."""
    layout = ObservationLayout(space)
    row = np.full(layout.size, np.nan, dtype=np.float32)
    layout.write(obs, row)
    return row


@given(space=any_spaces(), seed=st.integers(0, 2**31))
def test_a_row_is_gymnasiums_flattening(space: Space, seed: int) -> None:
    """For any nested space a row equals `gymnasium.spaces.flatten`, an independent definition."""
    space.seed(seed)
    obs = space.sample()
    expected = np.asarray(spaces.flatten(space, obs)).astype(np.float32)
    assert ObservationLayout(space).size == spaces.flatdim(space)
    np.testing.assert_array_equal(written(space, obs), expected.reshape(-1))


@given(space=any_spaces(), seed=st.integers(0, 2**31), count=st.integers(1, 4))
def test_a_batch_is_its_single_rows(space: Space, seed: int, count: int) -> None:
    """`rows` of a batch equals the rows of its observations, and tells a batch from a single one."""
    space.seed(seed)
    samples = [space.sample() for _ in range(count)]
    layout = ObservationLayout(space)
    batch = stack(space, samples)
    assert not layout.is_single(batch)
    assert layout.is_single(samples[0])
    single = np.concatenate([layout.rows(x) for x in samples])
    np.testing.assert_array_equal(layout.rows(batch), single)
    assert layout.rows(batch).dtype == np.float32


@given(space=any_spaces(), seed=st.integers(0, 2**31))
def test_split_gives_each_leaf_its_columns(space: Space, seed: int) -> None:
    """The parts by name, put side by side, are the row; only Box columns are measurements."""
    space.seed(seed)
    layout = ObservationLayout(space)
    rows = layout.rows(space.sample())
    parts = list(layout.split(rows).values())
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), rows)
    flags = [[isinstance(s, spaces.Box)] * spaces.flatdim(s) for s in leaves(space)]
    assert layout.box_columns.tolist() == [flag for leaf in flags for flag in leaf]
    assert [p.shape[-1] for p in parts] == [spaces.flatdim(s) for s in leaves(space)]


def test_leaves_are_named_by_their_path() -> None:
    """`robot.pose.0` is how the help, messages and `split` call a nested part."""
    space = spaces.Dict(
        robot=spaces.Dict(pose=spaces.Tuple((BOX4, spaces.Discrete(2)))), t=spaces.Discrete(3)
    )
    layout = ObservationLayout(space)
    assert [leaf.name for leaf in layout.leaves] == ["robot.pose.0", "robot.pose.1", "t"]
    rows = layout.rows({"robot": {"pose": (np.arange(4.0), 1)}, "t": 2})
    assert layout.split(rows)["robot.pose.1"].tolist() == [[0, 1]]


def test_one_hot_worked_out() -> None:
    """Discrete(3, start=5) at 6 is 0 1 0; MultiDiscrete([2, 3], start=[1, 0]) at (2, 0) 01 100."""
    assert written(spaces.Discrete(3, start=5), 6).tolist() == [0, 1, 0]
    space = spaces.MultiDiscrete([2, 3], start=[1, 0])
    assert written(space, np.array([2, 0])).tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("space", "obs", "words"),
    [
        (BOX4, np.zeros(3), "shape (4,)"),
        (BOX4, np.zeros((4, 1)), "shape (4,)"),
        (BOX4, 0.5, "shape (4,)"),
        (BOX4, None, "shape (4,)"),
        (spaces.Discrete(3, start=1), 0, "Discrete(3, start=1)"),
        (spaces.Discrete(3, start=1), 4, "Discrete(3, start=1)"),
        (spaces.Discrete(3), 1.5, "Discrete(3)"),
        (spaces.Discrete(3), float("nan"), "Discrete(3)"),
        (spaces.Discrete(3), "1", "Discrete(3)"),
        (spaces.Discrete(3), np.array([[1]]), "shape ()"),
        (spaces.MultiDiscrete([2, 2]), np.array([0, 2]), "MultiDiscrete([2 2])"),
        (spaces.MultiDiscrete([2, 2]), np.array([0, -1]), "MultiDiscrete([2 2])"),
        (spaces.MultiDiscrete([2, 2]), np.array([0, 1, 0]), "shape (2,)"),
        (spaces.MultiBinary(3), np.array([0, 1]), "shape (3,)"),
        (spaces.Dict(a=BOX4, b=BOX4), {"a": np.zeros(4)}, "'b'"),
        (spaces.Dict(a=BOX4), np.zeros(4), "'a'"),
        (spaces.Dict(a=BOX4), None, "'a'"),
        (spaces.Tuple((BOX4, BOX4)), (np.zeros(4),), "'1'"),
        (spaces.Dict(a=spaces.Dict(b=BOX4)), {"a": {"b": np.zeros(5)}}, "'a.b'"),
    ],
)
def test_an_observation_that_does_not_belong_is_refused(space: Space, obs: Any, words: str) -> None:
    """A wrong shape, a missing part or an index out of range says what must be, and where."""
    with pytest.raises(SpaceError) as caught:
        written(space, obs)
    assert words in caught.value.message
    with pytest.raises(SpaceError):
        ObservationLayout(space).rows(obs)


@pytest.mark.parametrize("obs", [[7, 0, 0], [-1, 0, 0], [0.5, 0, 0], [np.nan, 0, 0]])
def test_bits_are_0_or_1(obs: list[float]) -> None:
    """A MultiBinary observation with another number than 0 and 1 does not belong to its space."""
    with pytest.raises(SpaceError):
        written(spaces.MultiBinary(3), np.array(obs))


@pytest.mark.parametrize(
    "obs",
    [
        np.array(["a", "b", "c", "d"]),
        np.array(["a", "b", "c", "d"], dtype=object),
        [[1, 2], [3]],
        [{}, {}, {}, {}],
    ],
    ids=["text", "objects", "ragged", "dicts"],
)
def test_what_is_not_made_of_numbers_is_refused(obs: Any) -> None:
    """An observation that numpy cannot read as numbers is one clear error, not numpy's own."""
    with pytest.raises(SpaceError):
        ObservationLayout(BOX4).rows(obs)
    with pytest.raises(SpaceError):
        written(BOX4, obs)


def test_parts_of_a_batch_have_one_length() -> None:
    """A batch of 2 poses with 3 goals is no batch."""
    layout = ObservationLayout(spaces.Dict(goal=BOX4, pose=BOX4))
    with pytest.raises(SpaceError, match="must have 3 rows"):
        layout.rows({"goal": np.zeros((3, 4)), "pose": np.zeros((2, 4))})


def test_an_empty_batch_has_no_rows() -> None:
    """No observations in, no rows out."""
    assert ObservationLayout(BOX4).rows(np.zeros((0, 4))).shape == (0, 4)


def image_spaces() -> st.SearchStrategy[Space]:
    """Images of bytes and of other numbers, alone and nested beside everything else."""
    shape = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
    images = st.one_of(
        st.builds(lambda s: spaces.Box(0, 255, s, np.uint8), shape),
        st.builds(lambda s: spaces.Box(0, 1, s, np.bool_), shape),
        st.builds(lambda s: spaces.Box(-3, 200, s, np.int16), shape),
        st.builds(lambda s: spaces.Box(-1.0, 1.0, s), shape),
        st.builds(lambda s: spaces.Box(0, 255, s[:2], np.uint8), shape),
    )
    beside = st.lists(st.one_of(images, any_spaces()), max_size=2)
    return st.builds(lambda image, others: spaces.Tuple([*others, image]), images, beside)


@given(image_spaces(), st.integers(0, 2**31))
def test_rows_with_images_hold_every_number(space: Space, seed: int) -> None:
    """Bytes are where the layout says, to the bit; all other numbers are float32 as ever."""
    space.seed(seed)
    layout = ObservationLayout(space)
    samples = [space.sample() for _ in range(3)]
    rows = layout.rows(stack(space, samples))
    single = layout.new_rows(3)
    for row, sample in zip(single, samples, strict=True):
        row[:] = 77  # what was there before
        layout.write(sample, row)
    assert rows.dtype == layout.row_type
    np.testing.assert_array_equal(rows, single)
    numbers = layout.numbers(rows)
    assert numbers.shape == (3, layout.num_numbers)
    for leaf in layout.leaves:
        value = np.stack([np.asarray(_at(sample, leaf.path)) for sample in samples])
        if isinstance(leaf.space, spaces.Box):
            found = (rows if leaf.is_bytes else numbers)[:, leaf.columns]
            np.testing.assert_array_equal(found, value.reshape(3, -1).astype(found.dtype))
        if leaf.image is None:
            assert leaf.start + leaf.size <= layout.num_vector
        assert leaf.is_bytes == (
            leaf.space.dtype in (np.uint8, np.bool_) and leaf.image is not None
        )
    assert layout.size % 4 == 0 or not layout.has_bytes


def _at(sample: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        sample = sample[key]
    return sample


def test_bytes_take_no_more_memory_than_bytes() -> None:
    """Four frames of 84 x 84 are 28,224 bytes a row, however many rows."""
    layout = ObservationLayout(spaces.Box(0, 255, (4, 84, 84), np.uint8))
    assert layout.new_rows(128, 8).nbytes == 128 * 8 * 4 * 84 * 84


@pytest.mark.parametrize("bad", [300, -1, 0.5, np.nan])
def test_a_byte_image_takes_bytes_alone(bad: float) -> None:
    """A number that is no byte is refused, not wrapped around; whole ones of any type are taken."""
    layout = ObservationLayout(spaces.Dict(eye=spaces.Box(0, 255, (2, 2, 1), np.uint8)))
    layout.rows({"eye": np.full((2, 2, 1), 7.0)})
    with pytest.raises(SpaceError, match="part 'eye' must belong to"):
        layout.rows({"eye": np.array([[[1.0], [2.0]], [[3.0], [bad]]])})


def test_images_are_told_with_their_axes() -> None:
    """The start of a run says how each image is taken, so that a wrong guess is seen."""
    space = spaces.Dict(eye=spaces.Box(0, 255, (84, 96, 3), np.uint8), speed=BOX4)
    assert ObservationLayout(space).describe() == [
        "eye: an image of 84 x 96 pixels, 3 channels (last axis), divided by 255"
    ]
    assert ObservationLayout(space, "flat").describe() == [
        "eye: Box[84, 96, 3] is flattened to 24192 numbers"
    ]
    assert ObservationLayout(space, "flat").row_type is np.float32


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict(a=spaces.Text(3)),
        spaces.Tuple([]),
        spaces.Dict({}),
        spaces.Box(-1.0, 1.0, (0,)),
    ],
)
def test_other_observation_spaces_are_refused(space: Space) -> None:
    """What cannot become numbers, or has none, is refused before training."""
    with pytest.raises(SpaceError):
        ObservationLayout(space)


def test_every_transform_of_an_observation_is_said() -> None:
    """Flattening a matrix and one-hot coding are announced; a plain vector is not."""
    assert ObservationLayout(BOX4).describe() == []
    (line,) = ObservationLayout(spaces.Box(0.0, 1.0, (3, 2))).describe()
    assert "flattened to 6 numbers" in line
    lines = ObservationLayout(spaces.Dict(a=spaces.Discrete(4), b=BOX4)).describe()
    assert len(lines) == 1
    assert "4 one-hot" in lines[0]


def test_writing_copies_the_observation() -> None:
    """An environment that reuses its buffer must not change rows written before."""
    buffer = np.ones(4, dtype=np.float32)
    row = written(BOX4, buffer)
    buffer[:] = 7
    assert row.tolist() == [1, 1, 1, 1]


def test_box_actions_are_scaled_to_their_bounds_and_clipped() -> None:
    """[-1, 1] spans [low, high]: for [0, 10], -1 is 0, 0.5 is 7.5, and 3 is clipped to 10."""
    layout = ActionLayout(
        spaces.Box(np.array([0.0, -2.0]), np.array([10.0, 2.0]), dtype=np.float64)
    )
    made = layout.to_env(np.array([[-1, -1], [0.5, 0.25], [3, -7]], dtype=np.float32))
    np.testing.assert_allclose(made, [[0, -2], [7.5, 0.5], [10, -2]])


def test_unbounded_axes_pass_and_half_bounded_ones_are_only_clipped() -> None:
    """Without two bounds there is nothing to scale to; the bound there is still holds."""
    low = np.array([-np.inf, 0.0, -np.inf, -4.0], dtype=np.float32)
    high = np.array([np.inf, np.inf, 1.0, 4.0], dtype=np.float32)
    layout = ActionLayout(spaces.Box(low, high))
    made = layout.to_env(np.array([[30, -3, 5, 0.5], [-30, 3, -5, 9]], dtype=np.float32))
    np.testing.assert_array_equal(made, [[30, 0, 1, 2], [-30, 3, -5, 4]])


def test_every_change_of_an_action_is_said() -> None:
    """A bound at which actions are clipped, or a scale, is never applied in silence."""
    assert ActionLayout(spaces.Box(-np.inf, np.inf, (2,))).describe() == []
    assert "[-2, 2]" in " ".join(ActionLayout(spaces.Box(-2.0, 2.0, (2,))).describe())
    assert "clipped" in " ".join(ActionLayout(spaces.Box(-1.0, 1.0, (2,))).describe())
    assert "clipped" in " ".join(ActionLayout(spaces.Box(0.0, np.inf, (2,))).describe())
    assert "5" in " ".join(ActionLayout(spaces.Discrete(2, start=5)).describe())
    assert ActionLayout(spaces.Discrete(2)).describe() == []


ACTIONS: list[tuple[Space, list[list[float]], list[Any]]] = [
    (spaces.Discrete(3), [[0], [2]], [0, 2]),
    (spaces.Discrete(3, start=-1), [[0], [2]], [-1, 1]),
    (spaces.MultiDiscrete([2, 3]), [[1, 2]], [[1, 2]]),
    (spaces.MultiDiscrete([2, 3], start=[5, -5]), [[1, 2]], [[6, -3]]),
    (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
    (spaces.MultiDiscrete([2, 3], dtype=np.int32), [[1, 0]], [[1, 0]]),
    (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
    (spaces.MultiBinary([2, 2]), [[1, 0, 0, 1]], [[[1, 0], [0, 1]]]),
    (spaces.Box(-1.0, 1.0, (2, 2)), [[0, 0.5, -0.5, 2]], [[[0, 0.5], [-0.5, 1]]]),
    (spaces.Box(-1.0, 1.0, (1,), dtype=np.float64), [[0.25]], [[0.25]]),
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("batched", [False, True])
def test_a_number_that_is_not_finite_is_named(value: float, batched: bool) -> None:
    """Who asks for an action learns which column of which part is NaN, and of which row."""
    space = spaces.Dict(
        {"arm": spaces.Box(-9.0, 9.0, (3,), dtype=np.float64), "mode": spaces.Discrete(2)}
    )
    arm = np.array([[0.0, 0.0, 0.0], [0.0, value, 0.0]])
    obs = {"arm": arm, "mode": np.array([0, 1])} if batched else {"arm": arm[1], "mode": 1}
    with pytest.raises(NumericsError, match=r"column 1 of part 'arm'") as caught:
        ObservationLayout(space).rows(obs)
    assert ("in row 1" in caught.value.message) is batched
    plain = ObservationLayout(spaces.Box(-1.0, 1.0, (2,)))
    with pytest.raises(NumericsError, match=r"but column 1 is nan\.$"):
        plain.rows(np.array([0.0, np.nan], dtype=np.float32))


@pytest.mark.parametrize(("space", "sampled", "expected"), ACTIONS, ids=lambda x: str(x)[:40])
def test_actions_are_what_the_environment_takes(
    space: Space, sampled: list[list[float]], expected: list[Any]
) -> None:
    """Starts are added, shapes and types are the space's, and the space contains them."""
    layout = ActionLayout(space)
    made = layout.to_env(np.array(sampled, dtype=layout.dtype))
    for action, wanted in zip(made, expected, strict=True):
        np.testing.assert_array_equal(action, wanted)
        assert space.contains(action)


@pytest.mark.parametrize(("space", "sampled", "expected"), ACTIONS, ids=lambda x: str(x)[:40])
def test_an_environment_cannot_change_stored_actions(
    space: Space, sampled: list[list[float]], expected: list[Any]
) -> None:
    """Actions handed out are fresh objects: writing into one changes nothing that was stored."""
    layout = ActionLayout(space)
    stored = np.array(sampled, dtype=layout.dtype)
    for action in layout.to_env(stored):
        if isinstance(action, np.ndarray):
            action += 1
    np.testing.assert_array_equal(stored, sampled)


@given(
    bounds=st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6)), min_size=1, max_size=4),
    raw=st.floats(-100, 100),
)
def test_actions_never_leave_their_bounds(bounds: list[tuple[float, float]], raw: float) -> None:
    """Whatever is sampled, what the environment gets lies in the space."""
    low = np.array([b[0] for b in bounds], dtype=np.float32)
    high = np.array([b[0] + b[1] for b in bounds], dtype=np.float32)
    space = spaces.Box(low, high)
    layout = ActionLayout(space)
    (action,) = layout.to_env(np.full((1, len(bounds)), raw, dtype=np.float32))
    assert space.contains(action)


def test_saturation_counts_bounded_numbers_outside() -> None:
    """Of 4 sampled numbers on bounded axes one lies outside [-1, 1]: a quarter."""
    low, high = np.array([-1.0, -5.0, -np.inf]), np.array([1.0, 5.0, np.inf])
    layout = ActionLayout(spaces.Box(low, high, dtype=np.float64))
    sampled = np.array([[0.5, -1.0, 99.0], [1.5, 1.0, 99.0]], dtype=np.float32)
    assert layout.saturation(sampled) == 0.25
    assert ActionLayout(spaces.Discrete(2)).saturation(np.array([[5]])) is None
    unbounded = ActionLayout(spaces.Box(-np.inf, np.inf, (1,)))
    assert unbounded.saturation(np.array([[5.0]])) is None


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 3, (2,), dtype=np.int64),
        spaces.Dict(a=spaces.Discrete(2)),
        spaces.Text(2),
    ],
)
def test_other_action_spaces_are_refused(space: Space) -> None:
    """What cannot be sampled is refused before training, with what to do instead."""
    with pytest.raises(SpaceError, match="action") as caught:
        ActionLayout(space)
    assert caught.value.hint


def test_parts_whose_paths_read_alike_have_columns_of_their_own() -> None:
    """`{"a": {"b": ...}, "a.b": ...}` has two parts; neither hides the other in `split`."""
    space = spaces.Dict(
        {"a": spaces.Dict({"b": spaces.Box(-1.0, 1.0, (1,))}), "a.b": spaces.Box(-2.0, 2.0, (1,))}
    )
    assert len(ObservationLayout(space).split(np.zeros((1, 2)))) == 2


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("high", [1.0, 2.0])
def test_actions_of_a_box_belong_to_it(kind: Any, high: float) -> None:
    """They have the space's type, scaled or not."""
    space = spaces.Box(-high, high, (2,), kind)
    (made,) = ActionLayout(space).to_env(np.array([[0.3, -2.0]], np.float32))
    assert made.dtype == kind
    assert space.contains(made)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_largest_float_as_a_bound_is_none(kind: Any) -> None:
    """Nobody means to span it: what is sampled arrives as it is."""
    most = np.finfo(kind).max
    layout = ActionLayout(spaces.Box(-most, most, (2,), kind))
    sampled = np.array([[0.0, 0.3]], np.float32)
    np.testing.assert_allclose(layout.to_env(sampled)[0], sampled[0], rtol=1e-6)
    assert layout.box_scale is not None
    assert np.isfinite(layout.box_scale[1][2:]).all()


def test_parts_of_a_dict_have_names() -> None:
    """Gymnasium takes any key; a file of ours could not tell 1 from "1"."""
    with pytest.raises(SpaceError, match="must have names, but one is 0"):
        ObservationLayout(spaces.Dict({0: spaces.Discrete(2)}))


def test_a_float64_beyond_float32_is_infinite_without_a_warning() -> None:
    """In a row alone and within a part: rows are looked at for it, so numpy need not say it too."""
    wide = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    for space, obs in (
        (wide, np.array([1e39])),
        (spaces.Dict({"x": wide, "y": spaces.Discrete(2)}), {"x": np.array([1e39]), "y": 1}),
    ):
        layout = ObservationLayout(space)
        row = np.zeros(layout.size, np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layout.write(obs, row)
        assert row[0] == np.inf
