"""A policy's parameters in, those of its action distribution and those of V alone out, as vectors.

Vanilla policy gradients, TRPO and CEM move the policy and its value function apart from each other.
Dimension key: K numbers of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipper.engine.state import FlatParameters
from clipper.errors import ConfigError
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.vectors import parameters_behind


class ParameterGroup:
    """Some of a policy's parameters as one vector, read and written in place.

    Args:
        parameters: All parameters of the policy, in one flat tensor.
        members: Which of them, in that tensor's order.
    """

    def __init__(self, parameters: FlatParameters, members: Sequence[nn.Parameter]) -> None:
        self.members = list(members)
        self._flat = parameters.params
        chosen = {id(member) for member in members}
        ranges, start = [], 0
        for parameter in parameters.learned:
            if id(parameter) in chosen:
                ranges.append(range(start, start + parameter.numel()))
            start += parameter.numel()
        self._at: slice | Tensor
        joint = range(ranges[0].start, ranges[-1].stop)
        if sum(len(part) for part in ranges) == len(joint):
            self._at = slice(joint.start, joint.stop)
        else:
            places = [torch.tensor(part, device=self._flat.device) for part in ranges]
            self._at = torch.cat(places)
        self.size = sum(len(part) for part in ranges)

    def read(self) -> Tensor:
        """Returns a copy of the parameters, [K]."""
        return self._flat[self._at].clone()

    def write(self, vector: Tensor) -> None:
        """Sets the parameters, [K]."""
        self._flat[self._at] = vector

    def gradient(
        self, loss: Tensor, *, retain_graph: bool = False, create_graph: bool = False
    ) -> Tensor:
        """Returns the gradient of a scalar with respect to the group, [K].

        Args:
            loss: Depends on every member.
            retain_graph: Lets more gradients be taken of the same computation.
            create_graph: Makes the gradient differentiable itself.
        """
        grads = torch.autograd.grad(
            loss, self.members, retain_graph=retain_graph or create_graph, create_graph=create_graph
        )
        return torch.cat([grad.reshape(-1) for grad in grads])


def actor_and_critic(
    policy: ActorCritic, parameters: FlatParameters
) -> tuple[ParameterGroup, ParameterGroup]:
    """Returns the parameters that the action distribution depends on, and those of V alone.

    What the two share, a torso for example, is the distribution's.

    Args:
        policy: Whose they are.
        parameters: All of them.

    Raises:
        ConfigError: All parameters of one of the two are frozen, or V has none of its own.
    """
    actor, behind_values = parameters_behind(policy)
    known = {id(p) for p in actor}
    critic = [p for p in behind_values if id(p) not in known]
    for name, members in (("action distribution", actor), ("value function alone", critic)):
        if not members:
            raise ConfigError(
                f"a module must have parameters of the {name} that require gradients, "
                "but has none.",
                hint="this algorithm moves policy and value function apart; PPO needs no such.",
            )
    return ParameterGroup(parameters, actor), ParameterGroup(parameters, critic)
