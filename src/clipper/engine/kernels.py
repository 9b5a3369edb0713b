"""The compiled kernels, or why there are none; and what they are called with, from ours.

Dimension key: T steps, N envs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.config_ppo import PPOConfig
from clipper.errors import ConfigError
from clipper.interrupts import Interrupt
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose
from clipper.rollout import Rollout

ABSENCE: str | None = None
"""Why there are no kernels here, in words, or None if there are."""
try:
    import clipper.engine._native as _native
except ModuleNotFoundError:
    ABSENCE = "the native engine was not built: no C++ compiler, or one that failed"
except ImportError as error:
    ABSENCE = f"the native engine cannot be loaded: {error}"
else:
    compiled = _native
    Interrupt.end_at_second = staticmethod(_native.end_at_second)
    Envs, GymLoop, Stepper = _native.Envs, _native.GymLoop, _native.Stepper

VARIANT_VARIABLE = "CLIPPER_NATIVE_VARIANT"
# in the order of the enumerations in native/network.hpp and native/estimators.hpp
SURROGATES = {
    "clip": 0, "cpi": 1, "pg": 2, "kl_fixed": 3, "kl_adaptive": 3, "dual_clip": 4, "spo": 5
}  # fmt: skip
ESTIMATORS = ("gae", "n_step", "td", "reward_to_go", "reward_to_go_baseline", "total_return")
# numbers of one minibatch's report
REPORT_SIZE = 7


def choose_variant() -> str:
    """Returns the widest instruction set this machine has, or the one the environment names.

    Raises:
        ConfigError: The environment variable names one that it has not.
    """
    available = compiled.variants()
    wanted = os.environ.get(VARIANT_VARIABLE, available[0])
    if wanted not in available:
        raise ConfigError(
            f"{VARIANT_VARIABLE} must be one of {', '.join(available)} on this machine, "
            f"but is {wanted}."
        )
    return wanted


def chain(parts: Iterable[nn.Module], place: Callable[[Tensor], int]) -> list[compiled.Layer]:
    """Returns linear layers one after another as the kernels know them.

    Args:
        parts: `nn.Linear`, and activations after some of them.
        place: Where a parameter begins in the flat ones.
    """
    found: list[compiled.Layer] = []
    for part in parts:
        if isinstance(part, nn.Linear):
            sizes = part.in_features, part.out_features
            found.append((*sizes, place(part.weight), place(part.bias), 0))
        elif found:
            found[-1] = (*found[-1][:4], 1)
    return found


def head_kind(policy: ActorCritic) -> int:
    """Returns which head a policy has, as the kernels number them."""
    kinds = {"box": "gaussian", "multi_binary": "bernoulli"}
    return ("categorical", "bernoulli", "gaussian").index(
        kinds.get(policy.action_layout.kind, "categorical")
    )


def as_settings(
    config: PPOConfig,
    learning_rate: float,
    clip_range: float,
    kl_coef: float,
    seed: int,
    iteration: int,
    num_threads: int = 1,
) -> compiled.Settings:
    """Returns the settings of an update, as they are now."""
    return compiled.Settings(
        surrogate=SURROGATES[config.objective],
        clip_range=clip_range,
        dual_clip=config.dual_clip_factor,
        kl_coef=kl_coef,
        vf_coef=config.vf_coef,
        ent_coef=config.ent_coef,
        clip_value=config.clip_value,
        normalize_advantage=config.normalize_advantage == "minibatch",
        num_epochs=config.num_epochs,
        minibatch_size=config.minibatch_size,
        learning_rate=learning_rate,
        betas=config.adam_betas,
        eps=config.adam_eps,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        recompute_advantages=config.recompute_advantages,
        ratio_tolerance=0.0,
        seed=seed,
        purpose=Purpose.SHUFFLE,
        iteration=iteration,
        estimator=ESTIMATORS.index(config.advantage),
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        num_return_steps=config.num_advantage_steps,
        num_threads=num_threads,
    )


def as_rollout(
    rollout: Rollout, rewards: Tensor, action_type: type[Any], config: PPOConfig
) -> compiled.Rollout:
    """Returns a rollout with the rewards to learn from, in its own memory where that can be."""
    asks_begins = config.advantage == "total_return"
    begins = rollout.begins.numpy() if asks_begins else np.zeros(rewards.shape[1], dtype=np.bool_)
    return compiled.Rollout(
        as_array(rollout.obs),
        as_array(rollout.actions, action_type),
        as_array(rollout.log_probs),
        as_array(rewards),
        as_array(rollout.values),
        as_array(rollout.next_values),
        as_array(rollout.terminated, np.bool_),
        as_array(rollout.truncated, np.bool_),
        as_array(rollout.final_obs),
        as_array(rollout.final_at, np.int64),
        as_array(rollout.last_obs),
        begins,
    )


def as_array(tensor: Tensor, kind: type[Any] = np.float32) -> NDArray[Any]:
    """Returns a tensor's own memory as an array, or a copy where its type or order differs."""
    array = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    if array.dtype == kind and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype=kind)
