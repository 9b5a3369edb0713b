"""Rows that hold images in, what a network makes of them out: convolutions, then an MLP.

Images stay bytes until the network takes them. Dimension key: M rows, D columns of a row, V float32
numbers of a row, K of them that are no image's, C channels, H height, W width, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clipper.leaves import Leaf
from clipper.policies.networks import MLPNetwork, MLPShape, linear, tensor_shapes
from clipper.spaces import ObservationLayout

# with fewer rows the change of layout costs more than it saves
FEW_ROWS = 32
# the smallest side that the convolutions of Mnih et al. 2015 leave a pixel of
_NATURE_SIDE = 36
_FEATURES = {"nature": 512, "small": 128}

# filters, sides of the kernel, stride
Convolution = tuple[int, tuple[int, int], int]


def numbers_of(layout: ObservationLayout, rows: Tensor) -> Tensor:
    """Returns the float32 numbers of rows [..., D], a view [..., V]; as `ObservationLayout.numbers`."""
    if not layout.has_bytes:
        return rows
    if layout.num_numbers == 0:
        return rows.new_zeros((*rows.shape[:-1], 0), dtype=torch.float32)
    return rows[..., : 4 * layout.num_numbers].view(torch.float32)


def vector_of(layout: ObservationLayout, rows: Tensor) -> Tensor:
    """Returns the numbers of rows [..., D] that are no image's, a view [..., K]."""
    return numbers_of(layout, rows)[..., : layout.num_vector]


def image_of_rows(
    layout: ObservationLayout, leaf: Leaf, rows: Tensor, dtype: torch.dtype
) -> Tensor:
    """Returns the images of a leaf, [M, C, H, W], their numbers as they are, not yet scaled.

    They lie in memory as convolutions on a CPU are quickest with: channel by channel within a pixel,
    but for few rows as they came.
    """
    image = leaf.image
    assert image is not None
    numbers = rows if leaf.is_bytes else numbers_of(layout, rows)
    found = numbers[:, leaf.columns].reshape(len(rows), *image.memory_shape)
    if image.is_channels_last:
        found = found.permute(0, 1, 4, 2, 3)
    if image.frames == 1:
        found = found[:, 0]
    else:
        found = found.reshape(len(rows), *image.network_shape)
    is_many = len(rows) >= FEW_ROWS or image.is_channels_last
    kind = torch.channels_last if is_many else torch.contiguous_format
    return found.to(dtype).contiguous(memory_format=kind)


def module_inputs(
    layout: ObservationLayout, rows: Tensor, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """Returns what a network of the user's is given for rows [M, D] of a space with images.

    Images scaled by the bounds of their space, [M, C, H, W]; alone if that is the whole observation,
    else with every other part [M, numbers] under its name.
    """
    numbers = numbers_of(layout, rows)
    found = {}
    for leaf in layout.leaves:
        if leaf.image is None:
            found[leaf.name] = numbers[:, leaf.columns].to(dtype)
        else:
            found[leaf.name] = image_of_rows(layout, leaf, rows, dtype).div_(leaf.image.scale)
    return found[""] if list(found) == [""] else found


class Convolutions(nn.Module):
    """Images to features: convolutions and a linear layer, each with a rectifier.

    `nature` is the network of Mnih et al. 2015 (Nature 518), 32 filters 8 x 8 with stride 4, 64 of
    4 x 4 with stride 2, 64 of 3 x 3, and 512 units. `small` has 3 x 3 filters and 128 units.

    Args:
        image: Channels, height, width.
        scale: What its numbers are divided by.
        shape: Kind of convolutions, features and gains.
        generator: Source of the initial weights: orthogonal, biases zero.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        scale: float,
        shape: MLPShape,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._scale = scale
        kind = _kind(shape.cnn, image)
        layers, width = _plan(kind, image)
        convolutions = []
        inputs = image[0]
        for filters, kernel, stride in layers:
            convolutions.append(
                _convolution(inputs, (filters, kernel, stride), shape.hidden_gain, generator)
            )
            inputs = filters
        self.convolutions = nn.ModuleList(convolutions)
        features = shape.cnn_features or _FEATURES[kind]
        self.linear = linear(width, features, shape.hidden_gain, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features [M, F] of images [M, C, H, W], not yet scaled."""
        first, *others = self.convolutions
        assert isinstance(first, nn.Conv2d)
        # the scale on the weights in place of the pixels, of which there are hundreds of times more
        found = nn.functional.conv2d(images, first.weight / self._scale, first.bias, first.stride)
        found = found.relu_()
        for layer in others:
            found = layer(found).relu_()
        # pixel by pixel, as the numbers lie in memory
        features = found.permute(0, 2, 3, 1).flatten(1)
        return self.linear(features).relu_()  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Rows to features: each image through convolutions of its own, then the other numbers as they are.

    Args:
        layout: How observations lie in a row.
        shape: Kind of convolutions, features and gains.
        generator: Source of the initial weights.
    """

    def __init__(
        self, layout: ObservationLayout, shape: MLPShape, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._layout = layout
        self.images = nn.ModuleList(
            Convolutions(leaf.image.network_shape, leaf.image.scale, shape, generator)
            for leaf in layout.images
            if leaf.image is not None
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Returns features [M, F] of rows [M, D]."""
        layout, dtype = self._layout, self._dtype(rows)
        parts = [
            convolutions(image_of_rows(layout, leaf, rows, dtype))
            for leaf, convolutions in zip(layout.images, self.images, strict=True)
        ]
        if layout.num_vector:
            parts.append(vector_of(layout, rows).to(parts[0].dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _dtype(self, rows: Tensor) -> torch.dtype:
        """Returns the type in which convolutions are computed; bfloat16 holds bytes exactly."""
        kind = rows.device.type
        if torch.is_autocast_enabled(kind) and all(leaf.is_bytes for leaf in self._layout.images):
            return torch.get_autocast_dtype(kind)
        return next(self.parameters()).dtype


class ImageNetwork(nn.Module):
    """Policy and value of observations with images: convolutions, then the layers of `MLPNetwork`.

    With `shared_torso` one encoder serves both, otherwise each has its own.

    Args:
        layout: How observations lie in a row.
        num_outputs: P of the policy head.
        shape: Layers.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        layout: ObservationLayout,
        num_outputs: int,
        shape: MLPShape,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(layout, shape, generator)
        self.value_encoder = None if shape.shared_torso else Encoder(layout, shape, generator)
        self.head = MLPNetwork(num_features(layout, shape), num_outputs, shape, generator)
        self._has_one_value = not shape.values_per_action

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns distribution parameters [M, P] and values [M], or [M, P] with one per action."""
        features = self.encoder(rows)
        if self.value_encoder is None:
            return self.head(features)  # type: ignore[no-any-return]
        values = self.head.critic(self.value_encoder(rows))
        return self.head.params(features), values.squeeze(-1) if self._has_one_value else values

    def params(self, rows: Tensor) -> Tensor:
        """Returns the distribution parameters alone, [M, P]: all that acting needs."""
        return self.head.params(self.encoder(rows))

    def values(self, rows: Tensor) -> Tensor:
        """Returns the values alone, [M]."""
        encoder = self.encoder if self.value_encoder is None else self.value_encoder
        return self.head.values(encoder(rows))


def num_features(layout: ObservationLayout, shape: MLPShape) -> int:
    """Returns how many numbers an encoder gives to the layers behind it, F."""
    found = layout.num_vector
    for leaf in layout.images:
        assert leaf.image is not None
        found += shape.cnn_features or _FEATURES[_kind(shape.cnn, leaf.image.network_shape)]
    return found


def image_tensor_shapes(
    layout: ObservationLayout, num_outputs: int, shape: MLPShape
) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of `ImageNetwork`'s tensors without making them."""
    features = num_features(layout, shape)
    head = tensor_shapes(features, num_outputs, shape)
    found = {f"head.{name}": sizes for name, sizes in head.items()}
    encoders = ("encoder",) if shape.shared_torso else ("encoder", "value_encoder")
    for i, leaf in enumerate(layout.images):
        assert leaf.image is not None
        for name, sizes in _convolution_shapes(leaf.image.network_shape, shape):
            found |= {f"{encoder}.images.{i}.{name}": sizes for encoder in encoders}
    return found


def describe_convolutions(layout: ObservationLayout, shape: MLPShape) -> list[str]:
    """Returns a line for every image: what its convolutions are."""
    lines = []
    for leaf in layout.images:
        assert leaf.image is not None
        image = leaf.image.network_shape
        kind = _kind(shape.cnn, image)
        name = "the CNN of Mnih et al. 2015" if kind == "nature" else "a small CNN"
        steps = ", ".join(
            f"{filters} of {height}x{width}{f' stride {stride}' if stride > 1 else ''}"
            for filters, (height, width), stride in _plan(kind, image)[0]
        )
        features = shape.cnn_features or _FEATURES[kind]
        torso = (
            "shared by policy and value" if shape.shared_torso else "one for policy, one for value"
        )
        part = f"{leaf.name}: " if leaf.name else ""
        lines.append(f"network: {part}{name} ({steps}, {features} features), {torso}")
    return lines


def _convolution_shapes(
    image: tuple[int, int, int], shape: MLPShape
) -> Iterator[tuple[str, tuple[int, ...]]]:
    kind = _kind(shape.cnn, image)
    layers, width = _plan(kind, image)
    inputs = image[0]
    for i, (filters, kernel, _) in enumerate(layers):
        yield f"convolutions.{i}.weight", (filters, inputs, *kernel)
        yield f"convolutions.{i}.bias", (filters,)
        inputs = filters
    features = shape.cnn_features or _FEATURES[kind]
    yield "linear.weight", (features, width)
    yield "linear.bias", (features,)


def _kind(cnn: str, image: tuple[int, int, int]) -> str:
    """Returns which convolutions an image gets: those asked for, `auto` by its smaller side."""
    if cnn != "auto":
        return cnn
    return "nature" if min(image[1:]) >= _NATURE_SIDE else "small"


def _plan(kind: str, image: tuple[int, int, int]) -> tuple[list[Convolution], int]:
    """Returns the convolutions for an image [C, H, W], and the numbers the last one puts out.

    A kernel is never larger than what it is laid on; where an image is large, small ones stride.
    """
    _, height, width = image
    wanted = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    if kind == "small":
        largest = max(height, width)
        wanted = [(16, 3, 1), (32, 3, 1 if largest <= 12 else 2)]
        # until some eight pixels a side are left
        wanted += [(32, 3, 2)] * max(0, math.ceil(math.log2(largest / 24)))
    layers = []
    filters = 0
    for filters, side, stride in wanted:
        kernel = (min(side, height), min(side, width))
        layers.append((filters, kernel, stride))
        height, width = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    return layers, filters * height * width


def _convolution(
    inputs: int, plan: Convolution, gain: float, generator: torch.Generator
) -> nn.Conv2d:
    """Returns a layer with orthogonal weights and biases of zero, drawn from the generator alone."""
    filters, kernel, stride = plan
    layer = nn.Conv2d(inputs, filters, kernel, stride, device="meta")
    layer.weight = nn.Parameter(torch.empty(filters, inputs, *kernel))
    layer.bias = nn.Parameter(torch.empty(filters))
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
