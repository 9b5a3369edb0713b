"""Laws of the default networks: their shapes are known before they are made."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clipper.config import PPOConfig
from clipper.policies.networks import MLPNetwork, mlp_shape, tensor_shapes


@pytest.mark.parametrize("shared_torso", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (5,), (5, 7, 3)])
@pytest.mark.parametrize("value_hidden_sizes", [None, (), (4, 6)])
def test_the_shapes_are_those_of_the_network(
    shared_torso: bool, hidden_sizes: tuple[int, ...], value_hidden_sizes: tuple[int, ...] | None
) -> None:
    """Every tensor of the network that is made, by name, and no other."""
    config = dataclasses.replace(
        PPOConfig(),
        shared_torso=shared_torso,
        hidden_sizes=hidden_sizes,
        value_hidden_sizes=None if shared_torso else value_hidden_sizes,
    )
    network = MLPNetwork(3, 2, mlp_shape(config), torch.Generator())
    made = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert tensor_shapes(3, 2, mlp_shape(config)) == made
