"""An environment's source in, instances out whose every call is noted before it is made.

What is noted (the call, the episode's seed, the step) is all that is left of an environment that
ends its process or never returns; see `clipper.envs.check_apart`.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from typing import Any

from clipper.envs.check_findings import FINDINGS, Coverage, Finding, Severity, as_json
from clipper.envs.contract import begin, breach_of, fault
from clipper.envs.make import EnvSource
from clipper.envs.names import Env
from clipper.envs.raised import brief, where_raised
from clipper.errors import ClipperError, EnvironmentFault
from clipper.randomness import EpisodeSeeds

Step = tuple[Any, Any, Any, Any, Any]
Note = Callable[[str, int, int, Coverage], None]
"""Takes what is about to be called, the episode's seed (or -1), the step and what was looked at."""


EPISODE = (
    "def episode(env, seed, steps):",
    "    env.action_space.seed(seed)",
    "    last = env.reset(seed=seed)",
    "    for _ in range(steps):",
    "        last = env.step(env.action_space.sample())",
    "    return last",
)
"""Lines of a program that plays an episode as the check did."""


class OutOfTime(BaseException):
    """The time of the check is over; no `except Exception` takes it for the environment's."""


class Unplayable(Exception):
    """A call failed, which has been told already or is told elsewhere."""


class Subject:
    """The environment that is looked at.

    Args:
        source: Where it comes from.
        seed: From which the seeds of the episodes follow.
        seconds: Of the whole check, from now on.
        note: Is told of every call before it is made.
        tell: Is given every finding as soon as it is found.

    Attributes:
        coverage: What was looked at so far.
    """

    def __init__(
        self,
        source: EnvSource,
        seed: int,
        seconds: float,
        note: Note,
        tell: Callable[[Finding], None],
    ) -> None:
        self.source = source
        self.coverage = Coverage()
        self._note = note
        self._tell = tell
        self._seconds = seconds
        self._until = time.perf_counter() + seconds
        self._seeds = EpisodeSeeds(seed)
        self._told: set[tuple[str, Any]] = set()
        self._open: list[Instance] = []

    @property
    def is_single(self) -> bool:
        """True if there is one instance alone, the user's."""
        return self.source.instance is not None

    def seed_of(self, episode: int) -> int:
        """Returns the seed that environment 0 of a run of this seed gives to an episode."""
        return self._seeds.of(0, episode)

    def note(self, what: str, seed: int = -1, step: int = 0, *, is_last: bool = False) -> None:
        """Notes what is about to be called.

        Args:
            what: In words.
            seed: Of the episode, or -1.
            step: From 1, or 0.
            is_last: Done in any case, to clean up.

        Raises:
            OutOfTime: The time of the check is over.
        """
        if time.perf_counter() > self._until and not is_last:
            raise OutOfTime
        self._note(what, seed, step, self.coverage)

    def make(self, what: str = "making the environment") -> Instance:
        """Returns a new instance.

        Raises:
            ClipperError: It cannot be built.
        """
        self.note(what)
        instance = Instance(self, self.source.make())
        if not self.is_single:
            self.source.check_distinct([instance.env, *(other.env for other in self._open)])
        self.coverage.instances += 1
        self._open.append(instance)
        return instance

    def close(self) -> None:
        """Closes what is still open; an instance of the user's is left open."""
        for instance in self._open:
            with contextlib.suppress(Exception):
                instance.close()

    def forget(self, instance: Instance) -> None:
        """Leaves an instance to whoever closed it."""
        self._open = [other for other in self._open if other is not instance]

    @property
    def replay_steps(self) -> int:
        """Steps up to which an episode is played again: a twentieth of the time, 20 to 1,000."""
        return int(min(1000, max(20, 0.05 * self._seconds * self.coverage.steps_per_second)))

    def time_left(self) -> float:
        """Returns the share of the time that is left, up to 1."""
        return (self._until - time.perf_counter()) / self._seconds

    def tell(
        self,
        name: str,
        message: str,
        mend: str,
        *,
        severity: Severity | None = None,
        again: str = "",
        **evidence: Any,
    ) -> None:
        """Tells a finding, unless the same of the same part was told."""
        key = (name, evidence.get("part"))
        if key in self._told:
            return
        self._told.add(key)
        self._tell(
            Finding(
                name=name,
                severity=severity or FINDINGS[name][0],
                message=message.rstrip(".") + ".",
                mend=mend,
                evidence={key: as_json(value) for key, value in evidence.items()},
                reproduce=again,
            )
        )

    def was_told(self, *names: str) -> bool:
        """Returns True if there is a finding of one of these names."""
        return any(name in names for name, _ in self._told)

    def tell_fault(
        self, call: str, error: BaseException, where: str, again: str, **evidence: Any
    ) -> None:
        """Tells what was raised in `reset` or `step`, or in reading what it returned."""
        told = fault(self.source.name, call, error, where)
        breach = breach_of(call, error)
        name = f"{call}_raises" if breach is None else breach.name
        mend = told.hint or ""
        if breach is None:
            law = (
                "at any time, for every seed"
                if call == "reset"
                else "for every action of its space"
            )
            mend = f"{call} must work {law}. {mend}".strip()
        self.tell(name, told.message, mend, again=again, **evidence)

    def skip(self, what: str, why: str) -> None:
        """Notes that something was not looked at."""
        self.coverage.skipped.append(f"{what} ({why})")

    def part(self, what: str) -> _Part:
        """Returns a context that goes on after a part that cannot be finished, and says so."""
        return _Part(self, what)

    def program(self, *body: str) -> str:
        """Returns a Python program of these lines, with `env` made as it was here."""
        return "\n".join([*self.source.as_code(), *body])

    def make_again(self) -> list[str]:
        """Returns the lines that make another `env`, further down in a program."""
        lines = self.source.as_code()
        return [line for line in lines if not line.startswith(("import ", "from "))]

    def replay(self, seed: int, steps: int, *show: str) -> str:
        """Returns a program that plays an episode as the check did; see `replay`."""
        return replay(self.source, seed, steps, *show)


def replay(source: EnvSource, seed: int, steps: int, *show: str) -> str:
    """Returns a program that plays an episode as the check did, up to a step.

    Args:
        source: Where the environment comes from.
        seed: Of the episode and of its random actions.
        steps: How many.
        show: Lines that show what was found, after the last step.
    """
    body = [f"obs, info = env.reset(seed={seed})"]
    if steps or any("sample()" in line for line in show):
        body.insert(0, f"env.action_space.seed({seed})")
    if steps:
        body += [
            f"for _ in range({steps}):",
            "    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())",
        ]
    return "\n".join([*source.as_code(), *body, *show])


class _Part:
    """See `Subject.part`."""

    def __init__(self, subject: Subject, what: str) -> None:
        self._subject = subject
        self._what = what

    def __enter__(self) -> None:
        """Begins the part."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Lets pass that time is over or that a call failed."""
        if isinstance(error, (OutOfTime, Unplayable)):
            self._subject.skip(self._what, str(error) or "the time was over")
            return True
        return False


class Instance:
    """One environment, whose calls are noted, counted and timed.

    Attributes:
        env: The environment.
        step_seconds: Spent in `step` so far.
        reset_seconds: Spent in `reset` so far.
        num_resets: Resets so far.
    """

    def __init__(self, subject: Subject, env: Env) -> None:
        self.env = env
        self._subject = subject
        self._seed = -1
        self._step = 0
        self.step_seconds = 0.0
        self.reset_seconds = 0.0
        self.num_resets = 0

    def actions(self, seed: int) -> Callable[[], Any]:
        """Returns a function that draws the actions of an episode; the seed decides them."""
        space = copy.deepcopy(self.env.action_space)
        space.seed(seed)
        return space.sample

    def begin(self, seed: int) -> tuple[Any, Any]:
        """Returns the first observation of an episode and its info.

        Raises:
            Exception: Whatever `reset` raises, or that it returned something else than a pair.
        """
        self._note_begin(seed)
        started = time.perf_counter()
        found = begin(self.env, seed)
        self.reset_seconds += time.perf_counter() - started
        return found

    def begin_unseeded(self) -> Any:
        """Returns the first observation of an episode that gets no seed."""
        self._note_begin(-1)
        return self.env.reset()[0]

    def step(self, action: Any) -> Step:
        """Returns the five values of a step.

        Raises:
            Exception: Whatever `step` raises, or that it returned something else than five values.
        """
        self._step += 1
        self._subject.coverage.steps += 1
        self._subject.note("step", self._seed, self._step)
        started = time.perf_counter()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.step_seconds += time.perf_counter() - started
        return obs, reward, terminated, truncated, info

    def render(self) -> Any:
        """Returns what the environment draws."""
        self._subject.note("render", self._seed, self._step)
        return self.env.render()

    def close(self) -> None:
        """Closes it, unless it is the user's."""
        self._subject.forget(self)
        if not self._subject.is_single:
            self._subject.note("close", is_last=True)
            self.env.close()

    def _note_begin(self, seed: int) -> None:
        self._seed, self._step = seed, 0
        self.num_resets += 1
        self._subject.coverage.episodes += 1
        self._subject.note("reset", seed, 0)


def describe_error(error: BaseException) -> tuple[str, str]:
    """Returns what was found and a hint, of an error in making an environment or in closing it."""
    if isinstance(error, EnvironmentFault) and isinstance(error.__cause__, Exception):
        return brief(error.__cause__), error.hint or ""
    if isinstance(error, ClipperError):
        return error.message.rstrip("."), error.hint or ""
    return brief(error), where_raised(error) or ""
