"""An environment in, what is wrong with it before anything is trained in it out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipper.envs.check_findings import Finding, Findings
from clipper.envs.check_numbers import look_at_numbers
from clipper.envs.check_play import Play
from clipper.envs.check_render import look_at_render
from clipper.envs.check_repeat import look_at_repeats
from clipper.envs.check_spaces import (
    look_at_changes,
    look_at_close,
    look_at_extremes,
    look_at_second,
    look_at_support,
)
from clipper.envs.check_subject import Note, OutOfTime, Subject, describe_error
from clipper.envs.make import EnvLike, EnvSource, Wrapper, env_source
from clipper.errors import ConfigError, EnvironmentUnknown

# of the time goes to playing; the rest to comparing
_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of an environment is looked at.

    Attributes:
        episodes: Episodes played on the first instance, at most.
        steps: Steps in these, at most.
        seconds: Of the whole check, about.
    """

    episodes: int = 200
    steps: int = 10_000
    seconds: float = 10.0

    def validate(self) -> None:
        """Raises ConfigError if a number is not above 0."""
        for name in ("episodes", "steps", "seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not value > 0:
                raise ConfigError(f"{name} must be above 0, but is {value!r}.")


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

    Raises:
        EnvironmentUnknown: There is no environment of that name.
        ConfigError: The arguments contradict each other.
    """
    budget = Budget(episodes=episodes, steps=steps, seconds=seconds)
    budget.validate()
    source = env_source(
        env, env_kwargs=env_kwargs, max_episode_steps=max_episode_steps, wrappers=wrappers
    )
    return look_at(source, budget, seed)


def look_at(
    source: EnvSource,
    budget: Budget,
    seed: int,
    note: Note = lambda *_: None,
    tell: Callable[[Finding], None] = lambda _: None,
) -> Findings:
    """Returns what is wrong with a source's environments, looked at in this process.

    Args:
        source: Where they come from.
        budget: How much is looked at.
        seed: Decides the episodes.
        note: Is told of every call before it is made.
        tell: Is given every finding as soon as it is found.
    """
    found: list[Finding] = []

    def add(finding: Finding) -> None:
        found.append(finding)
        tell(finding)

    started = time.perf_counter()
    subject = Subject(source, seed, started + budget.seconds, note, add)
    try:
        _look(subject, budget)
    except OutOfTime:
        subject.skip("the rest", "the time was over")
    finally:
        subject.close()
    subject.coverage.seconds = time.perf_counter() - started
    return Findings(source.name, found, subject.coverage)


def _look(subject: Subject, budget: Budget) -> None:
    try:
        instance = subject.make()
    except (EnvironmentUnknown, ConfigError):
        raise
    except Exception as error:
        found, hint = describe_error(error)
        subject.tell("make_fails", found, hint or "let __init__ work.", again=subject.program())
        return
    spaces = copy.deepcopy((instance.env.observation_space, instance.env.action_space))
    look_at_support(subject, instance)
    record = None
    with subject.part("everything that is seen in playing"):
        seconds = _SHARE * budget.seconds
        record = Play(subject, instance, budget.episodes, budget.steps, seconds).run()
    if record is not None:
        look_at_numbers(subject, instance, record)
        look_at_changes(subject, instance, spaces)
    if subject.is_single:
        subject.skip("what needs a second instance", "env is an instance")
        return
    has_two = look_at_second(subject, instance, spaces)
    if has_two and record is not None:
        look_at_repeats(subject, instance, record)
    else:
        subject.skip("repeatability", "it needs a second instance that can be played")
    if record is None:
        return
    if look_at_close(subject, instance):
        with subject.part("extreme actions"):
            look_at_extremes(subject)
        with subject.part("render modes"):
            look_at_render(subject, instance)
