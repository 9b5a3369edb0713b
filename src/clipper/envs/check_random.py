"""An episode that was played in, whether its seed decides it, and what does if not, out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from clipper.envs.check_record import Played
from clipper.envs.check_replay import Replay, first_difference, made
from clipper.envs.check_subject import EPISODE, Instance, Subject, Unplayable

_SHORT = 30
_SEED_MEND = (
    "begin reset with super().reset(seed=seed) and take every random number from self.np_random. "
    "Clipper trains with such an environment, but the run cannot be repeated and resumes inexactly."
)


def look_at_seeds(subject: Subject, first: Played) -> bool:
    """Tells whether an episode is another on a second new instance.

    Args:
        subject: The environment; it can be made more than once.
        first: The first episode of a new instance.

    Returns:
        True if the seed decides it.
    """
    with made(subject, "making the environment again") as other:
        again = Replay(other, first.seed).play(min(len(first.moments), subject.replay_steps))
        at = first_difference(first, again)
        if at is not None:
            _tell_random(subject, other, first.seed, at)
        return at is None


def _tell_random(subject: Subject, other: Instance, seed: int, at: int) -> None:
    """Tells that a seed does not decide an episode, and what might."""
    sources = _global_sources(subject, seed, at + _SHORT)
    took_seed = getattr(other.env.unwrapped, "_np_random_seed", None) == seed
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
    is_told = getattr(other.env.spec, "nondeterministic", False)
    subject.tell(
        name,
        f"the same seed and actions must give the same episode on two new instances, but {what} differs "
        f"(seed {seed}); {reason}",
        mend,
        severity="note" if is_told else None,
        again=subject.program(
            *EPISODE,
            f"print(episode(env, {seed}, {at}))",
            *subject.make_again(),
            f"print(episode(env, {seed}, {at}))",
        ),
        seed=seed,
        step=at,
        global_generators=sources,
    )


def _global_sources(subject: Subject, seed: int, steps: int) -> list[str]:
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
            with made(subject, "making the environment again") as instance:
                for seeder in seeders:
                    seeder()
                found.append(Replay(instance, seed).play(steps))
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


def look_at_unseeded(subject: Subject) -> None:
    """Compares episodes of several seeds, then some without a seed, all with the same actions."""
    seeds = [subject.seed_of(number) for number in range(4)]
    with made(subject, "making the environment again") as instance:

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
