"""A policy and what is known of it in, one `.safetensors` file out, and back by a strict reader."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces as gym_spaces

from clipper.action_layout import ActionLayout
from clipper.agent_meta import check_meta as check_meta
from clipper.checkpoint import (
    TENSOR_FORMAT,
    Arrays,
    prefixed,
    read_tensors,
    refuse_links,
    write_tensors,
)
from clipper.configs import CONFIGS
from clipper.errors import ConfigError, FileError, NumericsError, SpaceError
from clipper.leaves import Rows
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.distributions import DiagonalGaussian, distribution_for
from clipper.policies.images import image_tensor_shapes
from clipper.policies.networks import mlp_shape, tensor_shapes
from clipper.provenance import versions
from clipper.space_json import space_from_json, space_to_json
from clipper.spaces import ObservationLayout

_PARTS = ("policy.", "space.", "example.")
# the same weights give the same outputs but for rounding, on any machine
_EXAMPLE_TOLERANCE = 1e-3
_NUM_EXAMPLES = 8
# more environments than a machine has memory for
_MAX_ENVS = 2**20


def build(policy: ActorCritic, meta: Mapping[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Returns the tensors and the metadata of an agent file.

    Beside the weights and the normaliser it holds the bounds of the spaces and a few observations
    with the outputs they give, which `load` checks.

    Raises:
        NumericsError: A weight or a number of the normaliser is NaN or infinite.
    """
    arrays = prefixed("policy", {k: v.numpy(force=True) for k, v in policy.state_dict().items()})
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NumericsError(
                f"an agent must be finite to be written, but {name} is not.",
                hint="the last checkpoint of its run is: `clipper resume` goes on from there.",
            )
    described = {
        "observation_space": space_to_json(policy.obs_layout.space, arrays, "space.obs"),
        "action_space": space_to_json(policy.action_layout.space, arrays, "space.action"),
    }
    obs = _example_obs(policy)
    params, values = _outputs(policy, obs)
    arrays |= {
        "example.obs": obs,
        "example.params": params.numpy(force=True),
        "example.values": values.numpy(force=True),
    }
    return arrays, {
        **meta,
        **described,
        "format": TENSOR_FORMAT,
        "kind": "agent",
        "versions": versions(),
    }


def write(path: Path, policy: ActorCritic, meta: Mapping[str, Any]) -> None:
    """Writes an agent file, atomically.

    Raises:
        ConfigError: The suffix is not `.safetensors`.
        NumericsError: The agent is not finite.
        FileError: The file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"an agent file must end in .safetensors, but {path.name} does not.",
            hint=f"use {path.with_suffix('.safetensors')}.",
        )
    arrays, full_meta = build(policy, meta)
    write_tensors(path, arrays, full_meta)


def last_agent(path: Path) -> Path:
    """Returns the last agent of a run folder; any other path is returned as it is.

    Raises:
        FileError: The run folder holds links, which may lead anywhere.
    """
    if not os.path.isfile(path / "config.json"):
        return path
    refuse_links(path)
    return path / "agent.safetensors"


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Returns the tensors and the checked metadata of an agent file.

    Raises:
        FileError: It is missing, damaged, or not an agent file of a known format.
    """
    arrays, meta = read_tensors(path)
    check_names(arrays, str(path))
    return arrays, check_meta(meta, str(path))


def check_names(arrays: Arrays, where: str) -> None:
    """Raises if tensors are among those of an agent that belong to no part of one.

    Raises:
        FileError: The first of them is named.
    """
    unknown = [name for name in sorted(arrays) if not name.startswith(_PARTS)]
    if unknown:
        raise FileError(f"{where} must have no other tensors, but has {unknown[0]!r:.80}.")


def layouts(
    meta: Mapping[str, Any], arrays: Arrays, where: str
) -> tuple[ObservationLayout, ActionLayout]:
    """Returns how an agent file's observations and actions lie, if its tensors are of their sizes.

    A policy that is built by them and by the settings is then no larger than the file.

    Raises:
        FileError: They are not described as they must be, or the tensors do not fit.
        ConfigError: A setting is unknown or wrong.
    """
    try:
        obs_space = space_from_json(meta["observation_space"], arrays)
        action_space = space_from_json(meta["action_space"], arrays)
        layouts = _layouts(meta, obs_space, action_space)
    except SpaceError as error:
        raise FileError(f"{where} must describe its spaces, but {error.message}") from None
    _check_sizes(meta, arrays, where, *layouts)
    return layouts


def _layouts(
    meta: Mapping[str, Any], obs_space: gym_spaces.Space[Any], action_space: gym_spaces.Space[Any]
) -> tuple[ObservationLayout, ActionLayout]:
    config = CONFIGS[meta["algorithm"]].from_json(meta["config"])
    return ObservationLayout(obs_space, config.image_layout), ActionLayout(action_space)


def _check_sizes(
    meta: Mapping[str, Any],
    arrays: Arrays,
    where: str,
    obs_layout: ObservationLayout,
    action_layout: ActionLayout,
) -> None:
    """Raises unless the tensors have the sizes that the spaces and the settings make."""
    config = CONFIGS[meta["algorithm"]].from_json(meta["config"])
    if config.num_envs > _MAX_ENVS:
        raise FileError(f"{where} must have at most {_MAX_ENVS} environments, but has more.")
    distribution = distribution_for(action_layout)
    wanted: dict[str, tuple[int, ...]] = {
        "example.obs": (_NUM_EXAMPLES, obs_layout.size),
        "example.params": (_NUM_EXAMPLES, distribution.num_params),
    }
    if meta["module"] != "user":
        network = mlp_shape(config)
        if obs_layout.images:
            shapes = image_tensor_shapes(obs_layout, distribution.num_outputs, network)
        else:
            shapes = tensor_shapes(obs_layout.size, distribution.num_outputs, network)
        wanted |= {f"policy.network.{name}": shape for name, shape in shapes.items()}
        if isinstance(distribution, DiagonalGaussian):
            wanted["policy.log_std"] = (action_layout.size,)
    for name, shape in wanted.items():
        found = arrays[name].shape if name in arrays else None
        if found != shape:
            raise FileError(
                f"{where} must hold the tensors of its policy, but {name} is {found} where its "
                f"spaces and settings make {shape}."
            )


def load_policy(policy: ActorCritic, arrays: Arrays, where: str) -> None:
    """Loads weights and normaliser into a policy.

    Args:
        policy: Changed in place.
        arrays: Tensors by the names of the policy's state dict.
        where: The file's name, for messages.

    Raises:
        FileError: Names or shapes differ.
    """
    own = policy.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: array.shape for name, array in arrays.items()}
    if wanted == found:
        for name, tensor in own.items():
            kind = str(tensor.dtype).removeprefix("torch.")
            if str(arrays[name].dtype) != kind:
                raise FileError(
                    f"{where} must hold {name} as {kind}, but holds it as {arrays[name].dtype}."
                )
    else:
        wrong = sorted(set(wanted.items()) ^ set(found.items()))
        name = wrong[0][0]
        if {each.split(".")[0] for each in set(wanted) ^ set(found)} == {"normalizer"}:
            own_has, given_has = (
                str(any(each.startswith("normalizer.") for each in names)).lower()
                for names in (wanted, found)
            )
            raise FileError(
                f"{where} must be of an agent with normalize_obs {own_has}, but is of one with "
                f"{given_has}.",
                hint=f"set normalize_obs {given_has}; what it learnt is about such observations.",
            )
        raise FileError(
            f"{where} must hold the tensors of this policy, but {name} is {found.get(name)} "
            f"where {wanted.get(name)} is needed.",
            hint="the network, the spaces and normalize_obs must be those the agent was trained with.",
        )
    policy.load_state({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})


def check_examples(policy: ActorCritic, arrays: Arrays, where: str) -> None:
    """Raises unless the policy gives the outputs for the example observations that were saved.

    Raises:
        FileError: It does not: the module is another one, or the file was changed.
    """
    obs = arrays.get("example.obs", np.zeros(0))
    if obs.dtype != policy.obs_layout.row_type or obs.shape != (
        _NUM_EXAMPLES,
        policy.obs_layout.size,
    ):
        raise FileError(f"{where} must have {_NUM_EXAMPLES} example observations, but has not.")
    params, values = _outputs(policy, obs)
    for name, tensor in (("params", params), ("values", values)):
        expected = arrays.get(f"example.{name}", np.zeros(0))
        if expected.shape != tuple(tensor.shape):
            raise FileError(
                f"{where} must have the {name} of its example observations, but has not."
            )
        scale = 1.0 + np.abs(expected)
        error = np.max(np.abs(tensor.numpy(force=True) - expected) / scale, initial=0.0)
        if not error <= _EXAMPLE_TOLERANCE:
            raise FileError(
                f"{where} must give the {name} it was saved with on its example observations, "
                f"but differs by {error:.3g}.",
                hint="the module given is not the one it was trained with, or the file was changed.",
            )


@torch.no_grad()
def _outputs(policy: ActorCritic, obs: np.ndarray[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns parameters and values of observations; in float32, which every device has."""
    with policy.full_precision():
        return policy(policy.normalize(torch.from_numpy(obs)))  # type: ignore[no-any-return]


def _example_obs(policy: ActorCritic) -> Rows:
    """Returns observations spread around what the normaliser has seen, [8, D]; bytes over all 256."""
    layout = policy.obs_layout
    rows = layout.new_rows(_NUM_EXAMPLES)
    for leaf in layout.images:
        if leaf.is_bytes:
            pixels = np.arange(_NUM_EXAMPLES * leaf.size).reshape(_NUM_EXAMPLES, leaf.size)
            # steps of a prime, so that neither rows nor columns of pixels are alike
            rows[:, leaf.columns] = pixels * 37 % 256
    size = layout.num_numbers
    spread = np.linspace(-1.5, 1.5, _NUM_EXAMPLES * size, dtype=np.float32)
    layout.numbers(rows)[:] = spread.reshape(size, _NUM_EXAMPLES).T
    if policy.normalizer is not None:
        vector = layout.vector(rows)
        vector /= policy.normalizer.inverse_std.numpy(force=True)
        vector += policy.normalizer.mean.numpy(force=True)
    return rows
