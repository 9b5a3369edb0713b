"""Episodes of one seed and other actions in, whether the actions change anything out."""

from __future__ import annotations

import math

from clipper.envs.check_replay import Replay, first_difference, made
from clipper.envs.check_subject import Instance, Subject

# steps that are compared before actions are said to change nothing, seeds tried, and actions of each
_ENOUGH_STEPS = 100
_SEEDS = 100
_OTHERS = 2


def look_at_effect(subject: Subject, seed: int) -> None:
    """Tells if episodes of other actions are the same, step by step, in all that is returned.

    Args:
        subject: The environment; it can be made more than once, and seeds decide its episodes.
        seed: Of the first episode that is played.
    """
    steps, length = 0, None
    with made(subject, "making the environment again") as instance:
        for number in range(_SEEDS):
            length = _same_steps(instance, seed + number, subject.replay_steps)
            if length is None:
                return
            steps += length
            if steps >= _ENOUGH_STEPS or subject.time_left() < 0.1:
                break
    if steps < _ENOUGH_STEPS:
        subject.skip("whether actions have an effect", f"{steps} steps are few")
        return
    subject.tell(
        "actions_without_effect",
        "actions must change what comes, but observations, rewards and endings are the same whatever is "
        f"done, in {steps:,} steps of {number + 1} episodes, each with {1 + _OTHERS} kinds of actions",
        "see that step uses the action that it is given.",
        again=subject.program(
            "def episode(env, seed, action_seed):",
            "    env.action_space.seed(action_seed)",
            "    env.reset(seed=seed)",
            f"    for _ in range({min(length or 5, 5)}):",
            "        print(*env.step(env.action_space.sample())[:4])",
            f"episode(env, {seed + number}, 0)",
            f"episode(env, {seed + number}, 1)",
        ),
        seed=seed + number,
        steps=steps,
    )


def _same_steps(instance: Instance, seed: int, most: int) -> int | None:
    """Returns the length of episodes of one seed that do not differ, or None if they do.

    Rewards that are no numbers may hide what differs.
    """
    one = Replay(instance, seed).play(most)
    if any(math.isnan(moment.reward) for moment in one.moments):
        return None
    for other in range(1, 1 + _OTHERS):
        again = Replay(instance, seed, action_seed=seed + other).play(most)
        if first_difference(one, again) is not None or len(one.moments) != len(again.moments):
            return None
    return len(one.moments)
