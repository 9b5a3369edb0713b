"""What all engines keep of the optimiser and tell of an iteration, in the same form.

A run that was begun with one engine can therefore go on with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipper.errors import ConfigError, NumericsError


class FlatParameters:
    """A module's parameters in one flat tensor, of which the module's own become views.

    Args:
        policy: The module whose parameters are learned.

    Attributes:
        learned: The parameters that require gradients.
        params: All of them, in the module's order.

    Raises:
        ConfigError: All parameters are frozen.
    """

    def __init__(self, policy: nn.Module) -> None:
        self.learned = [p for p in policy.parameters() if p.requires_grad]
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

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of both moments and the number of updates."""
        count = torch.tensor([self.num_updates], dtype=torch.int64)
        return {"m": self.m.clone(), "v": self.v.clone(), "num_updates": count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.num_updates = int(state["num_updates"])


@dataclass(frozen=True, slots=True)
class Updates:
    """What the epochs of an iteration did.

    Attributes:
        reports: A row of numbers for every minibatch, [n, 7].
        grad_norms: Norm of the gradient before clipping, one for every update.
        epochs: Epochs that were finished.
        value_targets: What V(s_t) was fitted to in the first epoch, [B].
        counted: Rows that the policy could learn from, [B], or None for all.
        kl: Mean exact KL(old || new) over all rows after the updates; None if nobody asked.
        estimate_seconds: Time that a call which does it all spent on advantages.
    """

    reports: Tensor
    grad_norms: list[float]
    epochs: int
    value_targets: Tensor
    counted: Tensor | None
    kl: float | None
    estimate_seconds: float = 0.0


def not_finite(loss: float, norm: float, update: int) -> NumericsError:
    """Returns the error for a loss or a gradient that is NaN or infinite."""
    return NumericsError(
        f"the loss and its gradient must be finite, but are {loss} and {norm} at update {update}.",
        hint="lower learning_rate, or look for extreme rewards (normalize_reward).",
    )
