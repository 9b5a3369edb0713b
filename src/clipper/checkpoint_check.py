"""A checkpoint as it was read in, its parts out if they are what this agent's would be.

The sums in a checkpoint tell damage from what was written, but not who wrote it: names, types, shapes
and ranges are therefore compared with those that the agent has itself. Dimension key: N environments,
D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipper.action_layout import ActionLayout
from clipper.agent_meta import is_plain
from clipper.checkpoint import Checkpoint, without_prefix
from clipper.config_acer import ACERConfig
from clipper.errors import FileError
from clipper.policies.actor_critic import ActorCritic

# the last is left out where nothing is
_STATE_KEYS = {"format", "training", "rows", "device", "frozen"}
_ROWS = {"metrics", "episodes"}
_LARGEST = 2**62
# the part of an algorithm's state whose tensors come and grow with what is remembered
_GROWING = "memory"


def check_state(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    """Returns counters, numbers of rows, device and names of frozen parameters of a checkpoint.

    Raises:
        FileError: Something is missing, unknown or of the wrong type.
    """
    state = {"frozen": [], **checkpoint.state}
    rows = state.get("rows")
    is_good = set(state) == _STATE_KEYS and isinstance(rows, dict) and set(rows) == _ROWS
    if not is_good or not all(type(n) is int and 0 <= n < _LARGEST for n in (rows or {}).values()):
        raise FileError(
            f"{where} must have a checkpoint with {', '.join(sorted(_STATE_KEYS))}, "
            "and numbers of rows from 0."
        )
    if not is_plain(state["device"]):
        raise FileError(f"{where} must name the device of its checkpoint, but does not.")
    return state


def freeze(policy: ActorCritic, names: Any, where: str) -> None:
    """Freezes the parameters that were frozen when a checkpoint was written.

    Raises:
        FileError: They are not names of parameters of the policy.
    """
    parameters = dict(policy.named_parameters())
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or not set(names) <= set(parameters):
        raise FileError(
            f"{where} must name parameters of its policy where it says which are frozen, "
            f"but has {names!r:.80}."
        )
    for name in names:
        parameters[name].requires_grad_(False)


def check_parts(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Mapping[str, Any]],
    where: str,
    *,
    has_module: bool,
) -> dict[str, dict[str, Tensor]]:
    """Returns the parts of an algorithm's state that a checkpoint holds.

    Args:
        checkpoint: As it was read.
        wanted: The state of the algorithm as it is now, whose names, types and shapes count.
        where: The run's name, for messages.
        has_module: True if the policy is a module of the user's, which may hold what it likes.

    Raises:
        FileError: A tensor is missing, unknown, of another shape or type, or not finite.
    """
    found = {
        part: without_prefix(part, checkpoint.agent if part == "policy" else checkpoint.training)
        for part in wanted
    }
    known = {f"{part}.{name}" for part, arrays in found.items() for name in arrays}
    unknown = [n for n in sorted(checkpoint.training) if n not in known and _part(n) != "sampler"]
    if unknown:
        raise FileError(
            f"{where} must have no other tensors in its checkpoint, but has {unknown[0]!r}."
        )
    for part, tensors in wanted.items():
        arrays = found[part]
        if part != _GROWING and set(arrays) != set(tensors):
            name = sorted(set(arrays) ^ set(tensors))[0]
            raise FileError(
                f"{where} must have the tensors of {part} in its checkpoint, not of {name!r}."
            )
        for name, array in arrays.items():
            if part != "policy" or not has_module:
                _check_finite(f"{part}.{name}", array, where)
            if part != _GROWING:
                _check_like(f"{part}.{name}", array, tensors[name], where)
    return {
        part: {k: torch.from_numpy(v) for k, v in arrays.items()} for part, arrays in found.items()
    }


def check_sampler(
    checkpoint: Checkpoint, policy: ActorCritic, num_envs: int, where: str
) -> dict[str, NDArray[Any]]:
    """Returns where the environments of a checkpoint are.

    Args:
        checkpoint: As it was read.
        policy: Knows observations and actions.
        num_envs: N.
        where: The run's name, for messages.

    Raises:
        FileError: An array is missing, unknown, of another shape or type, or an action is none.
    """
    found = without_prefix("sampler", checkpoint.training)
    layout = policy.action_layout
    whole, real, count = np.dtype(np.int64), np.dtype(np.float64), (num_envs,)
    wanted: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {"steps": (whole, (1,))}
    if set(found) != {"steps"}:  # environments that have begun
        wanted |= dict.fromkeys(("episodes", "lengths", "replayed"), (whole, count))
        wanted["returns"] = (real, count)
        wanted["obs"] = (np.dtype(policy.obs_layout.row_type), (num_envs, policy.obs_layout.size))
        replayed = found.get("replayed", np.zeros(0, dtype=np.int64))
        num_actions = int(replayed.clip(0, _LARGEST // max(num_envs, 1)).sum())
        wanted["actions"] = (np.dtype(layout.dtype), (num_actions, layout.size))
    for name in sorted(set(found) ^ set(wanted)):
        raise FileError(f"{where} must have {', '.join(wanted)} of its environments, not {name!r}.")
    for name, (kind, shape) in wanted.items():
        array = found[name]
        if array.dtype != kind or array.shape != shape:
            raise FileError(
                f"{where} must have sampler.{name} as {kind} {list(shape)}, "
                f"but has {array.dtype} {list(array.shape)}."
            )
        _check_finite(f"sampler.{name}", array, where)
        if name in ("steps", "episodes", "lengths", "replayed") and (array > _LARGEST).any():
            raise FileError(
                f"{where} must have numbers below 2^62 in sampler.{name}, but has others."
            )
    if "replayed" in found and not _fits(
        found["replayed"], found["lengths"], found["actions"], layout
    ):
        raise FileError(
            f"{where} must have for each environment all actions of its episode or none, and such as "
            "its space allows."
        )
    return found


def check_memory(
    memory: Mapping[str, Tensor], policy: ActorCritic, config: ACERConfig, where: str
) -> None:
    """Raises unless a replay memory is one of rollouts of this agent's.

    Raises:
        FileError: A tensor is missing, unknown, of another shape or type, or an action is none.
    """
    rollout = (config.num_steps, config.num_envs)
    added = memory.get("num_added", torch.zeros(0))
    if added.shape != (1,) or added.dtype != torch.int64:
        raise FileError(f"{where} must say how many rollouts its memory has seen, but does not.")
    slots = config.replay_capacity // config.num_steps + 1
    used = min(int(added), slots)
    size, num_actions = policy.obs_layout.size, policy.distribution.num_params
    rows = torch.uint8 if policy.obs_layout.has_bytes else torch.float32
    columns = {
        "obs": (rows, (size,)),
        "next_obs": (rows, (size,)),
        "actions": (torch.int64, ()),
        "rewards": (torch.float32, ()),
        "terminated": (torch.bool, ()),
        "truncated": (torch.bool, ()),
        "behaviour": (torch.float32, (num_actions,)),
    }
    wanted = columns if used else {}
    found = {name: tensor for name, tensor in memory.items() if name != "num_added"}
    held = len(found["obs"]) if used and "obs" in found and found["obs"].ndim else 0
    is_good = set(found) == set(wanted) and all(
        found[name].dtype == kind and tuple(found[name].shape) == (held, *rollout, *last)
        for name, (kind, last) in wanted.items()
    )
    if not (is_good and used <= held <= slots) or (
        used and bool((found["actions"] >= num_actions).any())
    ):
        raise FileError(
            f"{where} must have {used} rollouts of {rollout[0]} steps of {rollout[1]} environments "
            "in its memory, but has something else."
        )


def _fits(
    replayed: NDArray[np.int64],
    lengths: NDArray[np.int64],
    actions: NDArray[Any],
    layout: ActionLayout,
) -> bool:
    """True if every environment has all of its actions or none, and each is one of the space's."""
    if ((replayed != 0) & (replayed != lengths)).any():
        return False
    if layout.kind == "box":
        return True
    categories = layout.num_categories or (2,) * layout.size
    return bool((actions < np.array(categories)).all())


def _check_finite(name: str, array: NDArray[Any], where: str) -> None:
    """Raises unless real numbers are finite and whole ones not negative, which ours never are."""
    is_real = np.issubdtype(array.dtype, np.floating)
    is_good = np.isfinite(array) if is_real else array >= 0
    if not is_good.all():
        kind = "finite numbers" if is_real else "numbers from 0"
        raise FileError(f"{where} must have {kind} in {name}, but has others.")


def _check_like(name: str, array: NDArray[Any], wanted: Any, where: str) -> None:
    tensor = torch.as_tensor(wanted)
    shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if array.shape != shape or str(array.dtype) != kind:
        raise FileError(
            f"{where} must have {name} as {kind} {list(shape)} in its checkpoint, "
            f"but has {array.dtype} {list(array.shape)}."
        )


def _part(name: str) -> str:
    return name.partition(".")[0]
