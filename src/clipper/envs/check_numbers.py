"""Episodes of random actions in, what their numbers say of the environment out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.envs.check_record import Record
from clipper.envs.check_subject import Instance, Subject
from clipper.envs.make import episode_limit

_LARGE, _TINY = 100.0, 1e-3
_FEW_STEPS = 100
_MB = 1e6


def look_at_numbers(subject: Subject, instance: Instance, record: Record) -> None:
    """Tells what observations, rewards, endings, speed and memory of many steps show."""
    if len(record.rewards) >= _FEW_STEPS:
        _observations(subject, record)
        _rewards(subject, record)
    else:
        subject.skip("scales of observations and rewards", f"{len(record.rewards)} steps are few")
    _endings(subject, instance, record)
    _speed(subject, instance, record)
    _resources(subject, record)


def _observations(subject: Subject, record: Record) -> None:
    steps = record.columns.count
    for name, mean, std, is_constant in record.columns.parts():
        label = f"observation part {name}" if name else "the observation"
        if is_constant.all() and not name:
            subject.tell(
                "obs_constant",
                f"observations must tell states apart, but none of {steps:,} differs from the others",
                "return what the agent is to see from reset and step; nothing is to be done if there is "
                "one state alone (a bandit).",
                severity="warning",
                steps=steps,
            )
        elif is_constant.any():
            still = np.flatnonzero(is_constant)
            value = f" (it is {mean[still[0]]:g})" if len(still) == 1 else ""
            subject.tell(
                "obs_constant",
                f"{_columns(still)} of {label} never changed in {steps:,} observations{value}",
                "leave out what never changes; nothing is to be done if rare events change it. "
                "Clipper's normalize_obs makes it 0 until then.",
                part=name,
                columns=still,
                steps=steps,
            )
        moving = ~is_constant
        big = moving & ((np.abs(mean) > _LARGE) | (std > _LARGE))
        small = moving & (std < _TINY)
        if (big | small).any():
            at = int(np.flatnonzero(big | small)[0])
            others = int((big | small).sum()) - 1
            more = f", and so have {others} more columns" if others else ""
            subject.tell(
                "obs_scale",
                f"column {at} of {label} has mean {mean[at]:.3g} and standard deviation {std[at]:.3g}, "
                f"far from 0 and 1{more}",
                "keep normalize_obs on (the default), or scale observations in the environment.",
                part=name,
                columns=np.flatnonzero(big | small),
                mean=mean[at],
                std=std[at],
                steps=steps,
            )


def _columns(at: NDArray[Any]) -> str:
    shown = ", ".join(map(str, at[:6].tolist())) + (", ..." if len(at) > 6 else "")
    return f"column {shown}" if len(at) == 1 else f"{len(at)} columns ({shown})"


def _rewards(subject: Subject, record: Record) -> None:
    rewards = np.array(record.rewards)
    steps = len(rewards)
    if np.all(rewards == rewards[0]):
        is_zero = rewards[0] == 0
        subject.tell(
            "reward_constant",
            f"every reward of {steps:,} steps with random actions was {rewards[0]:g}",
            "reward progress towards the goal as well, or begin episodes nearer to it: what random "
            "actions never find is not learnt."
            if is_zero
            else "nothing, if the length of episodes is what counts (as in CartPole); otherwise reward "
            "what should be done.",
            reward=float(rewards[0]),
            steps=steps,
        )
        return
    largest, std = float(np.abs(rewards).max()), float(rewards.std())
    if largest > 1000 or std > _LARGE or largest < _TINY:
        subject.tell(
            "reward_scale",
            f"rewards go from {rewards.min():.3g} to {rewards.max():.3g} with a standard deviation of "
            f"{std:.3g}",
            "set normalize_reward (--normalize-reward), or scale rewards to about 1 a step.",
            low=float(rewards.min()),
            high=float(rewards.max()),
            std=std,
            steps=steps,
        )


def _endings(subject: Subject, instance: Instance, record: Record) -> None:
    ended = [episode for episode in record.episodes if episode.has_ended]
    longest = max((episode.length for episode in record.episodes), default=0)
    limit = episode_limit(instance.env)
    if not ended:
        if limit is None and longest >= 1000:
            subject.tell(
                "episode_never_ends",
                f"an episode must end at some time, but none has after {longest:,} steps with random "
                "actions, and there is no limit",
                "give --max-episode-steps N (Python: max_episode_steps=N), for example 1000. Clipper "
                "then cuts episodes, and takes the value of where they are cut for what follows.",
                again=subject.replay(
                    record.episodes[0].seed, longest, "print(terminated, truncated)"
                ),
                steps=longest,
                seed=record.episodes[0].seed,
            )
        elif limit is None or limit > longest:
            subject.skip("endings", f"no episode ended within {longest:,} steps")
        return
    last = ended[-1]
    if len(ended) >= 2 and all(e.terminated and e.truncated for e in ended):
        subject.tell(
            "end_both",
            f"terminated or truncated must be True where an episode ends, but all {len(ended)} that "
            "ended had both",
            "terminated is for what ends the task (a goal, a fall), truncated for a limit. Clipper "
            "takes both for terminated, so that nothing is worth anything after a limit.",
            again=subject.replay(last.seed, last.length, "print(terminated, truncated)"),
            episodes=len(ended),
        )
        return
    lengths = {episode.length for episode in ended}
    if (
        len(ended) >= 5
        and len(lengths) == 1
        and last.length >= 10
        and not any(e.truncated for e in ended)
    ):
        subject.tell(
            "limit_as_terminated",
            f"all {len(ended)} episodes that ended did so by terminated at step {last.length}, whatever "
            "the actions: that looks like a time limit",
            "return truncated for a limit, not terminated, or leave the limit out and give "
            f"--max-episode-steps {last.length}. After terminated nothing is worth anything, so that "
            "values are learnt wrong. Nothing is to be done if the task is over by then.",
            again=subject.replay(last.seed, last.length, "print(terminated, truncated)"),
            length=last.length,
            episodes=len(ended),
        )


def _speed(subject: Subject, instance: Instance, record: Record) -> None:
    steps = sum(episode.length for episode in record.episodes)
    if not steps or not instance.step_seconds:
        return
    speed = steps / instance.step_seconds
    subject.coverage.steps_per_second = speed
    if speed < 500:
        subject.tell(
            "step_slow",
            f"a step takes {1000 / speed:.3g} ms ({speed:,.0f} steps/s): a million steps take "
            f"{1e6 / speed / 3600:.1f} hours on one core",
            "give --workers auto, which steps environments on all cores.",
            steps_per_second=speed,
        )
    share = instance.reset_seconds / (instance.reset_seconds + instance.step_seconds)
    each = instance.reset_seconds / max(1, instance.num_resets)
    if share > 0.5 and each > 0.02:
        subject.tell(
            "reset_slow",
            f"a reset takes {1000 * each:.3g} ms, as long as {each * speed:,.0f} steps; with random "
            f"actions resets are {share:.0%} of the time",
            "load files and build the simulation in __init__, and only set it back in reset.",
            seconds=each,
            share=share,
        )


def _resources(subject: Subject, record: Record) -> None:
    found = np.array(record.resources, dtype=np.float64).reshape(-1, 3)
    # the first half warms up: caches, lazily loaded libraries
    found = found[len(found) // 2 :]
    episodes = len(found) - 1
    if episodes < 8:
        return
    grown = found[-1] - found[0]
    middle = found[len(found) // 2]
    is_steady = (found[0] < middle) & (middle < found[-1])
    per = grown / episodes
    told = []
    if per[0] >= 0.5 and is_steady[0]:
        told.append(f"{grown[0]:.0f} threads")
    if per[1] >= 0.5 and is_steady[1]:
        told.append(f"{grown[1]:.0f} open files")
    if per[2] >= 0.1 * _MB and grown[2] > 20 * _MB and is_steady[2]:
        told.append(f"{grown[2] / _MB:.0f} MB of memory")
    if told:
        subject.tell(
            "resources_leak",
            f"{episodes} episodes must leave nothing behind, but left {' and '.join(told)}",
            "end in reset what the episode before has started, and keep no list that only grows.",
            episodes=episodes,
            threads=grown[0],
            files=grown[1],
            bytes=grown[2],
        )
