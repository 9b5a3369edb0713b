"""A policy and the settings in, the engine that trains it out."""

from __future__ import annotations

from clipper.config import PPOConfig
from clipper.engine import native
from clipper.engine.devices import threads_for
from clipper.engine.native import NativeEngine
from clipper.engine.reference import ReferenceEngine
from clipper.errors import ConfigError
from clipper.policies.actor_critic import ActorCritic

Engine = NativeEngine | ReferenceEngine


def build_engine(policy: ActorCritic, config: PPOConfig) -> Engine:
    """Returns the engine that `config.engine` asks for; `auto` takes native where it can.

    Raises:
        ConfigError: The native engine is asked for, but does not cover the policy.
    """
    objection = _objection(policy)
    if config.engine == "native" and objection is not None:
        raise ConfigError(
            f"engine must be auto or reference here, but is native, and {objection}.",
            hint="auto takes the native engine wherever it can.",
        )
    if config.engine != "reference" and objection is None:
        return NativeEngine(policy)
    return ReferenceEngine(
        policy,
        betas=config.adam_betas,
        eps=config.adam_eps,
        max_grad_norm=config.max_grad_norm,
    )


def describe_engine(policy: ActorCritic, config: PPOConfig, engine: Engine) -> str:
    """Returns the line that a run begins with: the engine, and why if it is not the native one."""
    if isinstance(engine, NativeEngine):
        return f"engine: {engine.describe()}"
    reason = "it was asked for" if config.engine == "reference" else _objection(policy)
    threads = threads_for(policy)
    where = str(policy.device)
    if policy.device.type == "cpu":
        where = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"engine: reference, in torch, {where} ({reason})"


def _objection(policy: ActorCritic) -> str | None:
    """Returns why the native engine does not train a policy, or None if it does."""
    return "precision is bf16" if policy.is_bf16 else native.covers(policy)
