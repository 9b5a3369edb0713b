"""Laws of the default networks: shapes known before they are made, weights fixed by the seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gymnasium import spaces
from torch import nn

from clipper.action_layout import ActionLayout
from clipper.config_ppo import PPOConfig
from clipper.policies.build import build_policy
from clipper.policies.networks import MLPNetwork, mlp_shape, tensor_shapes
from clipper.spaces import ObservationLayout


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


class _Orthogonal(nn.Module):
    """A network of a user whose weights come from torch's threaded QR decomposition."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(obs_size, 96), nn.Linear(96, num_outputs + 1)
        for layer in (self.hidden, self.head):
            nn.init.orthogonal_(layer.weight)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns distribution parameters and a value."""
        out = self.head(torch.tanh(self.hidden(obs)))
        return out[:, :-1], out[:, -1]


@pytest.mark.parametrize("module", [None, _Orthogonal])
def test_a_seed_fixes_the_initial_weights_for_any_number_of_torch_threads(
    module: type[nn.Module] | None,
) -> None:
    """Torch's QR decomposition of 64 x 64 numbers has other last bits with two threads than one."""
    obs_layout = ObservationLayout(spaces.Box(-1, 1, (80,)))
    before = torch.get_num_threads()
    made = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            policy = build_policy(
                obs_layout,
                ActionLayout(spaces.Discrete(2)),
                mlp_shape(PPOConfig()),
                module=module,
                seed=3,
                log_std_init=0.0,
                normalize_obs=False,
            )
            made.append({k: v.clone() for k, v in policy.state_dict().items()})
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
