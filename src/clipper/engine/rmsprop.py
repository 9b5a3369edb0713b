"""A gradient in, one RMSprop step on a policy's parameters out.

As in the reference implementations of A3C, A2C and ACER, which were TensorFlow's: epsilon is inside
the root and the average of squares begins at 1, so that the first steps are small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clipper.engine.state import FlatParameters, not_finite


class RMSprop:
    """RMSprop (Tieleman and Hinton 2012) on the joint gradient, clipped to a norm.

    v <- alpha v + (1 - alpha) g^2, theta <- theta - learning_rate g / sqrt(v + eps), elementwise.

    Args:
        parameters: What is learned, in one flat tensor.
        alpha: Decay of the average of squares, 0 to 1.
        eps: Added under the root.
        max_grad_norm: Joint norm to which gradients are clipped, or None.

    Attributes:
        grad: The gradient of all parameters in one flat tensor; the module's own are views of it.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        alpha: float,
        eps: float,
        max_grad_norm: float | None,
    ) -> None:
        self._params = parameters.params
        self._alpha = alpha
        self._eps = eps
        self._max_grad_norm = max_grad_norm
        self._square_avg = torch.ones_like(self._params)
        self.num_updates = 0
        self.grad = parameters.new_grad()

    def minimise(self, loss: Tensor, learning_rate: float) -> float:
        """Takes one step down the gradient of a loss and returns the gradient's norm.

        Args:
            loss: A scalar that depends on the parameters.
            learning_rate: Step size.

        Raises:
            NumericsError: The loss or its gradient is not finite; the parameters are unchanged.
        """
        self.grad.zero_()
        loss.backward()
        return self.descend(float(loss.detach()), learning_rate)

    @torch.no_grad()
    def descend(self, loss: float, learning_rate: float) -> float:
        """Takes one step down the gradient that `grad` holds and returns its norm before clipping.

        Args:
            loss: What it is the gradient of, to be checked.
            learning_rate: Step size.

        Raises:
            NumericsError: The loss or its gradient is not finite; the parameters are unchanged.
        """
        norm = float(self.grad.norm())
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise not_finite(loss, norm, self.num_updates + 1)
        if self._max_grad_norm is not None and norm > self._max_grad_norm:
            self.grad.mul_(self._max_grad_norm / (norm + 1e-6))
        self.num_updates += 1
        self._square_avg.mul_(self._alpha).addcmul_(self.grad, self.grad, value=1.0 - self._alpha)
        root = (self._square_avg + self._eps).sqrt_()
        self._params.addcdiv_(self.grad, root, value=-learning_rate)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the average of squares and the number of updates."""
        count = torch.tensor([self.num_updates], dtype=torch.int64)
        return {"square_avg": self._square_avg.clone(), "num_updates": count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._square_avg.copy_(state["square_avg"])
        self.num_updates = int(state["num_updates"])
