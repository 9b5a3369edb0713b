"""A policy that changes in, its running average out: what a trust region is measured from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from clipper.engine.state import FlatParameters
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
        return self._policy(normalized_obs)[0]  # type: ignore[no-any-return]

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
