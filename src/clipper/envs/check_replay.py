"""An instance and a seed in, the episode of that seed once more out, and where it differs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from clipper.envs.check_parts import parts_of
from clipper.envs.check_record import Moment, Played, number_of, picture, same
from clipper.envs.check_subject import Instance, Subject, Unplayable, describe_error


class Replay:
    """An episode that is played once more, step by step, with a seed's actions.

    Args:
        instance: On which.
        seed: Of the reset and the actions.
        is_seeded: False leaves the reset without a seed.
        action_seed: Of the actions, or None: as for the reset.
    """

    def __init__(
        self,
        instance: Instance,
        seed: int,
        *,
        is_seeded: bool = True,
        action_seed: int | None = None,
    ) -> None:
        self._instance = instance
        self._parts = list(parts_of(instance.env.observation_space))
        self._draw = instance.actions(seed if action_seed is None else action_seed)
        try:
            obs = instance.begin(seed)[0] if is_seeded else instance.begin_unseeded()
        except (Exception, SystemExit) as error:
            raise Unplayable(describe_error(error)[0]) from error
        self.first = picture(obs, self._parts)
        self.moments: list[Moment] = []

    @property
    def has_ended(self) -> bool:
        """True if the environment ended it."""
        return bool(self.moments) and any(self.moments[-1].ends)

    def step(self) -> Moment:
        """Takes a step and returns what it gave."""
        try:
            obs, reward, terminated, truncated, _ = self._instance.step(self._draw())
            number = number_of(reward)
            found = Moment(
                picture(obs, self._parts),
                math.nan if number is None else number,
                bool(terminated),
                bool(truncated),
            )
        except (Exception, SystemExit) as error:
            raise Unplayable(describe_error(error)[0]) from error
        self.moments.append(found)
        return found

    def play(self, steps: int) -> Replay:
        """Plays to the end of the episode, or so many steps, and returns itself."""
        while not self.has_ended and len(self.moments) < steps:
            self.step()
        return self


def first_difference(played: Played | Replay, again: Replay) -> int | None:
    """Returns the first step at which two episodes differ (0: the first observation), or None."""
    if not same(played.first, again.first):
        return 0
    for step, (one, other) in enumerate(zip(played.moments, again.moments, strict=False), start=1):
        if not one.is_same(other):
            return step
    return None


@contextlib.contextmanager
def made(subject: Subject, what: str) -> Iterator[Instance]:
    """Makes an instance and closes it.

    Raises:
        Unplayable: It cannot be made.
    """
    try:
        instance = subject.make(what)
    except (Exception, SystemExit) as error:
        raise Unplayable(describe_error(error)[0]) from error
    try:
        yield instance
    finally:
        with contextlib.suppress(Exception):
            instance.close()
