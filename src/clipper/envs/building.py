"""One environment built: whatever goes wrong, in its own code or for a missing package, is our error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from clipper.envs.names import Env, unknown_name
from clipper.envs.raised import brief, where_raised
from clipper.errors import ConfigError, EnvironmentFault, EnvironmentUnknown

_LOG = logging.getLogger("clipper")
Wrapper = Callable[[Env], Env]
_EXTRAS = {
    "box2d": ("Box2D", "LunarLander", "BipedalWalker", "CarRacing"),
    "mujoco": ("mujoco",),
    "atari": ("ale_py", "ALE/"),
}


def built(
    name: str, kwargs: Mapping[str, Any], make: Callable[[], Env], wrappers: Sequence[Wrapper]
) -> Env:
    """Returns what `make` makes within the wrappers.

    Raises:
        EnvironmentUnknown: There is none of that name.
        EnvironmentFault: It cannot be built, or is no environment of Gymnasium's.
        ConfigError: What was given cannot be used.
    """
    try:
        with _spoken_once(name):
            env = make()
        for wrapper in wrappers:
            env = wrapper(env)
    except (EnvironmentUnknown, EnvironmentFault, ConfigError):
        raise
    except (Exception, SystemExit) as error:
        raise _fault(name, kwargs, error) from error
    if not isinstance(env, gymnasium.Env):
        raise EnvironmentFault(
            f"an environment must be a gymnasium.Env, but {name} made {type(env).__name__}.",
            hint=_how_to_derive(env),
        )
    for kind in ("observation_space", "action_space"):
        space = getattr(env, kind, None)
        if not isinstance(space, gymnasium.Space):
            raise EnvironmentFault(
                f"{name} must have a Gymnasium space as its {kind}, but {_no_space(space)}.",
                hint=f"set self.{kind} in __init__, for example to gymnasium.spaces.Discrete(4).",
            )
    return env


def _no_space(found: Any) -> str:
    if found is None:
        return "has none"
    if isinstance(found, type):
        return f"it is the class {found.__name__} itself"
    return f"it is a {type(found).__module__}.{type(found).__name__}"


def _how_to_derive(env: Any) -> str:
    hint = "derive it from gymnasium.Env"
    if any(base.__module__.partition(".")[0] == "gym" for base in type(env).__mro__):
        return (
            f"{hint}; or pip install shimmy, and give lambda: shimmy.GymV21CompatibilityV0(env=...) "
            "where step returns 4 values (it needs a method seed), GymV26CompatibilityV0 where 5."
        )
    return f"{hint}; docs/concepts/old-gym.md has a wrapper of fifteen lines for the old gym's."


_built_before: set[str] = set()


@contextmanager
def _spoken_once(name: str) -> Iterator[None]:
    """Lets MuJoCo say what it has to say of a model once: it warns at every copy that is built."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None or name not in _built_before:
        yield
    else:
        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda message: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(handler)
    _built_before.add(name)


def _fault(name: str, kwargs: Mapping[str, Any], error: BaseException) -> Exception:
    text = str(error)
    if isinstance(error, gymnasium.error.DeprecatedEnv) or "gymnasium-robotics" in text:
        return unknown_name(name)
    for extra, marks in _EXTRAS.items():
        missing = isinstance(error, (ImportError, gymnasium.error.DependencyNotInstalled))
        if missing and any(mark.lower() in f"{text} {name}".lower() for mark in marks):
            return EnvironmentFault(
                f"{name} needs packages that are not installed: {brief(error)}.",
                hint=f'pip install "clipper-rl[{extra}]"',
            )
    given = f" with {json.dumps(kwargs, default=str)}" if kwargs else ""
    hint = where_raised(error)
    if hint is None and isinstance(error, TypeError) and "missing" in text:
        hint = (
            """give its arguments: --env-kwargs '{"size": 5}' (Python: env_kwargs={"size": 5})."""
        )
    return EnvironmentFault(f"{name} must be buildable{given}, but {brief(error)}.", hint=hint)


def tell_normalisers(env: Env) -> None:
    """Says of wrappers that learn from what they see that nobody else gets to know it."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, NormalizeObservation):
            _LOG.warning(
                "NormalizeObservation has statistics of its own in each environment, which no file "
                "keeps and every evaluation begins without: leave it out, and set normalize_obs true"
            )
        if isinstance(env, NormalizeReward):
            _LOG.warning(
                "NormalizeReward changes the returns that are shown, and no file keeps its statistics: "
                "leave it out, and set normalize_reward true"
            )
        env = env.env
