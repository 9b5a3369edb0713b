"""A policy and the settings in, the engine that trains it out."""

from __future__ import annotations

from clipper.config import Config
from clipper.config_ppo import PPOConfig
from clipper.engine import mixed, native_policy
from clipper.engine.devices import threads_for
from clipper.engine.kernels import choose_variant
from clipper.engine.mixed import MixedEngine
from clipper.engine.native import NativeEngine
from clipper.engine.quick_parts import QuickParts
from clipper.engine.reference import ReferenceEngine
from clipper.engine.state import AdamState, FlatParameters
from clipper.errors import ConfigError
from clipper.policies.actor_critic import ActorCritic

Engine = NativeEngine | ReferenceEngine
FROZEN = "some parameters were frozen"
"""Why torch learns although the native engine acts, where that is so."""


def accelerate(policy: ActorCritic, config: Config) -> NativeEngine | None:
    """Lets the native engine act for a policy if `config.engine` says so; `auto` where it can.

    Returns:
        The native engine, or None where torch acts.

    Raises:
        ConfigError: The native engine is asked for, but does not cover the policy.
    """
    objection = _objection(policy)
    if config.engine == "native" and objection is not None:
        raise _refused(objection)
    if config.engine != "reference" and objection is None:
        return NativeEngine(policy)
    return None


def accelerate_copy(policy: ActorCritic, config: Config) -> NativeEngine | None:
    """Lets a copy of a policy act in another process as the policy does, to the same bits.

    Returns:
        The native engine, or None where torch acts.
    """
    engine = accelerate(policy, config)
    if engine is None and isinstance(config, PPOConfig) and _learns_mixed(policy, config):
        policy.requires_grad_(True)  # it learns nothing here; what is frozen is computed alike
        parts = QuickParts(policy.network, FlatParameters(policy).params, choose_variant())
        policy.compute_within(parts)
    return engine


def build_engine(policy: ActorCritic, config: PPOConfig) -> Engine:
    """Returns the engine that acts for a policy and trains it with Adam, as `config.engine` says.

    Raises:
        ConfigError: The native engine is asked for, but does not cover the policy.
    """
    return accelerate(policy, config) or torch_engine(policy, config)


def torch_engine(
    policy: ActorCritic, config: PPOConfig, state: AdamState | None = None
) -> ReferenceEngine:
    """Returns the engine that trains a policy with Adam in torch.

    Args:
        policy: What is trained.
        config: The settings.
        state: The parameters and what Adam keeps of them if the native engine has begun, else None.

    Raises:
        ConfigError: `config.engine` insists on the native engine.
    """
    if config.engine == "native":
        raise _refused(FROZEN)
    if _learns_mixed(policy, config):
        return MixedEngine(policy, config, state)
    return ReferenceEngine(
        policy,
        betas=config.adam_betas,
        eps=config.adam_eps,
        max_grad_norm=config.max_grad_norm,
        state=state,
    )


def describe_engine(
    policy: ActorCritic, config: Config, engine: Engine | None, learns_in_torch: str | None = None
) -> str:
    """Returns the line that a run begins with: the engine, and why if it is not the native one.

    Args:
        policy: What is trained.
        config: The settings.
        engine: What acts for it; None is torch.
        learns_in_torch: Why updates are computed in torch although the native engine acts, or None
            if they are not.
    """
    if isinstance(engine, NativeEngine):
        name = engine.describe()
        if learns_in_torch is None:
            return f"engine: {name}"
        return f"engine: {name} acts, torch learns ({learns_in_torch})"
    reason = "it was asked for" if config.engine == "reference" else _objection(policy)
    threads = threads_for(policy)
    where = str(policy.device)
    if policy.device.type == "cpu":
        where = f"{threads} thread{'s' if threads > 1 else ''}"
    if isinstance(engine, MixedEngine):
        return f"engine: {engine.describe()}, {where} ({reason})"
    return f"engine: reference, in torch, {where} ({reason})"


def _learns_mixed(policy: ActorCritic, config: PPOConfig) -> bool:
    return config.engine == "auto" and mixed.covers(policy, config) is None


def _refused(objection: str) -> ConfigError:
    return ConfigError(
        f"engine must be auto or reference here, but is native, and {objection}.",
        hint="auto takes the native engine wherever it can.",
    )


def _objection(policy: ActorCritic) -> str | None:
    """Returns why the native engine does not train a policy, or None if it does."""
    return "precision is bf16" if policy.is_bf16 else native_policy.covers(policy)
