"""Laws of how a Box is taken as an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from clipper.errors import SpaceError
from clipper.images import image_of


def box(*shape: int, dtype: Any = np.uint8) -> spaces.Box:
    """Returns a Box of bytes, or of numbers from 0 to 1."""
    high = 255 if dtype == np.uint8 else 1
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        # channels, height, width that anyone would see in these shapes
        ((84, 84, 4), (4, 84, 84)),
        ((4, 84, 84), (4, 84, 84)),
        ((210, 160, 3), (3, 210, 160)),
        ((3, 210, 160), (3, 210, 160)),
        ((96, 96, 3), (3, 96, 96)),
        ((7, 7, 3), (3, 7, 7)),
        ((10, 10, 6), (6, 10, 10)),
        # a grid of 4 x 4 with sixteen kinds of tiles: the equal sides are the picture's
        ((4, 4, 16), (16, 4, 4)),
        ((16, 4, 4), (16, 4, 4)),
        # nothing tells them apart: the last, as Gymnasium's own
        ((8, 8, 8), (8, 8, 8)),
        ((84, 84), (1, 84, 84)),
        # frames in a leading axis, as FrameStackObservation has them
        ((4, 96, 96, 3), (12, 96, 96)),
        ((4, 3, 96, 96), (12, 96, 96)),
    ],
)
def test_the_channels_are_found(shape: tuple[int, ...], seen: tuple[int, int, int]) -> None:
    """Channels, height and width are those that anyone would see in the shape."""
    image = image_of(box(*shape), "auto")
    assert image is not None
    assert image.network_shape == seen
    assert int(np.prod(image.memory_shape)) == int(np.prod(shape))


@pytest.mark.parametrize("first", [True, False])
def test_a_given_layout_overrides_the_rule(first: bool) -> None:
    """[8, 9, 10] is what the setting says, whichever axis is the smaller."""
    image = image_of(box(8, 9, 10), "channels_first" if first else "channels_last")
    assert image is not None
    assert image.network_shape == ((8, 9, 10) if first else (10, 8, 9))


@pytest.mark.parametrize(
    ("space", "is_image"),
    [
        (box(4), False),
        (box(5, 6), True),
        (box(5, 6, dtype=np.float32), False),  # a window of measurements, not a picture
        (box(5, 6, 2, dtype=np.float32), True),
        (box(5, 6, dtype=np.bool_), True),
    ],
)
def test_what_is_an_image(space: spaces.Box, is_image: bool) -> None:
    """Three axes are an image; two are one if they are bytes, or if the layout is given."""
    assert (image_of(space, "auto") is not None) == is_image
    assert image_of(space, "flat") is None
    if len(space.shape) == 2:
        assert image_of(space, "channels_last") is not None


@pytest.mark.parametrize(
    ("space", "scale"),
    [
        (box(4, 4, 1), 255.0),
        (spaces.Box(0, 10, (4, 4, 1), np.uint8), 10.0),
        (spaces.Box(0.0, 1.0, (4, 4, 1)), 1.0),
        (spaces.Box(-2.0, 1.0, (4, 4, 1)), 2.0),
        (spaces.Box(-np.inf, np.inf, (4, 4, 1)), 1.0),
        (spaces.Box(0, 1, (4, 4, 1), np.bool_), 1.0),
        (spaces.Box(0, 0, (4, 4, 1), np.uint8), 1.0),
    ],
)
def test_the_scale_is_the_largest_magnitude(space: spaces.Box, scale: float) -> None:
    """What the network sees lies within [-1, 1], with 0 where it was; unbounded it is as it was."""
    image = image_of(space, "auto")
    assert image is not None
    assert image.scale == scale


@pytest.mark.parametrize("shape", [(2, 2, 2, 2, 2), (4, 0, 3)])
def test_what_no_network_takes_is_refused(shape: tuple[int, ...]) -> None:
    """Five axes, or a side without pixels, are an error that names the part and the way out."""
    with pytest.raises(SpaceError, match=r"but \(eye\) has the shape") as caught:
        image_of(box(*shape), "auto", " (eye)")
    assert "--image-layout flat" in str(caught.value.hint)
