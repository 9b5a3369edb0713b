"""A Box in, whether it is an image and how its axes lie out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from clipper.config import ImageLayout
from clipper.errors import SpaceError

# of a stack of images with channels: [frames, height, width, channels]
_MOST_AXES = 4


@dataclass(frozen=True, kw_only=True)
class Image:
    """How an image lies in memory.

    Attributes:
        frames: Pictures that are stacked in a leading axis, or 1 without such an axis.
        channels: Numbers of each pixel of one picture.
        height: Rows of pixels.
        width: Pixels of a row.
        is_channels_last: True for [height, width, channels], False for [channels, height, width].
        scale: What its numbers are divided by before the network sees them.
        is_bytes: True if its numbers are whole, from 0 to 255, and kept as bytes.
    """

    frames: int
    channels: int
    height: int
    width: int
    is_channels_last: bool
    scale: float
    is_bytes: bool

    @property
    def memory_shape(self) -> tuple[int, int, int, int]:
        """The shape its numbers have in memory, the axis of frames always there."""
        if self.is_channels_last:
            return self.frames, self.height, self.width, self.channels
        return self.frames, self.channels, self.height, self.width

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """What the network sees: channels of all frames, height, width."""
        return self.frames * self.channels, self.height, self.width

    def describe(self, shape: tuple[int, ...]) -> str:
        """Returns in words how a Box of that shape is taken."""
        channels = f"{self.channels} channel{'s' * (self.channels != 1)}"
        if len(shape) > 2:
            channels += f" ({'last' if self.is_channels_last else 'first'} axis)"
        if len(shape) == _MOST_AXES:
            channels = f"{self.frames} frames of {channels}"
        divided = f", divided by {self.scale:g}" if self.scale != 1 else ""
        return f"an image of {self.height} x {self.width} pixels, {channels}{divided}"


def image_of(space: spaces.Box, layout: ImageLayout, where: str = "") -> Image | None:
    """Returns how a Box is taken as an image, or None if it is a vector.

    Images are Boxes of three axes, of four (a stack of images: frames first), and of two if they are
    bytes, or if the layout is given. Of three axes two that are equal are height and width, and else
    the smaller of the first and the last holds the channels (the last, if they are equal).

    Args:
        space: The Box.
        layout: Where the channels are, `auto` for the rule above, or `flat` for no images at all.
        where: What is said of the part in messages, ` (camera)`.

    Raises:
        SpaceError: It has more axes than an image has, or a side of no pixels.
    """
    shape = space.shape
    is_bytes = space.dtype in (np.uint8, np.bool_)
    is_image = len(shape) >= 3 or (len(shape) == 2 and (is_bytes or layout != "auto"))
    if layout == "flat" or not is_image:
        return None
    if len(shape) > _MOST_AXES or 0 in shape:
        raise SpaceError(
            f"an image must have two to four axes, none of them empty, but{where} has the shape "
            f"{shape}.",
            hint="--image-layout flat gives its numbers to the network as a vector.",
        )
    picture = shape[-3:]
    is_last = len(shape) > 2 and (
        _has_channels_last(picture) if layout == "auto" else layout == "channels_last"
    )
    if len(shape) == 2:
        channels, (height, width) = 1, shape
    elif is_last:
        height, width, channels = picture
    else:
        channels, height, width = picture
    return Image(
        frames=shape[0] if len(shape) == _MOST_AXES else 1,
        channels=channels,
        height=height,
        width=width,
        is_channels_last=is_last,
        scale=_scale(space),
        is_bytes=is_bytes,
    )


def _has_channels_last(shape: tuple[int, ...]) -> bool:
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return first == middle
    return last <= first


def _scale(space: spaces.Box) -> float:
    """Returns the largest magnitude that the bounds allow, 1 if there is none."""
    largest = float(max(np.abs(space.low).max(), np.abs(space.high).max()))
    return largest if np.isfinite(largest) and largest > 0 else 1.0
