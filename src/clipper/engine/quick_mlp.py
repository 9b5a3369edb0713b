"""A user's network in, the same with its plain multilayer perceptrons computed by our kernels out.

torch spends ten operations and a node of its graph for each on what is one call here, forth and back.
Dimension key: M rows, D inputs, P outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from clipper.engine import kernels

# in the order of `Activation` in native/network.hpp, and what must hold of each
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.Tanh: lambda part: True,
    nn.ReLU: lambda part: not part.inplace,
    nn.ELU: lambda part: part.alpha == 1.0 and not part.inplace,
    nn.SiLU: lambda part: not part.inplace,
    nn.GELU: lambda part: part.approximate == "none",
}
# torch's own products of larger layers are as quick, and have as many threads as there are
_WIDEST = 512
_WIDEST_BESIDE_THREADS = 128
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class QuickMLP:
    """One `nn.Sequential` of linear layers and activations of one kind.

    Calling it does what the sequence does, by the kernels where they can: rows of float32 on the CPU,
    and parameters, layers and hooks as they were when it was made; otherwise by torch.

    Args:
        sequence: One that `covers` has no objection to.
        params: The flat tensor that its parameters are views of.
        variant: The kernels' instruction set.

    Attributes:
        owned: Its parameters, weights and biases in turn.
    """

    def __init__(self, sequence: nn.Sequential, params: Tensor, variant: str) -> None:
        self.sequence = sequence
        self._parts = tuple(sequence)  # children() would leave out what comes twice
        self._linear = [part for part in self._parts if type(part) is nn.Linear]
        self._activations = {part for part in self._parts if type(part) is not nn.Linear}
        self.owned = [p for part in self._linear for p in (part.weight, part.bias)]
        self._places = [p.data_ptr() for p in self.owned]
        first = _place(params, self.owned[0])
        self._sizes = [p.numel() for p in self.owned]
        own = params[first : first + sum(self._sizes)]
        kind = next(map(type, self._activations), nn.Tanh)
        self._inputs, self._outputs = self._linear[0].in_features, self._linear[-1].out_features
        self._is_narrow = _widest(self._linear) <= _WIDEST_BESIDE_THREADS
        self._policy = kernels.compiled.Policy(
            variant,
            own.numpy(),
            self._inputs,
            list(_ACTIVATIONS).index(kind),
            ([], kernels.chain(self._parts, lambda p: _place(own, p)), []),
            0,
            [self._outputs],
            None,
            -1,
            None,
        )
        # a class of its own: autograd takes long over arguments that are no tensors
        self._function: Any = type("QuickMLPFunction", (_Function,), {"mlp": self})

    def __call__(self, x: Tensor) -> Tensor:
        """Returns what the sequence makes of rows [..., D]: [..., P]."""
        # what compiles a function of the user's must not look in here
        if torch.compiler.is_compiling() or not self._takes(x):
            return self.by_torch(x)
        try:
            if not torch.is_grad_enabled():
                return self._run(x, None)
            return self._function.apply(x, *self.owned)  # type: ignore[no-any-return]
        except RuntimeError:
            return self.by_torch(x)  # torch.func's transformations are told no rule for ours

    def __reduce__(self) -> Any:
        """A copy of the sequence does the same by torch, with its own parameters."""
        return partial, (nn.Sequential.forward, self.sequence)

    def by_torch(self, x: Tensor) -> Tensor:
        """Returns the same, by torch."""
        return nn.Sequential.forward(self.sequence, x)  # type: ignore[no-any-return,no-untyped-call]

    def _takes(self, x: Tensor) -> bool:
        return (
            type(x) is Tensor
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and x.dim() > 0
            and x.shape[-1] == self._inputs
            and x.numel() > 0
            and not torch.is_autocast_enabled("cpu")
            and (self._is_narrow or torch.get_num_threads() <= 2)
            and forward_ad._current_level < 0  # derivatives that go forth are torch's
            and tuple(self.sequence) == self._parts
            and not _has_any_global_hook()
            and not any(map(_is_watched, self._parts))
            and all(_ACTIVATIONS[type(part)](part) for part in self._activations)
            and all(a is b for a, b in zip(self._parameters(), self.owned, strict=True))
            and [p.data_ptr() for p in self.owned] == self._places
        )

    def _parameters(self) -> list[Any]:
        found = (part._parameters for part in self._linear)
        return [p for named in found for p in (named.get("weight"), named.get("bias"))]

    def forth(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs of rows, [..., P], and what their way back needs."""
        rows = x.numel() // self._inputs
        kept = x.new_empty(kernels.compiled.kept_size(self._policy, rows))
        return self._run(x, kept), kept

    def _run(self, x: Tensor, kept: Tensor | None) -> Tensor:
        y = x.new_empty((*x.shape[:-1], self._outputs))
        kernels.compiled.run(
            self._policy, _rows(x), None if kept is None else kept.numpy(), y.numpy()
        )
        return y

    def back(
        self, x: Tensor, kept: Tensor, grad_y: Tensor, needs_x: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Returns the gradients of the rows, where somebody needs them, and of the parameters."""
        grad_x = x.new_empty(x.shape) if needs_x else None
        grads = x.new_empty(sum(self._sizes))
        kernels.compiled.run_back(
            self._policy,
            _rows(x),
            kept.numpy(),
            _rows(grad_y),
            None if grad_x is None else grad_x.numpy(),
            grads.numpy(),
        )
        parts = zip(grads.split(self._sizes), self.owned, strict=True)
        return grad_x, [part.view_as(parameter) for part, parameter in parts]


def covers(part: nn.Module, params: Tensor) -> TypeGuard[nn.Sequential]:
    """Returns True if the kernels can compute a part of a network.

    Args:
        part: The part.
        params: The flat tensor that holds the parameters that are learned.
    """
    if type(part) is not nn.Sequential or "forward" in vars(part):
        return False
    parts = list(part)
    return _is_mlp(parts) and _are_side_by_side(parts, params)


def _is_mlp(parts: Sequence[nn.Module]) -> bool:
    linear = [part for part in parts if type(part) is nn.Linear]
    others = [part for part in parts if type(part) is not nn.Linear]
    return (
        len(parts) >= 2  # one alone is as quick by torch
        and type(parts[0]) is nn.Linear
        and all(layer.bias is not None for layer in linear)
        and _widest(linear) <= _WIDEST
        and all(type(part) in _ACTIVATIONS and _ACTIVATIONS[type(part)](part) for part in others)
        and len(set(map(type, others))) <= 1
        and all(type(b) is nn.Linear for a, b in pairwise(parts) if type(a) is not nn.Linear)
        and not any(map(_is_watched, parts))
    )


def _are_side_by_side(parts: Sequence[nn.Module], params: Tensor) -> bool:
    owned = [p for part in parts for p in part.parameters(recurse=False)]
    place = _place(params, owned[0])
    if place < 0 or place + sum(p.numel() for p in owned) > len(params):
        return False
    for parameter in owned:
        if parameter.dtype != params.dtype or _place(params, parameter) != place:
            return False
        place += parameter.numel()
    return True


def _is_watched(part: nn.Module) -> bool:
    """Returns True if calling a part does more than its class says."""
    own = vars(part)
    return "forward" in own or any(own[name] for name in _HOOKS)


def _widest(layers: Sequence[nn.Linear]) -> int:
    return max(max(layer.in_features, layer.out_features) for layer in layers)


def _place(params: Tensor, parameter: Tensor) -> int:
    return (parameter.data_ptr() - params.data_ptr()) // params.element_size()


def _rows(x: Tensor) -> Any:
    return np.ascontiguousarray(x.detach().numpy())


class _Function(torch.autograd.Function):
    mlp: QuickMLP

    @classmethod
    def forward(cls, ctx: Any, x: Tensor, *owned: Tensor) -> Tensor:
        y, kept = cls.mlp.forth(x)
        # only what the way back looks at may not change meanwhile, as with torch
        weights = owned[0 if ctx.needs_input_grad[0] else 2 :: 2]
        ctx.save_for_backward(x, kept, *weights)
        ctx.versions = [p._version for p in owned]
        return y

    @classmethod
    def backward(cls, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *_ = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # somebody differentiates the gradient, which is torch's to do
            return _by_torch(cls.mlp, x, ctx.versions, needed, grads[0])
        try:
            by_x, by_owned = cls.mlp.back(x, kept, grads[0], needed[0])
        except RuntimeError:  # gradients in batches
            return _by_torch(cls.mlp, x, ctx.versions, needed, grads[0])
        learned = zip(by_owned, needed[1:], strict=True)
        return by_x, *(grad if is_needed else None for grad, is_needed in learned)


def _by_torch(
    mlp: QuickMLP, x: Tensor, versions: list[int], needed: tuple[bool, ...], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Returns the gradients by torch, from the rows on."""
    if [p._version for p in mlp.owned] != versions:
        raise RuntimeError("a parameter was modified by an inplace operation before the way back")
    create_graph = torch.is_grad_enabled()
    tensors = zip((x, *mlp.owned), needed, strict=True)
    wanted = [tensor for tensor, is_needed in tensors if is_needed]
    with torch.enable_grad():
        y = mlp.by_torch(x)
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=create_graph))
    return tuple(next(found) if is_needed else None for is_needed in needed)
