"""Rows of metrics in, alarms out: what goes wrong in training, the number that proves it, the cure.

Every rule is a pure function of the rows so far. Thresholds stand beside the numbers that healthy runs
of the presets reach (docs/concepts/alarms.md), with room between; a rule whose metrics an algorithm
does not report is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from clipper.alarm_facts import WINDOW, Alarm, Past
from clipper.alarms_of_returns import (
    flat_return_alarm,
    no_episode_alarm,
    no_progress_alarm,
    same_return_alarm,
    small_rewards_alarm,
)
from clipper.alarms_of_values import explained_variance_alarm, scale_alarm, value_loss_alarm

# median of three rows; a mean over updates of 0.005 to 0.03 is what a clip range of 0.2 makes
KL_LIMIT = 0.3
# share of what the policy began with that is left, while returns have not risen
ENTROPY_LEFT = 0.05
STD_LEFT = 0.1
# median of ten rows of the share of actions drawn outside their bounds, their standard deviation as a
# multiple of the first, and the share of what returns had risen by that is lost
SATURATION_LIMIT = 0.25
STD_GROWTH = 1.25
# times the largest mean reward of a row so far
REWARD_JUMP = 100.0
# median of ten rows, before the last tenth of the run, whose steps a schedule may end at 0
STILL_LIMIT = 1e-5
STILL_PROGRESS = 0.9
# median of three rows
COMPLETE_LIMIT = 0.25


def kl_alarm(past: Past) -> Alarm | None:
    """The policy moves too far in an iteration: KL(old || new) is above 0.3 nats."""
    found = past.last("policy/approx_kl", 3)
    if found is None or not (kl := median(found)) > KL_LIMIT:
        return None
    return Alarm(
        "kl",
        kl,
        f"the policy moves by a KL of {kl:.3g} nats in an iteration, where 0.005 to 0.03 is usual",
        ("lower learning_rate", "lower num_epochs", "set target_kl 0.02", "lower max_kl"),
    )


def entropy_alarm(past: Past) -> Alarm | None:
    """The policy has become deterministic without having become better."""
    if past.has_risen:
        return None
    if "policy/action_std" in past.first and (found := past.last("policy/action_std", 3)):
        left = median(found) / past.first["policy/action_std"]
        what, limit = "standard deviation of its actions", STD_LEFT
    elif past.first.get("policy/entropy", 0.0) > 0.0 and (found := past.last("policy/entropy", 3)):
        left = median(found) / past.first["policy/entropy"]
        what, limit = "entropy", ENTROPY_LEFT
    else:
        return None
    if not left < limit:
        return None
    return Alarm(
        "entropy",
        left,
        f"the policy has {100 * left:.2g} % left of the {what} it began with, and returns have not "
        f"risen {past.returns}",
        ("raise ent_coef", "lower learning_rate", "lower max_kl"),
    )


def saturation_alarm(past: Past) -> Alarm | None:
    """Actions lie beyond their bounds, where noise is not felt; it grows, and returns fall."""
    shares = past.last("policy/action_saturation", WINDOW // 2)
    stds = past.last("policy/action_std", 3)
    if shares is None or stds is None or not past.first.get("policy/action_std"):
        return None
    share, growth = median(shares), median(stds) / past.first["policy/action_std"]
    if not (share > SATURATION_LIMIT and growth > STD_GROWTH and past.has_fallen):
        return None
    return Alarm(
        "saturation",
        share,
        f"{100 * share:.2g} % of the numbers drawn for actions are outside their bounds, and their "
        f"standard deviation is {growth:.3g} times what it began with, while returns fall from "
        f"{past.best_return:.4g} to {past.row['rollout/episode_return']:.4g}",
        (
            "begin with less noise (log_std_init -1)",
            "lower ent_coef",
            "stop sooner (total_timesteps)",
        ),
    )


def reward_alarm(past: Past) -> Alarm | None:
    """Rewards are suddenly a hundred times what they were at most."""
    found = past.last("rollout/reward_mean", WINDOW // 2)
    if found is None or not past.largest_reward > 0.0:
        return None
    jump = abs(found[-1]) / past.largest_reward
    if not (jump > REWARD_JUMP and abs(found[-1]) > 1.0):
        return None
    return Alarm(
        "reward",
        jump,
        f"the mean reward is {found[-1]:.3g}, {jump:.3g} times the largest before",
        (
            "look for a step of the environment that divides or sums up without a limit",
            "soften it by normalize_reward",
        ),
    )


def still_alarm(past: Past) -> Alarm | None:
    """The policy hardly moves, and has not become better."""
    found = past.last("policy/approx_kl", WINDOW // 2)
    if found is None or past.has_risen or past.progress > STILL_PROGRESS:
        return None
    if past.largest_reward == 0.0 == past.row.get("rollout/reward_mean"):
        return None  # there is nothing to move by
    if not (kl := median(found)) < STILL_LIMIT:
        return None
    return Alarm(
        "still",
        kl,
        f"the policy moves by a KL of {kl:.2g} nats in an iteration, where 0.005 to 0.03 is usual, and "
        f"returns have not risen {past.returns}",
        (
            "raise learning_rate",
            "raise num_epochs",
            "raise max_kl",
            "see that a module's outputs depend on its parameters",
        ),
    )


def complete_alarm(past: Past) -> Alarm | None:
    """Most rows are of episodes that are not whole in a rollout: `total_return` leaves them out."""
    found = past.last("rollout/complete_fraction", 3)
    if found is None or not (share := median(found)) < COMPLETE_LIMIT:
        return None
    return Alarm(
        "complete",
        share,
        f"{100 * share:.2g} % of the rows are of episodes that begin and end within a rollout, and the "
        "policy learns from no others",
        ("raise num_steps beyond the length of episodes", "set advantage gae"),
    )


RULES: tuple[Callable[[Past], Alarm | None], ...] = (
    kl_alarm,
    entropy_alarm,
    saturation_alarm,
    reward_alarm,
    scale_alarm,
    value_loss_alarm,
    explained_variance_alarm,
    small_rewards_alarm,
    flat_return_alarm,
    same_return_alarm,
    no_episode_alarm,
    still_alarm,
    complete_alarm,
    no_progress_alarm,
)


# of what the first speaks the others show no more than what follows from it
_EXPLAINED_BY = {
    "scale": ("value_loss", "flat_return", "still"),
    "small_rewards": ("value_loss", "explained_variance", "entropy", "flat_return", "still"),
}


def alarms_of(past: Past) -> list[Alarm]:
    """Returns what all rules say of the newest row, but for what another alarm explains.

    That there is no progress is said only where nothing else is.
    """
    found = [alarm for rule in RULES if (alarm := rule(past)) is not None]
    known = {name for alarm in found for name in _EXPLAINED_BY.get(alarm.name, ())}
    if len(found) > 1:
        known.add("no_progress")
    return [alarm for alarm in found if alarm.name not in known]
