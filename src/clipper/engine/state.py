"""What all engines keep of the optimiser and tell of an iteration, in the same form.

A run that was begun with one engine can therefore go on with another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.advantages import ValueFit
from clipper.errors import ConfigError, NumericsError


class FlatParameters:
    """A module's parameters in one flat tensor, of which the module's own become views.

    Args:
        policy: The module whose parameters are learned.

    Attributes:
        learned: The parameters that require gradients, in the module's order.
        names: Their names in the module.
        params: All of them in one vector.

    Raises:
        ConfigError: All parameters are frozen.
    """

    def __init__(self, policy: nn.Module) -> None:
        named = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.learned = [p for _, p in named]
        if not self.learned:
            raise ConfigError(
                "a module must have parameters that require gradients, but all are frozen.",
                hint="call requires_grad_(True) on those that are to be learnt.",
            )
        self.params = torch.cat([p.detach().reshape(-1) for p in self.learned])
        for parameter, part in zip(self.learned, self.split(self.params), strict=True):
            parameter.data = part

    def split(self, flat: Tensor) -> list[Tensor]:
        """Returns views of a flat tensor with the shapes of the parameters."""
        sizes = [p.numel() for p in self.learned]
        parts = zip(flat.split(sizes), self.learned, strict=True)
        return [part.view_as(parameter) for part, parameter in parts]

    def parameters_now(self) -> Callable[[], dict[str, Tensor]]:
        """Returns what gives copies of the parameters, as they are now, by name."""
        flat = self.params.clone()
        return lambda: dict(zip(self.names, self.split(flat), strict=True))

    def new_grad(self) -> Tensor:
        """Returns a flat tensor of zeros, of which the parameters' gradients become views."""
        grad = torch.zeros_like(self.params)
        for parameter, part in zip(self.learned, self.split(grad), strict=True):
            parameter.grad = part
        return grad


class AdamState(FlatParameters):
    """Flat parameters and Adam's two averages.

    Args:
        policy: The module whose parameters are learned; they become views of `params`.

    Attributes:
        m: First moments.
        v: Second moments.
        num_updates: Steps taken.

    Raises:
        ConfigError: All parameters are frozen.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__(policy)
        self.m = torch.zeros_like(self.params)
        self.v = torch.zeros_like(self.params)
        self.num_updates = 0

    def state_now(self) -> Callable[[], dict[str, Tensor]]:
        """Returns what gives copies of both moments and the number of updates, as they are now."""
        m, v, count = self.m.clone(), self.v.clone(), self.num_updates
        return lambda: {"m": m, "v": v, "num_updates": torch.tensor([count], dtype=torch.int64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.num_updates = int(state["num_updates"])


@dataclass(frozen=True, slots=True)
class Updates:
    """What the epochs of an iteration did.

    Attributes:
        reports: A row of numbers for every minibatch, float64 [n, 7].
        grad_norms: Norm of the gradient before clipping, one for every update.
        epochs: Epochs that were finished.
        fit: How well V(s_t) fitted the targets of the first epoch.
        counted: Rows that the policy could learn from, [B], or None for all.
        kl: Mean exact KL(old || new) over all rows after the updates; None if nobody asked.
        estimate_seconds: Time that a call which does it all spent on advantages.
    """

    reports: NDArray[np.float64]
    grad_norms: list[float]
    epochs: int
    fit: ValueFit
    counted: Tensor | None
    kl: float | None
    estimate_seconds: float = 0.0


class Snapshot(Mapping[str, dict[str, Any]]):
    """The parts of a state as they were when it was taken, made when they are asked for.

    One is taken before every iteration, to fall back on, and hardly ever looked at.

    Args:
        parts: What makes each part, by its name.
    """

    def __init__(self, parts: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._parts[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def not_finite(loss: float, norm: float, update: int) -> NumericsError:
    """Returns the error for a loss or a gradient that is NaN or infinite."""
    return NumericsError(
        f"the loss and its gradient must be finite, but are {loss} and {norm} at update {update}.",
        hint="lower learning_rate, or look for extreme rewards (normalize_reward).",
    )
