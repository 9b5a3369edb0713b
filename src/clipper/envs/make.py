"""A name, a callable or an instance in; a description that makes fresh environments out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import TimeLimit

from clipper.config import ActorCriticConfig, ImageLayout
from clipper.envs.atari import describe_game, is_atari, is_raw
from clipper.envs.building import Wrapper, built
from clipper.envs.library import is_library
from clipper.envs.names import (
    Env,
    imports_what_it_names,
    limited,
    make_named,
    resolve,
)
from clipper.envs.probe import depends_on_past
from clipper.errors import ConfigError, EnvironmentUnknown
from clipper.settings import read_settings

EnvLike = str | Callable[..., Env] | Env


@dataclass(frozen=True, kw_only=True)
class EnvSource:
    """Where environments come from; `make()` gives a fresh one.

    Attributes:
        name: Gymnasium id, `module:EnvId`, a shared library's file, or the name of the callable or
            class given.
        env_kwargs: Keyword arguments of the environment.
        max_episode_steps: Steps after which an episode is truncated, or None for the registered.
        wrappers: Callables applied in order, env -> env.
        image_layout: Where its images have their channels, as the setting.
        terminal_on_life_loss: Lost lives are told to who collects, as the setting.
        maker: The callable, if one was given in place of a name.
        instance: The environment, if one was given; it is used as it is, alone.
    """

    name: str
    env_kwargs: Mapping[str, Any]
    max_episode_steps: int | None
    wrappers: tuple[Wrapper, ...] = ()
    image_layout: ImageLayout = "auto"
    terminal_on_life_loss: bool = False
    maker: Callable[..., Env] | None = None
    instance: Env | None = None
    _looked_at: list[Env] = field(default_factory=list, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # what a script registers is unknown to the processes that it starts
        found = gymnasium.registry.get(self.name) if self.maker is None else None
        return {**self.__dict__, "_registered": found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        spec = state.pop("_registered")
        self.__dict__.update(state)
        if spec is not None:
            try:
                resolve(self.name)  # a package's is registered by its package
            except EnvironmentUnknown:
                gymnasium.registry[spec.id] = spec

    def with_settings(self, settings: Mapping[str, Any]) -> EnvSource:
        """Returns the source with what the settings of a run, given or by default, say of it.

        Raises:
            ConfigError: A value is wrong.
        """
        names = ("image_layout", "terminal_on_life_loss")
        given = {name: settings[name] for name in names if name in settings}
        return replace(self, **read_settings(ActorCriticConfig, given))

    def describe(self) -> list[str]:
        """Returns lines that say what is done to an environment before anything of the user's."""
        spec = resolve(self.name) if self.is_named and is_atari(self.name) else None
        return describe_game(spec, self.env_kwargs) if isinstance(spec, EnvSpec) else []

    @property
    def is_named(self) -> bool:
        """True if the name alone is enough to make it again, in another process or later."""
        return self.maker is None and self.instance is None and not self.wrappers

    @property
    def may_draw(self) -> bool:
        """False if it is known, without making one, that environments of this name give no pictures."""
        if not self.is_named:
            return True
        if is_library(self.name):
            return False
        found: Any = resolve(self.name)
        if isinstance(found, EnvSpec):
            found = found.entry_point
            if isinstance(found, str):
                with suppress(Exception):
                    found = load_env_creator(found)
        metadata = getattr(found, "metadata", None)  # a function has none
        if not isinstance(metadata, dict):
            return True
        return "rgb_array" in (metadata.get("render_modes") or ())

    @property
    def names_module(self) -> bool:
        """True if making it imports a module that the name or the arguments give."""
        return self.is_named and imports_what_it_names(self.name)

    @cached_property
    def is_fresh_per_episode(self) -> bool:
        """True if every episode needs a new environment for its seed to decide it (BipedalWalker).

        Found by a probe, once, and only of environments that are registered as deterministic: what
        a class or a wrapper of the user's remembers from one episode to the next may be meant.
        """
        spec = resolve(self.name) if self.is_named else None
        is_promised = isinstance(spec, EnvSpec) and not spec.nondeterministic
        return is_promised and depends_on_past(self.make)

    def make(self, *, render_mode: str | None = None) -> Env:
        """Returns a fresh environment (or the given instance), without Gymnasium's checkers.

        Raises:
            EnvironmentUnknown: There is none of that name.
            EnvironmentFault: It could not be built.
            ConfigError: The callable gave the environment that `look` got.
        """
        if self.instance is not None:
            return self.instance
        kwargs = dict(self.env_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        env = built(self.name, kwargs, lambda: self._make(kwargs), self.wrappers)
        if self._looked_at:
            self.check_distinct([*self._looked_at, env])
            with suppress(Exception):
                self._looked_at.pop().close()
        return env

    def make_several(self, num_envs: int) -> list[Env]:
        """Returns environments that are different objects; those made before one that fails are closed.

        Raises:
            EnvironmentUnknown, EnvironmentFault, ConfigError: As `make` does.
        """
        envs: list[Env] = []
        try:
            for _ in range(num_envs):
                envs.append(self.make())
            self.check_distinct(envs)
        except BaseException:
            if self.instance is None:
                close_all(envs)
            raise
        return envs

    def look(self) -> Env:
        """Returns an environment to look at, not to play in; it needs no closing.

        A callable's is kept open until the next one is made: it may be the user's own, which the
        callable gives again and again.
        """
        env = self.make()
        if self.maker is not None:
            self._looked_at.append(env)
        elif self.instance is None:
            env.close()
        return env

    def as_code(self) -> list[str]:
        """Returns lines of Python that make such an environment, for a program that shows a fault.

        They name what cannot be written: a callable or an instance of the user's.
        """
        if self.instance is not None:
            return ["# env is the environment that was given"]
        if self.maker is not None:
            given = ", ".join(f"{k}={v!r}" for k, v in self.env_kwargs.items())
            return [f"env = make({given})  # make is the callable that was given, {self.name}"]
        kwargs = [f"{name}={value!r}" for name, value in self.env_kwargs.items()]
        if is_library(self.name):
            made = ", ".join([repr(self.name), *kwargs])
            return ["from clipper.envs.library import LibraryEnv", f"env = LibraryEnv({made})"]
        if is_atari(self.name) and not is_raw(self.env_kwargs):
            parts = [repr(self.name)]
            if self.env_kwargs:
                parts.append(f"env_kwargs={dict(self.env_kwargs)!r}")
            if self.max_episode_steps is not None:
                parts.append(f"max_episode_steps={self.max_episode_steps}")
            made = ", ".join(parts)
            return ["from clipper.envs.make import env_source", f"env = env_source({made}).make()"]
        if isinstance(resolve(self.name), EnvSpec):
            if self.max_episode_steps is not None:
                kwargs.append(f"max_episode_steps={self.max_episode_steps}")
            made = ", ".join([repr(self.name), "disable_env_checker=True", *kwargs])
            return ["import gymnasium", f"env = gymnasium.make({made})"]
        module, _, attribute = self.name.rpartition(":")
        return [f"import {module}", f"env = {module}.{attribute}({', '.join(kwargs)})"]

    def check_distinct(self, envs: Sequence[Env]) -> None:
        """Raises if two of the environments are one object.

        Raises:
            ConfigError: They are.
        """
        if len({id(env.unwrapped) for env in envs}) < len(envs):
            raise ConfigError(
                f"a callable must make a new environment at each call, but {self.name} gave the same "
                "one twice.",
                hint="write for example lambda: MyEnv(); or give the environment itself in place of "
                "the callable, which is then the only one.",
            )

    def _make(self, kwargs: dict[str, Any]) -> Env:
        if self.maker is not None:
            return limited(self.maker(**kwargs), self.max_episode_steps)
        return make_named(self.name, kwargs, self.max_episode_steps)


def close_all(envs: Sequence[Env]) -> None:
    """Closes environments; what they raise is nobody's concern any more."""
    for env in envs:
        with suppress(Exception, SystemExit):
            env.close()


def env_source(
    env: EnvLike,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    wrappers: Sequence[Wrapper] = (),
) -> EnvSource:
    """Returns the source that a Gymnasium id, `module:EnvId`, callable or instance describes.

    Args:
        env: What the user named; names are checked here, before anything is built. A name that ends
            as a shared library does is one's file, `./libgame.so`.
        env_kwargs: Keyword arguments of the environment; JSON values if it is to be saved.
        max_episode_steps: Truncates episodes after so many steps instead of the registered limit.
        wrappers: Callables env -> env, applied in order to every environment.

    Raises:
        EnvironmentUnknown: There is no environment of that name; the nearest are given.
        ConfigError: The arguments contradict each other.
    """
    kwargs = dict(env_kwargs or {})
    if not isinstance(wrappers, Sequence) or not all(map(callable, wrappers)):
        raise ConfigError(
            f"wrappers must be a list of callables env -> env, but is {wrappers!r:.80}.",
            hint="write wrappers=[MyWrapper], or wrappers=[lambda env: MyWrapper(env, 4)].",
        )
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ConfigError(f"max_episode_steps must be at least 1, but is {max_episode_steps}.")
    if isinstance(env, gymnasium.Env):
        if kwargs:
            raise ConfigError("env_kwargs must be empty when env is an instance, but are given.")
        spec, limit = env.spec, max_episode_steps
        name = spec.id if spec is not None else type(env.unwrapped).__qualname__
        instance = built(name, {}, lambda: limited(env, limit), wrappers)
        return EnvSource(name=name, env_kwargs={}, max_episode_steps=limit, instance=instance)
    if isinstance(env, str):
        _check_kwargs(kwargs)
        if isinstance(resolve(env), EnvSpec) and "max_episode_steps" in kwargs:
            raise ConfigError(
                "env_kwargs must not hold max_episode_steps, which is no argument of the environment, "
                "but do.",
                hint="give max_episode_steps beside them (--max-episode-steps N).",
            )
        return EnvSource(
            name=env,
            env_kwargs=kwargs,
            max_episode_steps=max_episode_steps,
            wrappers=tuple(wrappers),
        )
    if callable(env):
        return EnvSource(
            name=getattr(env, "__qualname__", type(env).__qualname__),
            env_kwargs=kwargs,
            max_episode_steps=max_episode_steps,
            wrappers=tuple(wrappers),
            maker=env,
        )
    raise ConfigError(
        f"env must be a Gymnasium id, module:EnvId, a callable or a gymnasium.Env, "
        f"but is {type(env).__name__}.",
        hint=_hint_for(env),
    )


def _hint_for(env: object) -> str | None:
    """Returns what to give in place of something that is no environment, if that is known."""
    if isinstance(env, gymnasium.vector.VectorEnv):
        return "give one environment's id or what makes one; num_envs says how many."
    if isinstance(env, EnvSpec):
        return f"give its id, {env.id!r}."
    return None


def episode_limit(env: Env) -> int | None:
    """Returns after how many steps the environment truncates an episode, if it says so."""
    registered = env.spec.max_episode_steps if env.spec is not None else None
    limits = [] if registered is None else [registered]
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def _has_text_keys(data: Any, value: Any) -> bool:
    """True if all keys are what they were before JSON made texts of them."""
    if isinstance(data, dict):
        return set(data) == set(value) and all(_has_text_keys(data[k], value[k]) for k in data)
    return not isinstance(data, list) or all(map(_has_text_keys, data, value))


def _check_kwargs(kwargs: Mapping[str, Any]) -> None:
    try:
        if not _has_text_keys(json.loads(json.dumps(kwargs, allow_nan=False)), kwargs):
            raise TypeError("keys of a dict are texts alone")
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"env_kwargs of a named environment must be JSON values, but {error}.",
            hint="give a callable instead of a name, for example lambda: MyEnv(obj).",
        ) from None
