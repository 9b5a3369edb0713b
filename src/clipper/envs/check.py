"""An environment in, what is wrong with it before anything is trained in it out."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from clipper.envs.building import Wrapper
from clipper.envs.check_apart import look_apart
from clipper.envs.check_findings import Findings
from clipper.envs.check_look import Budget, look_at
from clipper.envs.make import EnvLike, env_source
from clipper.errors import ConfigError
from clipper.headless import prepare_headless


def check_env(
    env: EnvLike,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    wrappers: Sequence[Wrapper] = (),
    episodes: int = Budget.episodes,
    steps: int = Budget.steps,
    seconds: float = Budget.seconds,
    seed: int = 0,
    timeout: float = 30.0,
    isolate: bool = True,
) -> Findings:
    """Returns what is wrong with an environment, errors first; it prints as a report.

    Args:
        env: As for `clipper.PPO`: a Gymnasium id, `module:EnvId`, a library, a callable, an instance.
            Of an instance only what one instance can show is looked at.
        env_kwargs: Keyword arguments of the environment.
        max_episode_steps: Truncates episodes after so many steps.
        wrappers: Callables applied in order, env -> env.
        episodes: Episodes played with random actions, at most; above 0.
        steps: Steps in these, at most; above 0.
        seconds: Of the whole check, about; above 0.
        seed: Decides the episodes, from 0.
        timeout: Seconds that one call of the environment may take before it counts as hanging.
        isolate: Looks at it in a process of its own, so that a crash is a finding. An instance of the
            user's, and what cannot be sent to another process, are looked at in this one.

    Raises:
        EnvironmentUnknown: There is no environment of that name.
        ConfigError: The arguments contradict each other.
    """
    budget = Budget(episodes=episodes, steps=steps, seconds=seconds)
    budget.validate()
    if isinstance(timeout, bool) or not timeout > 0:
        raise ConfigError(f"timeout must be above 0 seconds, but is {timeout!r}.")
    source = env_source(
        env, env_kwargs=env_kwargs, max_episode_steps=max_episode_steps, wrappers=wrappers
    )
    prepare_headless()
    if not isolate:
        return look_at(source, budget, seed)
    reason = "env is an instance"
    if os.name != "posix":
        reason = "on this system it is looked at in this process"
    elif source.instance is None:
        try:
            return look_apart(source, budget, seed, timeout)
        except pickle.PicklingError as error:
            reason = f"env cannot be sent to another process: {error}"
    found = look_at(source, budget, seed)
    found.coverage.skipped.append(f"crashes and calls that do not return ({reason})")
    return found
