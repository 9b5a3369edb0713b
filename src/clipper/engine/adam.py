"""A loss in, one Adam step on a group of a policy's parameters out; the other ones stay."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clipper.engine.group import ParameterGroup
from clipper.engine.state import not_finite

BETAS = (0.9, 0.999)
EPS = 1e-8


class GroupAdam:
    """Adam with its paper's decay rates and epsilon on a group of parameters.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, with bias correction.

    Args:
        group: What is learned.

    Attributes:
        m: First moments, [K].
        v: Second moments, [K].
        num_updates: Steps taken.
    """

    def __init__(self, group: ParameterGroup) -> None:
        self.group = group
        self.m = torch.zeros_like(group.read())
        self.v = torch.zeros_like(self.m)
        self.num_updates = 0

    def minimise(self, loss: Tensor, learning_rate: float) -> float:
        """Takes one step down the gradient of a loss.

        Args:
            loss: A scalar that depends on every parameter of the group.
            learning_rate: Step size.

        Returns:
            The norm of the gradient.

        Raises:
            NumericsError: The loss or its gradient is not finite; the parameters are unchanged.
        """
        grad = self.group.gradient(loss)
        norm = float(grad.norm())
        if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
            raise not_finite(float(loss.detach()), norm, self.num_updates + 1)
        self.num_updates += 1
        beta1, beta2 = BETAS
        self.m.lerp_(grad, 1.0 - beta1)
        self.v.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        correction1 = 1.0 - beta1**self.num_updates
        correction2 = 1.0 - beta2**self.num_updates
        denominator = (self.v.sqrt() / math.sqrt(correction2)).add_(EPS)
        step = (self.m / denominator).mul_(learning_rate / correction1)
        self.group.write(self.group.read() - step)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of both moments and the number of updates."""
        count = torch.tensor([self.num_updates], dtype=torch.int64)
        return {"m": self.m.clone(), "v": self.v.clone(), "num_updates": count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.num_updates = int(state["num_updates"])
