"""A source of environments and a budget in, what is wrong with them out, in this process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

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
from clipper.envs.make import EnvSource
from clipper.errors import ClipperError, ConfigError, EnvironmentUnknown

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
    subject = Subject(source, seed, budget.seconds, note, add)
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
    except (Exception, SystemExit) as error:
        message = error.message if isinstance(error, ClipperError) else describe_error(error)[0]
        hint = describe_error(error)[1] or "let __init__ work without an error."
        subject.tell("make_fails", message, hint, again=subject.program())
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
    has_two = False
    with subject.part("a second instance"):
        has_two = look_at_second(subject, instance, spaces)
    if record is None:
        subject.skip("the rest", "it needs an instance that can be played")
        return
    with subject.part("close"):
        look_at_close(subject, instance)
    if not subject.was_told("reopen_fails"):
        with subject.part("extreme actions"):
            look_at_extremes(subject)
        with subject.part("render modes"):
            look_at_render(subject, instance)
    if has_two:
        look_at_repeats(subject, record)
    else:
        subject.skip("repeatability", "it needs a second instance")
