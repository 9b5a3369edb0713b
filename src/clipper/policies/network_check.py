"""A network in, how wide its output is out; or what it returned in place of what it must.

Dimension key: M rows, P distribution parameters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from clipper.errors import ConfigError
from clipper.policies.distributions import Distribution
from clipper.policies.images import module_inputs
from clipper.spaces import ObservationLayout

# what rounding may do on a device that adds up in another order
_SAME_OUTPUT = 1e-3


def checked_width(
    network: nn.Module,
    layout: ObservationLayout,
    distribution: Distribution,
    takes_rows: bool,
    values_per_action: bool,
) -> int:
    """Returns the width of a network's distribution parameters, after a trial on a few rows of zeros.

    Args:
        network: `forward(obs) -> (params [M, P], values)`.
        layout: How observations lie in a row.
        distribution: What the parameters are of; log standard deviations may be left out.
        takes_rows: It is given whole rows; else what `module_inputs` makes of them.
        values_per_action: The values are Q(s, a) of every action, [M, P], and not [M].

    Raises:
        ConfigError: It raises, has no parameters, returns something else or nothing that learns.
    """
    outputs = distribution.num_outputs
    allowed = (outputs, distribution.num_params)
    wanted = " or ".join(str(n) for n in sorted(set(allowed)))
    values_shape = f"[M, {outputs}]" if values_per_action else "[M]"
    first = next(network.parameters(), None)
    if first is None:
        raise ConfigError("a module must have parameters to learn, but has none.")
    # another number than that of the parameters: a transposed output would have the shape that is wanted
    num_rows = 3 if 2 in allowed else 2
    zeros = torch.from_numpy(layout.new_rows(num_rows)).to(first.device)
    if not layout.images:
        zeros = zeros.to(first.dtype)
    given = zeros if takes_rows else module_inputs(layout, zeros, first.dtype)
    law = (
        f"a module must return (params [M, {wanted}], values {values_shape}) for observations "
        f"{_input_shapes(layout)}"
    )
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.enable_grad():
            found, again = network(given), network(given)
    except Exception as error:
        raise ConfigError(f"{law}, but raised {type(error).__name__}: {error}.") from error
    finally:
        # one by one: a part that the user froze with eval() stays so
        for module, was_training in modes:
            module.training = was_training
    num_values = num_rows * (outputs if values_per_action else 1)
    width = _width(found, law, allowed, num_rows, num_values)
    _check_same(found, again)
    _check_gradient(network, *found)
    return width


def _check_same(found: tuple[Tensor, Tensor], again: Any) -> None:
    """Raises if a second call with the same rows gave something else, as of a network that remembers."""
    off = max(
        float((one.detach() - other.detach()).abs().max()) if one.shape == other.shape else math.inf
        for one, other in zip(found, again, strict=True)
    )
    if off > _SAME_OUTPUT:  # and not NaN, of which others tell
        raise ConfigError(
            "a module's output must depend on the observation alone, but a second call with the same "
            f"rows gave numbers that differ by up to {off:.3g}.",
            hint="keep no state between calls and draw no random numbers; what is to be remembered "
            "belongs into the observation (gymnasium.wrappers.FrameStackObservation).",
        )


def _check_gradient(network: nn.Module, params: Tensor, values: Tensor) -> None:
    """Raises if the policy cannot learn although it is not frozen."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if params.requires_grad or not learned:
        return
    found: tuple[Tensor | None, ...] = (None,) * len(learned)
    if values.requires_grad:
        found = torch.autograd.grad(values.sum(), learned, allow_unused=True)
    if any(gradient is None for gradient in found):
        raise ConfigError(
            "a module's distribution parameters must have a gradient, but theirs is cut off: nothing "
            "would be learnt.",
            hint="compute them without torch.no_grad() and detach(); what is not to learn is frozen by "
            "requires_grad_(False).",
        )


def _input_shapes(layout: ObservationLayout) -> str:
    """Returns what a module is given, as in `[M, 4]` or `{camera: [M, 3, 64, 64]}`."""
    size = layout.module_size
    if isinstance(size, int):
        return f"[M, {size}]"
    if isinstance(size, tuple):
        return f"[M, {', '.join(map(str, size))}]"
    parts = (f"{name}: [M, {', '.join(map(str, shape))}]" for name, shape in size.items())
    return f"{{{', '.join(parts)}}}"


def _width(found: Any, law: str, allowed: tuple[int, int], num_rows: int, num_values: int) -> int:
    """Returns how many parameters a network put out for each row, if it did as it must."""
    # a tensor of as many rows could be unpacked like a pair
    is_pair = isinstance(found, (tuple, list)) and len(found) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in found):
        raise ConfigError(
            f"{law}, but returned {_shown(found)}.",
            hint="end forward with `return params, values`.",
        )
    params, values = found
    if (
        params.ndim != 2
        or len(params) != num_rows
        or params.shape[1] not in allowed
        or values.numel() != num_values
    ):
        raise ConfigError(
            f"{law}, but returned {list(params.shape)} and {list(values.shape)} for {num_rows} rows."
        )
    return int(params.shape[1])


def _shown(found: object) -> str:
    if isinstance(found, Tensor):
        return f"one tensor {list(found.shape)}"
    if isinstance(found, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in found)
        return f"a {type(found).__name__} of {len(found)} ({kinds})"
    return f"a {type(found).__name__}"
