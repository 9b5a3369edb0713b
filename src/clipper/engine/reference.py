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

from clipper.engine.state import AdamState, not_finite


class ReferenceEngine:
    """Adam on the joint gradient of a policy, clipped to a norm.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, with bias correction.

    Args:
        policy: The module whose parameters are learned; they become views of one flat tensor.
        betas: Decay rates of the first and second moment.
        eps: Added to the denominator.
        max_grad_norm: Joint norm to which gradients are clipped, or None.
        state: The parameters and what Adam keeps of them if another engine has begun, else None.

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
        state: AdamState | None = None,
    ) -> None:
        self._betas = betas
        self._eps = eps
        self._max_grad_norm = max_grad_norm
        self.num_threads = 1  # torch has threads of its own
        self._state = AdamState(policy) if state is None else state
        self._grad = self._state.new_grad()
        # to read a number back from an accelerator is to wait for all that it was given to do
        self.waits = self._grad.device.type == "cpu"
        self._first_bad = torch.zeros(3, device=self._grad.device, dtype=torch.float64)

    @property
    def num_updates(self) -> int:
        """Steps taken."""
        return self._state.num_updates

    def describe(self) -> str:
        """Returns the engine's name, as runs are marked with."""
        return "reference"

    def minimise(self, loss: Tensor, learning_rate: float) -> Tensor:
        """Takes one step down the gradient of a loss.

        Args:
            loss: A scalar that depends on the policy's parameters.
            learning_rate: Step size.

        Returns:
            The joint norm of the gradient before clipping, a detached scalar where the loss is.

        Raises:
            NumericsError: The loss or its gradient is not finite; the parameters are unchanged. On
                an accelerator `settle` says so.
        """
        self._grad.zero_()
        loss.backward()
        norm: Tensor = self._grad.norm()
        if self.waits:
            found, value = float(norm), float(loss.detach())
            if not math.isfinite(found) or not math.isfinite(value):
                raise not_finite(value, found, self.num_updates + 1)
            if self._max_grad_norm is not None and found > self._max_grad_norm:
                self._grad.mul_(self._max_grad_norm / (found + 1e-6))
        else:
            self._clip_without_waiting(loss.detach(), norm)
        self._adam(learning_rate)
        return norm

    @torch.no_grad()
    def _clip_without_waiting(self, loss: Tensor, norm: Tensor) -> None:
        """Clips the gradient; one that is not finite becomes 0 and is remembered for `settle`."""
        is_good = norm.isfinite() & loss.isfinite()
        number = torch.full_like(norm, self.num_updates + 1)
        found = torch.stack([loss, norm, number]).double()
        is_first = ~is_good & (self._first_bad[2] == 0)
        self._first_bad.copy_(torch.where(is_first, found, self._first_bad))
        self._grad.copy_(torch.where(is_good, self._grad, 0.0))
        if self._max_grad_norm is not None:
            limit = self._max_grad_norm
            scale = torch.where(norm > limit, limit / (norm.double() + 1e-6), 1.0)
            self._grad.mul_(torch.where(is_good, scale, 1.0).to(self._grad.dtype))

    def settle(self) -> None:
        """Waits for all updates so far.

        Raises:
            NumericsError: A loss or its gradient was not finite; nothing was learnt from it.
        """
        if self.waits:
            return
        loss, norm, update = self._first_bad.tolist()
        if update:
            self._first_bad.zero_()
            raise not_finite(loss, norm, int(update))

    @torch.no_grad()
    def _adam(self, learning_rate: float) -> None:
        state = self._state
        state.num_updates += 1
        beta1, beta2 = self._betas
        correction1 = 1.0 - beta1**state.num_updates
        correction2 = 1.0 - beta2**state.num_updates
        with state.frozen_kept():
            state.m.lerp_(self._grad, 1.0 - beta1)
            state.v.mul_(beta2).addcmul_(self._grad, self._grad, value=1.0 - beta2)
            denominator = (state.v.sqrt() / math.sqrt(correction2)).add_(self._eps)
            state.params.addcdiv_(state.m, denominator, value=-learning_rate / correction1)

    @property
    def state(self) -> AdamState:
        """The parameters in one vector, and what Adam keeps of them."""
        return self._state

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of both moments and the number of updates."""
        return self._state.state_now()()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._state.load_state_dict(state)
