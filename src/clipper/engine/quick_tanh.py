"""A user's network in, the same with its hyperbolic tangents computed by our kernels out.

torch leaves tanh of float32 to MKL, which takes 2.3 ns a number on processors that are not Intel's:
a fifth of an update of a small network, and 15 times what the kernels take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipper.engine import kernels

# of fewer numbers torch's own call costs less than ours
_FEWEST = 2048
_backward = torch.ops.aten.tanh_backward.default


class QuickTanh:
    """The `nn.Tanh` parts of a network, whose work the kernels do within `with`.

    Args:
        network: The user's; parts that torch compiles or scripts are left alone.
        variant: The kernels' instruction set.
    """

    def __init__(self, network: nn.Module, variant: str) -> None:
        self._parts: list[dict[str, Any]] = []
        if not any(map(_is_compiled, network.modules())):
            # a subclass may do something else, and a forward of the user's own stays
            plain = [part for part in network.modules() if type(part) is nn.Tanh]
            self._parts = [vars(part) for part in plain if "forward" not in vars(part)]
        _Tanh.variant = variant

    def __enter__(self) -> None:
        """Lets the kernels compute them until it is left, gradients included."""
        for part in self._parts:
            part["forward"] = _tanh

    def __exit__(self, *error: object) -> None:
        for part in self._parts:
            part.pop("forward", None)


def _is_compiled(part: nn.Module) -> bool:
    return getattr(part, "_compiled_call_impl", None) is not None or hasattr(part, "_orig_mod")


def _tanh(x: Tensor) -> Tensor:
    """Returns tanh x, by the kernels where they are quicker and can."""
    if x.numel() < _FEWEST or x.dtype != torch.float32 or not x.is_contiguous() or x.is_cuda:
        return torch.tanh(x)
    try:
        return _Tanh.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    except RuntimeError:  # within torch.func's transformations, which are told no rule for it
        return torch.tanh(x)


class _Tanh(torch.autograd.Function):
    variant = ""  # no argument: torch takes 20 us to find out that a text is no tensor

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        kernels.compiled.tanh(_Tanh.variant, x.detach().numpy(), y.numpy())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        found: Tensor = _backward(grads[0], *ctx.saved_tensors)
        return found
