"""Episodes that were played in, whether the same are played again out: later, and beside others.

Compared are episodes on a used instance with the same on a new one (does the past decide them?), and
the first episode alone with the same while another instance is played (does that?).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from clipper.envs.check_effect import look_at_effect
from clipper.envs.check_random import look_at_seeds, look_at_unseeded
from clipper.envs.check_record import Played, Record, same
from clipper.envs.check_replay import Replay, first_difference, made
from clipper.envs.check_subject import EPISODE, Instance, Subject, Unplayable
from clipper.envs.probe import depends_on_past

_ONE_PER_PROCESS = "--num-envs N --workers N-1 --eval-every 0"


def look_at_repeats(subject: Subject, record: Record) -> None:
    """Tells whether seeds decide episodes, whether the past or other instances do.

    Args:
        subject: The environment; it can be made more than once.
        record: What was played on one instance.
    """
    is_decided = False
    with subject.part("whether a seed decides an episode"):
        is_decided = look_at_seeds(subject, record.episodes[0])
    if is_decided:
        with subject.part("whether instances share a state"):
            _shared(subject, record.episodes[0])
        with subject.part("whether actions have an effect"):
            look_at_effect(subject, record.episodes[0].seed)
        with subject.part("resets without a seed"):
            look_at_unseeded(subject)
    else:
        subject.skip("what instances share", "seeds do not decide episodes")
    with subject.part("whether the past decides an episode"):
        _past(subject, record, is_decided)


def _past(subject: Subject, record: Record, is_decided: bool) -> None:
    """Compares later episodes, played on a used instance, with the same on new ones.

    Args:
        subject: The environment.
        record: What was played on one instance.
        is_decided: Seeds decide the first episode; if not, the past is seen only where it goes on.
    """
    later = [episode for episode in record.episodes[1:] if episode.moments]
    if not later:
        subject.skip("whether the past decides an episode", "there was one episode alone")
    found: list[_Later] = []
    for episode in later:
        if subject.time_left() < 0.1:
            break
        with made(subject, "making the environment again") as fresh:
            steps = min(len(episode.moments) + 1, subject.replay_steps)
            again = Replay(fresh, episode.seed).play(steps)
        at = first_difference(episode, again)
        found.append(_Later(record.episodes[episode.number - 1], episode, again, at))
    ended_early = [one for one in found if one.ends_early] if is_decided else []
    going_on = [one for one in found if one.goes_on(is_decided) is not None]
    differing = [one for one in found if one.at is not None]
    if ended_early:
        _tell_restart(subject, record, ended_early[0], _COUNTER)
    elif len(going_on) == len(found) >= 2:
        _tell_restart(subject, record, going_on[0], going_on[0].goes_on(is_decided) or "")
    elif differing and is_decided:
        _tell_leak(subject, record, differing[0].episode, differing[0].at)
    elif is_decided and depends_on_past(subject.source.make):
        _tell_leak(subject, record, None, None)


_COUNTER = "it ends an episode that on a new instance goes on: a counter is not set back"


@dataclass(frozen=True)
class _Later:
    """An episode on a used instance, the one before it, and the same on a new instance."""

    before: Played
    episode: Played
    again: Replay
    at: int | None

    @property
    def ends_early(self) -> bool:
        """True if all is the same but that the used instance ends the episode."""
        if not self.at or not self.episode.has_ended or self.at != self.episode.length:
            return False
        mine, other = self.episode.moments[self.at - 1], self.again.moments[self.at - 1]
        return same(mine.obs, other.obs) and not any(other.ends)

    def goes_on(self, is_decided: bool) -> str | None:
        """Returns how the episode goes on from the one before it, or None if it does not."""
        if self.episode.length == 1 and len(self.again.moments) > 1:
            return "the next episode is over after one step, on a new instance it is not"
        if same(self.episode.first, self.before.final) and not same(
            self.again.first, self.before.final
        ):
            return "the observation that it returns is that in which the episode before ended"
        return self._column_that_goes_on() if is_decided and self.at == 0 else None

    def _column_that_goes_on(self) -> str | None:
        for used, final, fresh in zip(
            self.episode.first, self.before.final, self.again.first, strict=True
        ):
            if used is None or final is None or fresh is None:
                continue
            if not used.shape == final.shape == fresh.shape or used.dtype.kind not in "iuf":
                continue
            used, final, fresh = (x.astype(np.float64).reshape(-1) for x in (used, final, fresh))
            near = np.abs(used - final) <= 0.05 * np.abs(fresh - final)
            stays = np.flatnonzero((used != fresh) & near)
            if len(stays):
                at = int(stays[0])
                return (
                    f"column {at} of the first observation goes on from the end of the episode before "
                    f"({final[at]:g}; on a new instance {fresh[at]:g})"
                )
        return None


def _tell_restart(subject: Subject, record: Record, later: _Later, how: str) -> None:
    episode = later.episode
    at = episode.length if later.at is None else later.at
    subject.tell(
        "episode_does_not_restart",
        f"reset must begin a new episode, but {how} (episode {episode.number}, seed {episode.seed})",
        "set everything back in reset that step changes: position, counters, flags, scores.",
        again=_used(subject, record, episode, at),
        episode=episode.number,
        seed=episode.seed,
        step=at,
    )


def _used(subject: Subject, record: Record, episode: Played, at: int) -> str:
    """Returns a program that plays an episode on a used instance and on a new one."""
    before = record.episodes[: episode.number]
    return subject.program(
        *EPISODE,
        *(f"episode(env, {one.seed}, {one.length})" for one in before),
        f"print(episode(env, {episode.seed}, {at}))",
        *subject.make_again(),
        f"print(episode(env, {episode.seed}, {at}))",
    )


def _tell_leak(subject: Subject, record: Record, episode: Played | None, at: int | None) -> None:
    is_fresh = subject.source.is_fresh_per_episode
    again, where = "", {}
    if episode is None or at is None:
        what = (
            "one of six repetitions of a short episode on the same instance differs from the first"
        )
    else:
        place = "its first observation" if at == 0 else f"step {at}"
        what = (
            f"episode {episode.number} (seed {episode.seed}) differs in {place} from the same on a new "
            "instance"
        )
        again = _used(subject, record, episode, at)
        where = {"episode": episode.number, "step": at, "seed": episode.seed}
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
        **where,
    )


def _shared(subject: Subject, first: Played) -> None:
    """Plays the first episode once more while another instance is played in turn, then closed."""
    steps = min(len(first.moments), max(20, subject.replay_steps // 4))
    closed_at = steps // 2
    with made(subject, "making the environment again") as mine:
        again = Replay(mine, first.seed)
        with made(subject, "making another instance beside it") as beside:
            error = None
            try:
                _in_turn(again, beside, first.seed + 1, closed_at)
                with contextlib.suppress(Exception):
                    beside.close()
                again.play(steps)
                at = first_difference(first, again)
            except Unplayable as failed:
                at, error = len(again.moments) + 1, str(failed)
    if at is None:
        return
    what = "was played" if at <= closed_at else "was closed"
    found = f"in step {at} {error}" if error else f"step {at} is another"
    other = [line.replace("env = ", "other = ", 1) for line in subject.make_again()]
    play = f"print(episode(env, {first.seed}, {at}))"
    beside_it = "other.step(other.action_space.sample())" if at <= closed_at else "other.close()"
    subject.tell(
        "state_shared",
        f"two instances must not know of each other, but {found if at else 'it begins otherwise'} when "
        f"another one {what} beside it (seed {first.seed})",
        "keep everything in self: no module or class variables, one client of the simulator for "
        "each instance (pybullet: physicsClientId in every call). Until then one environment in each "
        f"process: {_ONE_PER_PROCESS}, and evaluate with --num-envs 1.",
        again=subject.program(
            *EPISODE,
            play,
            *other,
            f"other.reset(seed={first.seed + 1})",
            "step = env.step",
            f"env.step = lambda action: ({beside_it}, step(action))[1]",
            play,
        ),
        seed=first.seed,
        step=at,
    )


def _in_turn(again: Replay, beside: Instance, seed: int, steps: int) -> None:
    """Plays an episode so many steps, with a step of another instance before each."""
    other = Replay(beside, seed)
    while len(again.moments) < steps and not again.has_ended:
        if other.has_ended:
            other = Replay(beside, seed)
        other.step()
        again.step()
