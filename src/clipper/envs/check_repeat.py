"""Episodes that were played in, whether the same seeds and actions give them again out.

Compared are: the first episode on another new instance (does the seed decide it?), later ones on new
instances (does the past?), and the first while another instance is played in turn (does that?).
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clipper.envs.check_parts import parts_of
from clipper.envs.check_play import Moment, Played, Record, number_of, picture, same
from clipper.envs.check_subject import Instance, Subject, Unplayable, describe_error
from clipper.envs.probe import depends_on_past

_MOST_STEPS = 1000
_SHORT = 30
_SEED_MEND = (
    "begin reset with super().reset(seed=seed) and take every random number from self.np_random. "
    "Clipper trains with such an environment, but the run cannot be repeated and resumes inexactly."
)


class Replay:
    """An episode that is played once more, step by step, with a seed's actions.

    Args:
        instance: On which.
        seed: Of the reset and the actions.
    """

    def __init__(self, instance: Instance, seed: int, *, is_seeded: bool = True) -> None:
        self._instance = instance
        self._parts = list(parts_of(instance.env.observation_space))
        self._draw = instance.actions(seed)
        try:
            obs = instance.begin(seed)[0] if is_seeded else instance.begin_unseeded()
        except Exception as error:
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
        except Exception as error:
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


def look_at_repeats(subject: Subject, instance: Instance, record: Record) -> None:
    """Tells whether seeds decide episodes, whether the past or other instances do.

    Args:
        subject: The environment; it can be made more than once.
        instance: On which the record was played, still open.
        record: What was played.
    """
    first = record.episodes[0]
    with subject.part("whether a seed decides an episode"):
        with _made(subject, "making a second instance") as other:
            again = Replay(other, first.seed).play(min(len(first.moments), _MOST_STEPS))
        at = first_difference(first, again)
        if at is not None:
            _tell_random(subject, instance, first, at)
            return
    with subject.part("whether the past decides an episode"):
        _past(subject, record)
    with subject.part("whether instances share a state"):
        _shared(subject, first)
    with subject.part("resets without a seed"):
        _unseeded(subject, record)


@contextlib.contextmanager
def _made(subject: Subject, what: str) -> Iterator[Instance]:
    try:
        instance = subject.make(what)
    except Exception as error:
        raise Unplayable(describe_error(error)[0]) from error
    try:
        yield instance
    finally:
        with contextlib.suppress(Exception):
            instance.close()


def _tell_random(subject: Subject, instance: Instance, first: Played, at: int) -> None:
    """Tells that a seed does not decide an episode, and what might."""
    steps = min(len(first.moments), _MOST_STEPS)
    sources = _global_sources(subject, first.seed, max(at, 1), steps)
    core = instance.env.unwrapped
    took_seed = getattr(core, "_np_random_seed", None) is not None
    if sources:
        reason = f"it draws from the global generator of {' and '.join(sources)}"
        mend = (
            "draw from self.np_random instead (after super().reset(seed=seed)). Clipper trains with it, "
            "but the run cannot be repeated and resumes inexactly."
        )
    elif not took_seed:
        reason = "its reset does not hand the seed to super().reset(seed=seed)"
        mend = _SEED_MEND
    else:
        reason = (
            "seeding the global generators of numpy and random does not help: look for a generator of "
            "its own that is not seeded, the clock, threads, or the order of a set"
        )
        mend = _SEED_MEND
    name = "seed_ignored" if at == 0 else "not_deterministic"
    what = "the first observation" if at == 0 else f"step {at}"
    is_told = getattr(instance.env.spec, "nondeterministic", False)
    subject.tell(
        name,
        f"the same seed and actions must give the same episode on two new instances, but {what} differs "
        f"(seed {first.seed}); {reason}",
        mend,
        severity="note" if is_told else None,
        again=_twice(subject, first.seed, at),
        seed=first.seed,
        step=at,
        global_generators=sources,
    )


def _twice(subject: Subject, seed: int, steps: int) -> str:
    """Returns a program that plays the same episode on two instances."""
    return "\n".join(
        [
            "for _ in range(2):",
            *("    " + line for line in subject.replay(seed, steps, "print(obs)").splitlines()),
        ]
    )


def _global_sources(subject: Subject, seed: int, at: int, steps: int) -> list[str]:
    """Returns the global generators whose seeding makes the episode repeat."""
    kinds: dict[str, Callable[[], Any]] = {
        "numpy.random": lambda: np.random.seed(1),
        "random": lambda: random.seed(1),
    }
    states = np.random.get_state(), random.getstate()

    def repeats(seeders: list[Callable[[], Any]]) -> bool:
        found = []
        for _ in range(2):
            for seeder in seeders:
                seeder()
            with _made(subject, "making the environment again") as instance:
                for seeder in seeders:
                    seeder()
                found.append(Replay(instance, seed).play(min(steps, at + _SHORT)))
        return first_difference(found[0], found[1]) is None

    try:
        if not repeats(list(kinds.values())):
            return []
        alone = [name for name, seeder in kinds.items() if repeats([seeder])]
        return alone[:1] or list(kinds)
    except Unplayable:
        return []
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _past(subject: Subject, record: Record) -> None:
    """Compares later episodes, played on a used instance, with the same on new ones."""
    later = [episode for episode in record.episodes[1:] if episode.moments]
    if not later:
        subject.skip("whether the past decides an episode", "there was one episode alone")
    found: list[tuple[Played, Played, Replay, int]] = []
    for episode in later:
        if subject.time_left() < 0.3:
            break
        with _made(subject, "making the environment again") as fresh:
            again = Replay(fresh, episode.seed).play(min(len(episode.moments) + 1, _MOST_STEPS))
        before = record.episodes[episode.number - 1]
        at = first_difference(episode, again)
        if at is not None:
            found.append((before, episode, again, at))
    restarts = [_does_not_restart(*four) for four in found]
    if restarts and all(restarts) and len(restarts) == len(later):
        before, episode, again, at = found[0]
        subject.tell(
            "episode_does_not_restart",
            f"reset must begin a new episode, but {restarts[0]} (episode {episode.number}, seed "
            f"{episode.seed})",
            "set everything back in reset that step changes: position, counters, flags, scores.",
            again=_used(subject, record, episode),
            episode=episode.number,
            seed=episode.seed,
            step=at,
        )
    elif found:
        _tell_leak(subject, found[0][1].number, found[0][3], found[0][1].seed, record)
    elif depends_on_past(subject.source.make):
        _tell_leak(subject, None, None, None, record)


def _does_not_restart(before: Played, episode: Played, again: Replay, at: int) -> str | None:
    """Returns how an episode goes on from the one before it, or None if it only differs from new."""
    if at == 0:
        pairs = zip(episode.first, before.final, again.first, strict=True)
        for used, final, fresh in pairs:
            if used is None or final is None or fresh is None or used.shape != final.shape:
                continue
            if used.shape != fresh.shape or used.dtype.kind not in "iuf":
                continue
            moved = used != fresh
            used, final, fresh = (x[moved].astype(np.float64) for x in (used, final, fresh))
            if not moved.any():
                continue
            stays = np.abs(used - final) <= 0.05 * np.abs(fresh - final)
            if stays.any():
                column = np.flatnonzero(moved)[int(np.flatnonzero(stays)[0])]
                whole = "the observation it begins with is that in which the one before ended"
                return (
                    whole
                    if stays.all() and moved.all()
                    else (
                        f"column {column} of the first observation goes on from the end of the episode "
                        f"before ({final[stays][0]:g}; on a new instance {fresh[stays][0]:g})"
                    )
                )
    elif episode.has_ended and at == episode.length:
        mine, other = episode.moments[at - 1], again.moments[at - 1]
        if same(mine.obs, other.obs) and any(mine.ends) and not any(other.ends):
            return (
                f"the episode ends at step {at}, on a new instance it goes on: a counter is not set "
                "back"
            )
    if episode.length == 1 and len(again.moments) > 1:
        return "the episode is over after one step, on a new instance it is not"
    return None


def _used(subject: Subject, record: Record, episode: Played) -> str:
    """Returns a program that plays an episode on an instance that has played the one before."""
    before = record.episodes[episode.number - 1]
    show = [f"obs, info = env.reset(seed={episode.seed})", "print(obs)"]
    return subject.replay(before.seed, before.length, "print(obs)", *show)


def _tell_leak(
    subject: Subject, number: int | None, at: int | None, seed: int | None, record: Record
) -> None:
    is_fresh = subject.source.is_fresh_per_episode
    if number is None or at is None or seed is None:
        what = (
            "one of six repetitions of a short episode on the same instance differs from the first"
        )
        again = ""
    else:
        where = "its first observation" if at == 0 else f"step {at}"
        what = f"episode {number} (seed {seed}) differs in {where} from the same on a new instance"
        again = _used(subject, record, record.episodes[number])
    mend = (
        "nothing: Clipper gives every episode a new instance."
        if is_fresh
        else "set everything back in reset that step changes. If it is meant (a curriculum), a resumed "
        "run is not exact; if not, register the environment with gymnasium.register: registered ones "
        "get a new instance for every episode where they need it."
    )
    subject.tell(
        "state_leaks",
        f"an episode must depend on its seed and actions alone, but {what}",
        mend,
        severity="note" if is_fresh else None,
        again=again,
        episode=number,
        step=at,
        seed=seed,
    )


def _shared(subject: Subject, first: Played) -> None:
    """Plays the first episode once more while another instance is played in turn, then closed."""
    with _made(subject, "making the environment again") as mine:
        again = Replay(mine, first.seed)
        with _made(subject, "making another instance beside it") as beside:
            other = Replay(beside, first.seed + 1)
            steps = min(len(first.moments), _MOST_STEPS // 4)
            what = "was played"
            try:
                while len(again.moments) < steps and not again.has_ended:
                    if other.has_ended:
                        other = Replay(beside, first.seed + 1)
                    other.step()
                    again.step()
                    if len(again.moments) == steps // 2:
                        with contextlib.suppress(Exception):
                            beside.close()
                        what = "was closed"
                        break
                again.play(steps)
                at = first_difference(first, again)
                error = None
            except Unplayable as failed:
                at, error = len(again.moments) + 1, str(failed)
    if at is None:
        return
    found = (
        f"step {at} raised ({error})"
        if error
        else f"step {at} differs"
        if at
        else "it begins otherwise"
    )
    lines = subject.program().replace("env = ", "other = ").splitlines()
    subject.tell(
        "state_shared",
        f"two instances must not know of each other, but {found} when another one {what} beside it "
        f"(seed {first.seed})",
        "keep everything in self: no module or class variables, one client of the simulator for "
        "each instance (pybullet: physicsClientId in every call). Until then one environment in each "
        "process: --num-envs N --workers N-1 --eval-every 0.",
        again="\n".join(
            [
                subject.program(),
                *lines,
                f"print(env.reset(seed={first.seed}))",
                f"other.reset(seed={first.seed + 1})",
                "action = env.action_space.sample()",
                "for _ in range(10): other.step(action)",
                "print(env.step(action))  # compare with the same without other.step",
            ]
        ),
        seed=first.seed,
        step=at,
    )


def _unseeded(subject: Subject, record: Record) -> None:
    """Compares episodes of several seeds, then some without a seed, all with the same actions."""
    seeds = [subject.seed_of(number) for number in range(4)]
    with _made(subject, "making the environment again") as instance:

        def begun(seed: int, is_seeded: bool) -> Replay:
            ahead = Replay(instance, seed, is_seeded=is_seeded)
            ahead._draw = instance.actions(seeds[0])
            return ahead.play(_SHORT)

        seeded = [begun(seed, True) for seed in seeds]
        unseeded = [begun(seeds[0], False) for _ in range(4)]
    if all(first_difference(seeded[0], other) is None for other in seeded[1:]):
        subject.tell(
            "seed_changes_nothing",
            f"{len(seeds)} seeds gave the same episode of {len(seeded[0].moments)} steps with the same "
            "actions",
            "nothing, if the task has no chance in it; 100 evaluation episodes are then one episode. "
            "Otherwise draw the start in reset from self.np_random.",
            seeds=seeds,
        )
    elif all(first_difference(unseeded[0], other) is None for other in unseeded[1:]):
        subject.tell(
            "unseeded_repeats",
            f"resets without a seed must begin new episodes, but {len(unseeded)} in a row began the "
            "same",
            "seed in reset only if a seed is given: super().reset(seed=seed) does just that. Clipper "
            "gives a seed to every reset; other programs would play one episode for ever.",
            again=subject.replay(
                seeds[0], 0, "print(obs)", "for _ in range(2):", "    print(env.reset()[0])"
            ),
        )
