"""Layouts of spaces and a shape or a module in, a fresh policy out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from clipper.action_layout import ActionLayout
from clipper.errors import ConfigError, SpaceError
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.distributions import distribution_for
from clipper.policies.images import ImageNetwork
from clipper.policies.networks import MLPNetwork, MLPShape, one_torch_thread, single_precision
from clipper.randomness import Purpose, derived_seed
from clipper.spaces import ObservationLayout

ModuleLike = nn.Module | Callable[[Any, int], nn.Module]


def build_policy(
    obs_layout: ObservationLayout,
    action_layout: ActionLayout,
    shape: MLPShape,
    *,
    module: ModuleLike | None,
    seed: int,
    log_std_init: float,
    normalize_obs: bool,
) -> ActorCritic:
    """Returns a fresh policy: an MLP of the given shape, a CNN, or around the user's own module.

    Args:
        obs_layout: How observations lie in a row.
        action_layout: How actions are sampled.
        shape: The layers, of which a `module` keeps no more than `values_per_action`.
        module: An `nn.Module`, or a callable `(obs_size, num_outputs) -> nn.Module`; obs_size is
            `ObservationLayout.module_size`.
        seed: The run's seed; initial weights are a function of it.
        log_std_init: Initial log standard deviation of continuous actions.
        normalize_obs: Keep running statistics of Box observations.

    Raises:
        ConfigError: The module is not one, or does not put out what the action space needs.
        SpaceError: The shape has values of every action, but actions are not `Discrete`.
    """
    if shape.values_per_action and action_layout.kind != "discrete":
        raise SpaceError(
            "acer learns a value of every action, so that the action space must be Discrete, "
            f"but is {action_layout.space}.",
            hint="ppo and a2c take every action space.",
        )
    weights_seed = int(derived_seed(seed, Purpose.INITIAL_WEIGHTS, 0, 0))
    num_outputs = distribution_for(action_layout).num_outputs
    with one_torch_thread():
        if module is None:
            generator = torch.Generator().manual_seed(weights_seed)
            network: nn.Module
            with single_precision():
                if obs_layout.images:
                    network = ImageNetwork(obs_layout, num_outputs, shape, generator)
                else:
                    network = MLPNetwork(obs_layout.size, num_outputs, shape, generator)
        elif isinstance(module, nn.Module):
            _refuse_taken(module)
            network = module
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(weights_seed)
                network = _made(module, obs_layout.module_size, num_outputs)
    policy = ActorCritic(
        obs_layout,
        action_layout,
        network,
        log_std_init=log_std_init,
        normalize_obs=normalize_obs,
        values_per_action=shape.values_per_action,
    )
    if isinstance(module, nn.Module):
        _OWNERS.update((id(parameter), policy) for parameter in policy.parameters())
    return policy


# the policies of the users' own instances, by the ids of their parameters
_OWNERS: WeakValueDictionary[int, ActorCritic] = WeakValueDictionary()


def _refuse_taken(module: nn.Module) -> None:
    """Raises if a policy that is still there learns some of a module's parameters.

    Each policy has its parameters in one tensor of its own: the first would lose them to the second.
    """
    if _taken(module) is None:
        return
    gc.collect()  # an agent that nobody has any more is freed by and by
    if (name := _taken(module)) is not None:
        raise ConfigError(
            f"a module must be of one agent alone, but another one learns its {name}.",
            hint="give the class, or a function that makes one (module=Net), and every agent has its "
            "own; or a copy: copy.deepcopy(net).",
        )


def _taken(module: nn.Module) -> str | None:
    for name, parameter in module.named_parameters():
        owner = _OWNERS.get(id(parameter)) if parameter.requires_grad else None
        # an id may have become another's since
        if owner is not None and any(parameter is mine for mine in owner.parameters()):
            return name
    return None


def _made(module: object, obs_size: object, num_outputs: int) -> nn.Module:
    """Returns the network that the user's callable makes."""
    law = f"a module must be an nn.Module or make one when called with ({obs_size}, {num_outputs})"
    if not callable(module):
        raise ConfigError(f"{law}, but is {module!r}.")
    try:
        network = module(obs_size, num_outputs)
    except Exception as error:
        raise ConfigError(f"{law}, but raised {type(error).__name__}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{law}, but made {type(network).__name__}.")
    return network
