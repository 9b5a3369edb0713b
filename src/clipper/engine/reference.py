"""A loss in, one Adam step on the policy's parameters out; plain torch, any module, any device.

The parameters and their gradients each live in one flat tensor, of which the module's own tensors
are views: clipping and Adam are a handful of operations whatever the number of layers. (torch.optim
is not used: importing it loads the compiler stack, 72 MB and a second.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipper.errors import ConfigError, NumericsError


class ReferenceEngine:
    """Adam on the joint gradient of a policy, clipped to a norm.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, with bias correction.

    Args:
        policy: The module whose parameters are learned; they become views of one flat tensor.
        betas: Decay rates of the first and second moment.
        eps: Added to the denominator.
        max_grad_norm: Joint norm to which gradients are clipped, or None.

    Raises:
        ConfigError: No parameter requires a gradient.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        betas: tuple[float, float],
        eps: float,
        max_grad_norm: float | None,
    ) -> None:
        self._betas = betas
        self._eps = eps
        self._max_grad_norm = max_grad_norm
        self._flat, self._grad = _flatten_parameters(policy)
        self._m = torch.zeros_like(self._flat)
        self._v = torch.zeros_like(self._flat)
        self.num_updates = 0

    def minimise(self, loss: Tensor, learning_rate: float) -> float:
        """Takes one step down the gradient of a loss.

        Args:
            loss: A scalar that depends on the policy's parameters.
            learning_rate: Step size.

        Returns:
            The joint norm of the gradient before clipping.

        Raises:
            NumericsError: The loss or its gradient is not finite; the parameters are unchanged.
        """
        self._grad.zero_()
        loss.backward()
        norm = float(self._grad.norm())
        if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
            raise NumericsError(
                f"the loss and its gradient must be finite, but are {float(loss.detach())} "
                f"and {norm} at update {self.num_updates + 1}.",
                hint="lower learning_rate, or look for extreme rewards (normalize_reward).",
            )
        if self._max_grad_norm is not None and norm > self._max_grad_norm:
            self._grad.mul_(self._max_grad_norm / (norm + 1e-6))
        self._adam(learning_rate)
        return norm

    @torch.no_grad()
    def _adam(self, learning_rate: float) -> None:
        self.num_updates += 1
        beta1, beta2 = self._betas
        self._m.lerp_(self._grad, 1.0 - beta1)
        self._v.mul_(beta2).addcmul_(self._grad, self._grad, value=1.0 - beta2)
        correction1 = 1.0 - beta1**self.num_updates
        correction2 = 1.0 - beta2**self.num_updates
        denominator = (self._v.sqrt() / math.sqrt(correction2)).add_(self._eps)
        self._flat.addcdiv_(self._m, denominator, value=-learning_rate / correction1)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of both moments and the number of updates."""
        count = torch.tensor([self.num_updates], dtype=torch.int64)
        return {"m": self._m.clone(), "v": self._v.clone(), "num_updates": count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._m.copy_(state["m"])
        self._v.copy_(state["v"])
        self.num_updates = int(state["num_updates"])


def _flatten_parameters(policy: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns one tensor of all parameters and one of their gradients; the module's become views."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError(
            "a module must have parameters that require gradients, but all are frozen.",
            hint="call requires_grad_(True) on those that are to be learnt.",
        )
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat[start:end].view_as(parameter)
        parameter.grad = grad[start:end].view_as(parameter)
        start = end
    return flat, grad
