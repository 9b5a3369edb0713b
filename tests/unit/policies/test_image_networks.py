"""Laws of networks for images: what they see, what they are made of, and what they compute."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from clipper.action_layout import ActionLayout
from clipper.config_ppo import PPOConfig
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import build_policy
from clipper.policies.images import ImageNetwork, image_tensor_shapes
from clipper.policies.networks import mlp_shape
from clipper.spaces import ObservationLayout

SPACES: dict[str, spaces.Space[Any]] = {
    "atari": spaces.Box(0, 255, (4, 84, 84), np.uint8),
    "last": spaces.Box(0, 255, (40, 44, 3), np.uint8),
    "plane": spaces.Box(0, 255, (10, 10), np.uint8),
    "pixel": spaces.Box(0, 255, (1, 1, 3), np.uint8),
    "strip": spaces.Box(0, 255, (3, 30, 2), np.uint8),
    "large": spaces.Box(0, 255, (35, 200, 1), np.uint8),
    "frames": spaces.Box(0, 255, (3, 12, 12, 2), np.uint8),
    "float": spaces.Box(-2.0, 2.0, (9, 9, 2)),
    "dict": spaces.Dict(
        eye=spaces.Box(0, 255, (7, 7, 3), np.uint8),
        map=spaces.Box(0.0, 1.0, (5, 5, 1)),
        mode=spaces.Discrete(3),
        speed=spaces.Box(-1.0, 1.0, (2,)),
    ),
}


def policy_of(name: str, module: Any = None, seed: int = 0, **settings: Any) -> ActorCritic:
    config = PPOConfig(**{"hidden_sizes": (), "shared_torso": True, **settings})
    return build_policy(
        ObservationLayout(SPACES[name]),
        ActionLayout(spaces.Discrete(6)),
        mlp_shape(config),
        module=module,
        seed=seed,
        log_std_init=0.0,
        normalize_obs=config.normalize_obs,
    )


def rows_of(policy: ActorCritic, count: int = 5) -> tuple[list[Any], torch.Tensor]:
    space = policy.obs_layout.space
    space.seed(3)
    samples = [space.sample() for _ in range(count)]
    rows = policy.obs_layout.new_rows(count)
    for row, sample in zip(rows, samples, strict=True):
        policy.obs_layout.write(sample, row)
    return samples, torch.from_numpy(rows)


def as_theirs(weight: torch.Tensor) -> torch.Tensor:
    """Returns a weight with the last convolution's 64 x 7 x 7 outputs filter by filter.

    Ours are pixel by pixel.
    """
    if weight.ndim != 2:
        return weight
    return weight.reshape(-1, 7, 7, 64).permute(0, 3, 1, 2).reshape(len(weight), -1)


@pytest.mark.parametrize("count", [5, 40])
def test_nature_is_that_of_stable_baselines3(count: int) -> None:
    """With the same weights the features are SB3's of the same pixels divided by 255, and so are

    the gradients of their sum of squares.
    """
    policy = policy_of("atari")
    network = policy.network
    assert isinstance(network, ImageNetwork)
    samples, rows = rows_of(policy, count)
    theirs = NatureCNN(SPACES["atari"], features_dim=512)
    ours = list(network.encoder.parameters())
    with torch.no_grad():
        for their, our in zip(theirs.parameters(), ours, strict=True):
            their.copy_(as_theirs(our))
    expected = theirs(torch.from_numpy(np.stack(samples)).float() / 255)
    found = network.encoder(rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    for their, our in zip(theirs.parameters(), ours, strict=True):
        scale = float(their.grad.abs().max())
        found_grad = as_theirs(our.grad)
        torch.testing.assert_close(found_grad, their.grad, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_file_knows_the_shapes_beforehand(name: str, shared: bool) -> None:
    """Names and shapes told without a network are those of the network; it takes and gives rows."""
    settings = {"hidden_sizes": (16,), "shared_torso": shared, "cnn_features": 24}
    policy = policy_of(name, **settings)
    shapes = image_tensor_shapes(policy.obs_layout, 6, mlp_shape(PPOConfig(**settings)))
    assert shapes == {k: tuple(v.shape) for k, v in policy.network.state_dict().items()}
    _, rows = rows_of(policy)
    normalized = policy.normalize(rows)
    params, values = policy(normalized)
    assert params.shape == (5, 6)
    assert values.shape == (5,)
    torch.testing.assert_close(policy.distribution_params(normalized), params)
    torch.testing.assert_close(policy.normalized_values(normalized), values)


@pytest.mark.parametrize("name", ["atari", "plane", "dict"])
def test_weights_are_orthogonal_with_gain_root_two(name: str) -> None:
    """W W^T = 2 I of every convolution, as a matrix [filters, the rest], and of the linear layer."""
    for key, weight in policy_of(name).network.encoder.state_dict().items():
        if key.endswith("bias"):
            assert not weight.any()
            continue
        matrix = weight.flatten(1).double()
        short = matrix if len(matrix) <= matrix.shape[1] else matrix.T
        torch.testing.assert_close(
            short @ short.T, 2.0 * torch.eye(len(short), dtype=torch.float64), atol=1e-5, rtol=0
        )


def test_weights_are_a_function_of_the_seed() -> None:
    """The same seed gives the same bits, another seed others, whatever torch's own generator did."""
    first = policy_of("plane", seed=5).network.state_dict()
    torch.manual_seed(99)
    again, other = (policy_of("plane", seed=s).network.state_dict() for s in (5, 6))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.actor.0.weight"], other["head.actor.0.weight"])


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_ones_own_see_scaled_images(name: str) -> None:
    """A module gets [M, channels, height, width] within [-1, 1], and all other parts as vectors."""
    seen: list[Any] = []

    class Own(nn.Module):
        def __init__(self, obs_size: Any, num_outputs: int) -> None:
            super().__init__()
            self.size = obs_size
            self.last = nn.Linear(1, num_outputs + 1)

        def forward(self, obs: Any) -> Any:
            seen.append(obs)
            first = next(iter(obs.values())) if isinstance(obs, dict) else obs
            out = self.last(first.flatten(1).mean(1, keepdim=True))
            return out[:, :-1], out[:, -1]

    policy = policy_of(name, module=Own, normalize_obs=False)
    samples, rows = rows_of(policy)
    policy(policy.normalize(rows))
    given = seen[-1] if isinstance(seen[-1], dict) else {"": seen[-1]}
    sizes = (
        policy.network.size if isinstance(policy.network.size, dict) else {"": policy.network.size}
    )
    assert {k: tuple(v.shape[1:]) for k, v in given.items()} == sizes
    expected = {
        "atari": lambda x: {"": x / 255},
        "last": lambda x: {"": x.transpose(2, 0, 1) / 255},
        "plane": lambda x: {"": x[None] / 255},
        "pixel": lambda x: {"": x.transpose(2, 0, 1) / 255},
        "strip": lambda x: {"": x.transpose(2, 0, 1) / 255},
        "large": lambda x: {"": x.transpose(2, 0, 1) / 255},
        # frame by frame, each with its channels
        "frames": lambda x: {"": np.concatenate([f.transpose(2, 0, 1) for f in x]) / 255},
        "float": lambda x: {"": x.transpose(2, 0, 1) / 2},
        "dict": lambda x: {
            "eye": x["eye"].transpose(2, 0, 1) / 255,
            "map": x["map"].transpose(2, 0, 1),
            "mode": np.eye(3)[x["mode"]],
            "speed": x["speed"],
        },
    }[name]
    for i, sample in enumerate(samples):
        for key, value in expected(sample).items():
            np.testing.assert_allclose(given[key][i].numpy(), value, rtol=1e-6)


def test_numbers_beside_images_are_normalised_and_images_are_not() -> None:
    """The statistics are those of the vector's columns alone; one-hot numbers and images pass."""
    policy = policy_of("dict", normalize_obs=True)
    _, rows = rows_of(policy, 50)
    layout = policy.obs_layout
    policy.merge_observations(rows.reshape(10, 5, -1))
    normalized = policy.normalize(rows).numpy()
    before, after = layout.numbers(rows.numpy()), layout.numbers(normalized)
    leaves = {leaf.name: leaf for leaf in layout.leaves}
    speed = before[:, leaves["speed"].columns].astype(np.float64)
    expected = (speed - speed.mean(0)) / np.sqrt(speed.var(0) + 1e-8)
    np.testing.assert_allclose(after[:, leaves["speed"].columns], expected, rtol=1e-4, atol=1e-5)
    for name in ("mode", "map"):
        np.testing.assert_array_equal(
            after[:, leaves[name].columns], before[:, leaves[name].columns]
        )
    eye = leaves["eye"].columns
    np.testing.assert_array_equal(normalized[:, eye], rows.numpy()[:, eye])


def test_bf16_products_stay_near() -> None:
    """Bytes are exact in bfloat16, so that only weights and sums are rounded, to three digits."""
    policy = policy_of("atari", policy_gain=1.0)
    _, rows = rows_of(policy, 40)
    with torch.no_grad():
        full = policy(rows)[0]
        rounded = policy.use_precision("bf16")(rows)[0]
    assert rounded.dtype == torch.float32
    assert not torch.equal(full, rounded)
    torch.testing.assert_close(rounded, full, rtol=0.05, atol=0.05 * float(full.std()))


def test_the_value_of_a_state_does_not_depend_on_its_neighbours_much() -> None:
    """Rows in one batch or asked one by one differ by rounding alone."""
    policy = policy_of("last", value_gain=1.0)
    _, rows = rows_of(policy, 40)
    together = policy.values(rows)
    alone = torch.cat([policy.values(row[None]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert math.isfinite(float(together.sum()))
