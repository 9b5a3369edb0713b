"""A policy in, which of its parameters do what out; and parameters as one vector, and back.

Dimension key: K numbers of some parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipper.policies.actor_critic import ActorCritic


def parameters_behind(policy: ActorCritic) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the learned parameters that the action distribution depends on, and those that V does.

    Whichever way a module is built: found by differentiating its outputs. What both depend on, a
    shared torso for example, is in both.
    """
    learned = [p for p in policy.parameters() if p.requires_grad]
    found = []
    with torch.enable_grad():
        obs = policy.normalize(torch.from_numpy(policy.obs_layout.new_rows(2)))
        for output in policy(obs):
            grads: Sequence[Tensor | None] = [None] * len(learned)
            if output.requires_grad:
                grads = torch.autograd.grad(
                    output.sum(), learned, allow_unused=True, retain_graph=True
                )
            found.append([p for p, grad in zip(learned, grads, strict=True) if grad is not None])
    return found[0], found[1]


def mode_parameters(policy: ActorCritic) -> list[nn.Parameter]:
    """Returns the learned parameters that the most likely action depends on.

    The log standard deviations that belong to no observation are not among them.
    """
    return [p for p in parameters_behind(policy)[0] if p is not policy.log_std]


def read_vector(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Returns a copy of parameters as one vector, [K]."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


@torch.no_grad()
def write_vector(parameters: Sequence[nn.Parameter], vector: Tensor) -> None:
    """Sets parameters in place from one vector, [K]."""
    parts = vector.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
