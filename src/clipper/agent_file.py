"""A policy and what is known of it in, one `.safetensors` file out, and back by a strict reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces as gym_spaces

from clipper.checkpoint import FORMAT, Arrays, prefixed, read_tensors, write_tensors
from clipper.errors import ConfigError, FileError, SpaceError
from clipper.policies.actor_critic import ActorCritic
from clipper.run_folder import versions
from clipper.space_json import space_from_json, space_to_json

_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "format": int,
    "kind": str,
    "algorithm": str,
    "env": dict,
    "preset": str,
    "seed": int,
    "config": dict,
    "module": str,
    "step": int,
    "exact": bool,
    "observation_space": dict,
    "action_space": dict,
    "versions": dict,
}
# written since there is more than one engine
_OPTIONAL_KEYS = {"engine"}
_ENV_KEYS = {"name", "kwargs", "max_episode_steps", "is_named"}
# the same weights give the same outputs but for rounding, on any machine
_EXAMPLE_TOLERANCE = 1e-3
_NUM_EXAMPLES = 8


def build(policy: ActorCritic, meta: Mapping[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Returns the tensors and the metadata of an agent file.

    Beside the weights and the normaliser it holds the bounds of the spaces and a few observations
    with the outputs they give, which `load` checks.
    """
    arrays = prefixed("policy", {k: v.numpy(force=True) for k, v in policy.state_dict().items()})
    described = {
        "observation_space": space_to_json(policy.obs_layout.space, arrays, "space.obs"),
        "action_space": space_to_json(policy.action_layout.space, arrays, "space.action"),
    }
    obs = _example_obs(policy)
    with torch.no_grad():
        params, values = policy(policy.normalize(torch.from_numpy(obs)))
    arrays |= {
        "example.obs": obs,
        "example.params": params.numpy(force=True),
        "example.values": values.numpy(force=True),
    }
    return arrays, {
        **meta,
        **described,
        "format": FORMAT,
        "kind": "agent",
        "versions": versions(),
    }


def write(path: Path, policy: ActorCritic, meta: Mapping[str, Any]) -> None:
    """Writes an agent file, atomically.

    Raises:
        ConfigError: The suffix is not `.safetensors`.
        FileError: The file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"an agent file must end in .safetensors, but {path.name} does not.",
            hint=f"use {path.with_suffix('.safetensors')}.",
        )
    arrays, full_meta = build(policy, meta)
    write_tensors(path, arrays, full_meta)


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Returns the tensors and the checked metadata of an agent file.

    Raises:
        FileError: It is missing, damaged, or not an agent file of a known format.
    """
    arrays, meta = read_tensors(path)
    return arrays, check_meta(meta, str(path))


def check_meta(meta: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the metadata of an agent file if it is complete and has nothing else.

    Raises:
        FileError: A key is missing, unknown, or of the wrong type.
    """
    if meta.get("kind") != "agent":
        raise FileError(f"{where} must be an agent file, but its kind is {meta.get('kind')!r}.")
    for key, kind in _KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise FileError(
                f"{where} must have {key!r} in its metadata, but has {meta.get(key)!r}."
            )
    unknown = set(meta) - set(_KEYS) - _OPTIONAL_KEYS
    if unknown:
        raise FileError(f"{where} must have no other metadata, but has {sorted(unknown)}.")
    if set(meta["env"]) != _ENV_KEYS or not isinstance(meta["env"]["name"], str):
        raise FileError(f"{where} must describe its environment by {sorted(_ENV_KEYS)}.")
    return meta


def spaces(
    meta: Mapping[str, Any], arrays: Arrays, where: str
) -> tuple[gym_spaces.Space[Any], gym_spaces.Space[Any]]:
    """Returns the observation and action space of an agent file.

    Raises:
        FileError: They are not described as they must be.
    """
    try:
        return (
            space_from_json(meta["observation_space"], arrays),
            space_from_json(meta["action_space"], arrays),
        )
    except SpaceError as error:
        raise FileError(f"{where} must describe its spaces, but {error.message}") from None


def load_policy(policy: ActorCritic, arrays: Arrays, where: str) -> None:
    """Loads weights and normaliser into a policy.

    Args:
        policy: Changed in place.
        arrays: Tensors by the names of the policy's state dict.
        where: The file's name, for messages.

    Raises:
        FileError: Names or shapes differ.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: array.shape for name, array in arrays.items()}
    if wanted != found:
        wrong = sorted(set(wanted.items()) ^ set(found.items()))
        name = wrong[0][0]
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
    with torch.no_grad():
        params, values = policy(policy.normalize(torch.from_numpy(arrays["example.obs"])))
    for name, tensor in (("params", params), ("values", values)):
        expected = arrays[f"example.{name}"]
        scale = 1.0 + np.abs(expected)
        error = np.max(np.abs(tensor.numpy(force=True) - expected) / scale, initial=0.0)
        if not error <= _EXAMPLE_TOLERANCE:
            raise FileError(
                f"{where} must give the {name} it was saved with on its example observations, "
                f"but differs by {error:.3g}.",
                hint="the module given is not the one it was trained with, or the file was changed.",
            )


def _example_obs(policy: ActorCritic) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns observations spread around what the normaliser has seen, float32 [8, D]."""
    size = policy.obs_layout.size
    spread = np.linspace(-1.5, 1.5, _NUM_EXAMPLES * size, dtype=np.float32)
    rows = spread.reshape(size, _NUM_EXAMPLES).T.copy()
    if policy.normalizer is not None:
        rows /= policy.normalizer.inverse_std.numpy(force=True)
        rows += policy.normalizer.mean.numpy(force=True)
    return rows
