"""A policy that changes in, its running average out: what a trust region is measured from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from clipper.engine.state import FlatParameters
from clipper.losses import trust_region_correction
from clipper.policies.actor_critic import ActorCritic


class AveragePolicy:
    """theta_a <- decay theta_a + (1 - decay) theta after every update (arXiv 1611.01224, 3.3).

    Args:
        policy: What is learned; the average begins there.
        parameters: Its parameters in one flat tensor.
        decay: Near 1 for a slow average, 0 for the policy itself.
    """

    def __init__(self, policy: ActorCritic, parameters: FlatParameters, decay: float) -> None:
        self._current = parameters.params
        self._decay = decay
        self._policy = copy.deepcopy(policy)
        self._average = FlatParameters(self._policy).params

    @torch.no_grad()
    def params(self, normalized_obs: Tensor) -> Tensor:
        """Returns the distribution parameters of the average policy, [M, P], detached."""
        return self._policy.distribution_params(normalized_obs)

    def hold_back(
        self, loss: Tensor, params: Tensor, normalized_obs: Tensor, delta: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns a policy loss whose gradient was held back, and detached numbers of it.

        g = -M dloss/dparams and k = dKL(average || policy)/dparams are taken row by row, so that
        delta does not depend on how many rows there are; what is returned has the gradient -z / M.

        Args:
            loss: A mean over rows, which depends on `params`.
            params: The policy's distribution parameters, [M, P].
            normalized_obs: The observations they belong to, [M, D].
            delta: How much the divergence may rise along z, to first order.

        Returns:
            The loss, and the mean divergence and the share of rows that were held back.
        """
        num_rows = len(params)
        (gradient,) = torch.autograd.grad(loss, params, retain_graph=True)
        g = -num_rows * gradient
        statistics = params.detach().requires_grad_()
        kl = self._policy.distribution.kl(self.params(normalized_obs), statistics)
        (k,) = torch.autograd.grad(kl.sum(), statistics)
        z = trust_region_correction(g, k, delta)
        fraction = (z != g).any(-1).to(kl.dtype).mean()
        return -(z * params).sum() / num_rows, [kl.detach().mean(), fraction]

    @torch.no_grad()
    def follow(self) -> None:
        """Moves towards the policy as it is now."""
        self._average.lerp_(self._current, 1.0 - self._decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns a copy of the average."""
        return {"params": self._average.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self._average.copy_(state["params"])
