"""A user's network in, the same with parts that our kernels compute out."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from clipper.engine import quick_mlp, quick_tanh
from clipper.engine.quick_mlp import QuickMLP


class QuickParts:
    """The parts of a network whose work the kernels do within `with`, gradients included.

    They are its plain multilayer perceptrons and what other `nn.Tanh` it has.

    Args:
        network: The user's; one that torch compiles or scripts is left alone.
        params: The flat tensor that holds its parameters.
        variant: The kernels' instruction set.

    Attributes:
        num_mlps: How many multilayer perceptrons there are.
    """

    def __init__(self, network: nn.Module, params: Tensor, variant: str) -> None:
        self._patches: list[tuple[dict[str, Any], Any]] = []
        self.num_mlps = 0
        self._num_within = 0
        self._lock = threading.Lock()
        parts = list(network.modules())
        if any(map(_is_compiled, parts)):
            return
        mlps = [QuickMLP(p, params, variant) for p in parts if quick_mlp.covers(p, params)]
        within = {part for mlp in mlps for part in mlp.sequence}
        self.num_mlps = len(mlps)
        self._patches = [(vars(mlp.sequence), mlp) for mlp in mlps] + [
            (vars(part), quick_tanh.tanh)
            for part in parts
            if quick_tanh.is_plain(part) and part not in within
        ]

    def __enter__(self) -> None:
        """Lets the kernels compute them until it is left, by the last thread that is within."""
        with self._lock:
            self._num_within += 1
            for own, quick in self._patches:
                own["forward"] = quick

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_within -= 1
            if self._num_within == 0:
                for own, _ in self._patches:
                    own.pop("forward", None)


def _is_compiled(part: nn.Module) -> bool:
    return getattr(part, "_compiled_call_impl", None) is not None or hasattr(part, "_orig_mod")
