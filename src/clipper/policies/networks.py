"""Normalised observations in, distribution parameters and a value out: the default networks.

A network is any `nn.Module` whose `forward(obs)` takes float rows [M, D] and returns a tuple of
distribution parameters [M, P] and values [M] (or [M, 1]). P is the number of categories (all heads
together), of bits, or of means; with 2A instead of A outputs a Gaussian's log standard deviations
depend on the state. Where an algorithm asks for a value of every action, values are [M, P].
Dimension key: M rows, D observation size, A action size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipper.config import ActorCriticConfig, Config

# log standard deviation of a policy that is searched for as it is, without noise on its actions
_NOISELESS = -20.0
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


@dataclass(frozen=True, kw_only=True)
class MLPShape:
    """What an MLP policy, and the CNN before it, looks like; fields as in `Config`."""

    hidden_sizes: tuple[int, ...]
    value_hidden_sizes: tuple[int, ...]
    activation: str
    shared_torso: bool
    hidden_gain: float
    policy_gain: float
    value_gain: float
    values_per_action: bool = False
    cnn: str = "auto"
    cnn_features: int | None = None


class MLPNetwork(nn.Module):
    """Policy and value as multilayer perceptrons, separate or on a shared torso.

    Weights are orthogonal (Saxe et al. 2014, arXiv 1312.6120), biases zero.

    Args:
        obs_size: D.
        num_outputs: P of the policy head.
        shape: Layers, activation and gains.
        generator: Source of the initial weights.
    """

    def __init__(
        self, obs_size: int, num_outputs: int, shape: MLPShape, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.activation = shape.activation
        self.torso: nn.Module = nn.Identity()
        width = obs_size
        policy_sizes, value_sizes = shape.hidden_sizes, shape.value_hidden_sizes
        if shape.shared_torso:
            self.torso = nn.Sequential(*_layers(width, policy_sizes, shape, generator))
            width = policy_sizes[-1] if policy_sizes else width
            policy_sizes = value_sizes = ()
        self.actor = nn.Sequential(
            *_layers(width, policy_sizes, shape, generator),
            linear((*(width,), *policy_sizes)[-1], num_outputs, shape.policy_gain, generator),
        )
        self.critic = nn.Sequential(
            *_layers(width, value_sizes, shape, generator),
            linear(
                (*(width,), *value_sizes)[-1],
                num_outputs if shape.values_per_action else 1,
                shape.value_gain,
                generator,
            ),
        )
        self._has_one_value = not shape.values_per_action

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns distribution parameters [M, P] and values [M], or [M, P] with one per action."""
        features = self.torso(obs)
        values = self.critic(features)
        return self.actor(features), values.squeeze(-1) if self._has_one_value else values

    def params(self, obs: Tensor) -> Tensor:
        """Returns the distribution parameters alone, [M, P]: all that acting needs."""
        return self.actor(self.torso(obs))  # type: ignore[no-any-return]

    def values(self, obs: Tensor) -> Tensor:
        """Returns the values alone, [M]."""
        return self.critic(self.torso(obs)).squeeze(-1)  # type: ignore[no-any-return]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Runs torch with one thread, as initial weights need to be a function of the seed alone.

    The QR decomposition behind `nn.init.orthogonal_` rounds otherwise with two threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_precision() -> Iterator[None]:
    """Makes float32 what torch gives to new tensors, whatever a user has set it to elsewhere."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _layers(
    width: int, sizes: tuple[int, ...], shape: MLPShape, generator: torch.Generator
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((width, *sizes)):
        layers += [
            linear(inputs, outputs, shape.hidden_gain, generator),
            ACTIVATIONS[shape.activation](),
        ]
    return layers


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Returns a layer with orthogonal weights and biases of zero."""
    # the constructor would draw weights from torch's global generator; torch.nn.utils.skip_init
    # does not, but imports sympy, a third of a second
    layer = nn.Linear(inputs, outputs, device="meta")
    layer.weight = nn.Parameter(torch.empty(outputs, inputs))
    layer.bias = nn.Parameter(torch.empty(outputs))
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def tensor_shapes(obs_size: int, num_outputs: int, shape: MLPShape) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of `MLPNetwork`'s tensors without making them.

    Args:
        obs_size: D.
        num_outputs: P of the policy head.
        shape: Layers.
    """
    torso: tuple[int, ...] = (obs_size,)
    policy_sizes, value_sizes = shape.hidden_sizes, shape.value_hidden_sizes
    if shape.shared_torso:
        torso, policy_sizes, value_sizes = (obs_size, *policy_sizes), (), ()
    parts = {
        "torso": torso,
        "actor": (torso[-1], *policy_sizes, num_outputs),
        "critic": (torso[-1], *value_sizes, num_outputs if shape.values_per_action else 1),
    }
    found: dict[str, tuple[int, ...]] = {}
    for part, widths in parts.items():
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            # a layer and its activation take two places
            found[f"{part}.{2 * i}.weight"] = (outputs, inputs)
            found[f"{part}.{2 * i}.bias"] = (outputs,)
    return found


def mlp_shape(config: Config) -> MLPShape:
    """Returns the MLP that a config describes; V is 0 where the config knows no value function."""
    value_sizes: tuple[int, ...] | None = ()
    shared_torso, value_gain = False, 0.0
    if isinstance(config, ActorCriticConfig):
        value_sizes = config.value_hidden_sizes
        shared_torso, value_gain = config.shared_torso, config.value_gain
    return MLPShape(
        hidden_sizes=config.hidden_sizes,
        value_hidden_sizes=config.hidden_sizes if value_sizes is None else value_sizes,
        activation=config.activation,
        shared_torso=shared_torso,
        hidden_gain=config.hidden_gain,
        policy_gain=config.policy_gain,
        value_gain=value_gain,
        values_per_action=config.values_per_action,
        cnn=config.cnn,
        cnn_features=config.cnn_features,
    )


def initial_log_std(config: Config) -> float:
    """Returns the first log standard deviation of continuous actions; next to none without noise."""
    return config.log_std_init if isinstance(config, ActorCriticConfig) else _NOISELESS
