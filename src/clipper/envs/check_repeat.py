"""Episodes that were played in, whether the same are played again out: later, and beside others.

Compared are episodes on a used instance with the same on a new one (does the past decide them?), and
the first episode alone with the same while another instance is played (does that?).
"""

from __future__ import annotations

import contextlib

import numpy as np

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
    if not is_decided:
        return
    with subject.part("whether instances share a state"):
        _shared(subject, record.episodes[0])
    with subject.part("resets without a seed"):
        look_at_unseeded(subject)
    with subject.part("whether the past decides an episode"):
        _past(subject, record)


def _past(subject: Subject, record: Record) -> None:
    """Compares later episodes, played on a used instance, with the same on new ones."""
    later = [episode for episode in record.episodes[1:] if episode.moments]
    if not later:
        subject.skip("whether the past decides an episode", "there was one episode alone")
    found: list[tuple[Played, Played, Replay, int]] = []
    for episode in later:
        if subject.time_left() < 0.1:
            break
        with made(subject, "making the environment again") as fresh:
            again = Replay(fresh, episode.seed).play(
                min(len(episode.moments) + 1, subject.replay_steps)
            )
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
            again=_used(subject, record, episode, at),
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


def _used(subject: Subject, record: Record, episode: Played, at: int) -> str:
    """Returns a program that plays an episode on a used instance and on a new one."""
    before = record.episodes[: episode.number]
    return subject.program(
        *EPISODE,
        *(f"episode(env, {one.seed}, {one.length})" for one in before),
        f"print(episode(env, {episode.seed}, {at}))",
        *subject.source.as_code(),
        f"print(episode(env, {episode.seed}, {at}))",
    )


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
        again = _used(subject, record, record.episodes[number], at)
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
    found = f"step {at} raised ({error})" if error else f"step {at} is another"
    other = [line.replace("env = ", "other = ", 1) for line in subject.source.as_code()]
    play = f"print(episode(env, {first.seed}, {at}))"
    beside_it = "other.step(other.action_space.sample())" if at <= closed_at else "other.close()"
    subject.tell(
        "state_shared",
        f"two instances must not know of each other, but {found if at else 'it begins otherwise'} when "
        f"another one {what} beside it (seed {first.seed})",
        "keep everything in self: no module or class variables, one client of the simulator for "
        "each instance (pybullet: physicsClientId in every call). Until then one environment in each "
        f"process: {_ONE_PER_PROCESS}.",
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
