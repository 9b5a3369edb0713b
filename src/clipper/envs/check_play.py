"""An instance in, episodes of random actions out, every call of them looked at.

Here is told what breaks Gymnasium's contract in a single call; what only shows in many is left to
`clipper.envs.check_numbers` and `clipper.envs.check_repeat`.
"""

from __future__ import annotations

import copy
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipper.envs.check_columns import Columns
from clipper.envs.check_findings import Severity
from clipper.envs.check_parts import breaches, parts_of
from clipper.envs.check_record import (
    Moment,
    Picture,
    Played,
    Record,
    Where,
    number_of,
    picture,
    same,
    value_or_none,
)
from clipper.envs.check_subject import Instance, OutOfTime, Subject, Unplayable
from clipper.envs.dropping import LARGEST

# episodes whose every step is kept, to be compared with others
_KEPT_EPISODES = 6
_KEPT_NUMBERS = 2_000_000
# episodes of an environment that never ends one are left after so many steps
_LONGEST = 2_500
_MOST_FAULTS = 3


class Play:
    """Plays episodes on an instance and tells what single calls do wrong.

    Args:
        subject: The environment.
        instance: On which to play.
        num_episodes: At most so many.
        num_steps: At most so many in all.
        seconds: At most so long.
    """

    def __init__(
        self,
        subject: Subject,
        instance: Instance,
        num_episodes: int,
        num_steps: int,
        seconds: float,
    ) -> None:
        self._subject = subject
        self._instance = instance
        self._most = num_episodes, num_steps
        self._until = time.perf_counter() + seconds
        self._parts = list(parts_of(instance.env.observation_space))
        self._record = Record(columns=Columns(self._parts))
        self._num_faults = 0
        self._num_steps = 0
        self._num_kept = 0
        # the arrays that were returned last, and what was in them
        self._returned: list[Any] = []
        self._copies: Picture = ()

    def run(self) -> Record:
        """Plays until episodes, steps or time are used up.

        Raises:
            Unplayable: Not one step could be taken.
        """
        try:
            for number in range(self._most[0]):
                if self._is_over() or self._num_faults == _MOST_FAULTS:
                    break
                self._episode(number)
        except (OutOfTime, Unplayable):
            pass
        if not self._num_steps:
            raise Unplayable("no step could be taken")
        return self._record

    def _is_over(self) -> bool:
        return self._num_steps >= self._most[1] or time.perf_counter() > self._until

    def _episode(self, number: int) -> None:
        seed = self._subject.seed_of(number)
        where = Where(number, 0, seed)
        try:
            obs, info = self._instance.begin(seed)
        except (Exception, SystemExit) as error:
            self._subject.tell_fault(
                "reset", error, str(where), self._second_reset(seed), **where._asdict()
            )
            raise Unplayable("reset fails") from error
        self._look_at_obs(obs, where)
        self._look_at_info("reset", info, where)
        self._record.columns.add(self._copies)
        played = Played(number, seed, self._copies)
        self._record.episodes.append(played)
        draw = self._instance.actions(seed)
        while not played.has_ended and played.length < _LONGEST and not self._is_over():
            if not self._step(played, draw()):
                self._num_faults += 1
                return
        self._record.resources.append(resources())

    def _second_reset(self, seed: int) -> str:
        """Returns a program that resets, after the episode before if there was one."""
        if not self._record.episodes:
            return self._subject.replay(seed, 0)
        last = self._record.episodes[-1]
        return self._subject.replay(last.seed, last.length, f"env.reset(seed={seed})")

    def _step(self, played: Played, action: Any) -> bool:
        """Takes a step; returns False if it failed."""
        where = Where(played.number, played.length + 1, played.seed)
        given = action.copy() if isinstance(action, np.ndarray) else copy.deepcopy(action)
        try:
            obs, reward, terminated, truncated, info = self._instance.step(given)
        except (Exception, SystemExit) as error:
            again = self._subject.replay(where.seed, where.step)
            evidence = {**where._asdict(), "action": plain(action)}
            self._subject.tell_fault("step", error, str(where), again, **evidence)
            return False
        self._num_steps += 1
        played.length = where.step
        self._look_at_action(action, given, where)
        self._look_at_obs(obs, where)
        number = self._look_at_reward(reward, where)
        played.terminated = self._look_at_flag("terminated", terminated, where)
        played.truncated = self._look_at_flag("truncated", truncated, where)
        self._look_at_info("step", info, where)
        played.final = self._copies
        self._record.columns.add(played.final)
        if abs(number) <= LARGEST:
            self._record.rewards.append(number)
        self._keep(played, Moment(played.final, number, played.terminated, played.truncated))
        return True

    def _keep(self, played: Played, moment: Moment) -> None:
        size = sum(array.size for array in moment.obs if array is not None)
        if played.number < _KEPT_EPISODES and self._num_kept + size < _KEPT_NUMBERS:
            self._num_kept += size
            played.moments.append(moment)

    def _tell(
        self,
        name: str,
        found: str,
        mend: str,
        where: Where,
        again: str,
        part: str | None = None,
        severity: Severity | None = None,
    ) -> None:
        evidence = {} if part is None else {"part": part}
        self._subject.tell(
            name,
            f"{found} ({where})",
            mend,
            severity=severity,
            again=again,
            **evidence,
            **where._asdict(),
        )

    def _look_at_obs(self, obs: Any, where: Where) -> None:
        self._look_at_last_obs(where)
        self._returned = [value_or_none(obs, part) for part in self._parts]
        self._copies = picture(obs, self._parts)
        for breach in breaches(obs, self._parts):
            again = self._subject.replay(where.seed, where.step, "print(obs)")
            found = f"{breach.law}, but {breach.found}"
            self._tell(breach.name, found, breach.mend, where, again, breach.part, breach.severity)

    def _look_at_last_obs(self, where: Where) -> None:
        """Tells whether the observation that was returned last is no longer what it was."""
        columns = zip(self._parts, self._returned, self._copies, strict=True)
        for part, array, before in columns if self._returned else ():
            is_array = isinstance(array, np.ndarray) and where.step > 0
            if not is_array or before is None or same((array,), (before,)):
                continue
            self._tell(
                "obs_reused",
                f"{part.label} must stay as it was returned, but the next step changed it",
                "return a copy, obs.copy(). Clipper copies every observation on arrival; a program "
                "that keeps them would have the last one many times.",
                where,
                self._subject.replay(
                    where.seed,
                    where.step - 1,
                    "import copy",
                    "before = copy.deepcopy(obs)",
                    "env.step(env.action_space.sample())",
                    "print(before, obs)",
                ),
                part.name,
            )

    def _look_at_action(self, action: Any, given: Any, where: Where) -> None:
        if not isinstance(action, np.ndarray) or np.array_equal(action, given):
            return
        self._tell(
            "action_mutated",
            f"step must leave its action as it is, but changed {plain(action)} to {plain(given)}",
            "begin step with action = np.array(action), or write action = action * scale where it is "
            "action *= scale. Clipper hands out an array of its own, others keep theirs.",
            where,
            self._subject.replay(
                where.seed,
                where.step - 1,
                "action = env.action_space.sample()",
                "before = action.copy()",
                "env.step(action)",
                "print(before, action)",
            ),
        )

    def _look_at_reward(self, reward: Any, where: Where) -> float:
        found = number_of(reward)
        if found is not None and abs(found) <= LARGEST:
            return found
        again = self._subject.replay(where.seed, where.step, "print(repr(reward))")
        if found is None:
            self._tell(
                "reward_type",
                f"a reward must be a number, but is {_shown(reward)}",
                "return float(reward); of an array with one number, float(reward[0]).",
                where,
                again,
            )
            return math.nan
        too_large = " (too large for float32)" if math.isfinite(found) else ""
        self._tell(
            "reward_not_finite",
            f"a reward must be finite, but is {found}{too_large}",
            "look for a division by zero or a logarithm of 0; clip what can explode.",
            where,
            again,
        )
        return found

    def _look_at_flag(self, name: str, flag: Any, where: Where) -> bool:
        if isinstance(flag, (bool, np.bool_)):
            return bool(flag)
        is_number = isinstance(flag, (int, np.integer))
        if isinstance(flag, np.ndarray):
            is_number = flag.size == 1 and flag.dtype.kind in "biu"
        try:
            truth = bool(flag)
        except (TypeError, ValueError):  # of several numbers
            truth = False
        self._tell(
            "end_type",
            f"{name} must be True or False, but is {_shown(flag)}",
            f"return bool({name})." + (" Clipper reads it as that." if is_number else ""),
            where,
            self._subject.replay(where.seed, where.step, f"print(repr({name}))"),
            name,
            "warning" if is_number else None,
        )
        return truth

    def _look_at_info(self, call: str, info: Any, where: Where) -> None:
        if isinstance(info, Mapping):
            return
        self._tell(
            "info_type",
            f"the info of {call} must be a dict, but is {_shown(info)}",
            "return {} where there is nothing to tell. Clipper goes on without it; wrappers fail.",
            where,
            self._subject.replay(where.seed, where.step, "print(repr(info))"),
            call,
            "warning",
        )


def resources() -> tuple[int, int, int]:
    """Returns threads, open files and bytes of memory of this process, 0 where it is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return (
            len(os.listdir("/proc/self/task")),
            len(os.listdir("/proc/self/fd")),
            pages * os.sysconf("SC_PAGE_SIZE"),
        )
    except OSError:
        return threading.active_count(), 0, 0


def plain(action: Any) -> Any:
    """Returns an action as Python's numbers, where it is one of numpy's."""
    return action.tolist() if isinstance(action, (np.ndarray, np.generic)) else action


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value!r}"[:80]
    return "None" if value is None else f"{value!r} ({type(value).__name__})"[:80]
