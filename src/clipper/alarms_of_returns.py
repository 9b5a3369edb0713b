"""Rules of alarms about returns that do not rise, whatever holds them; as in `clipper.alarms`."""

from __future__ import annotations

from math import hypot
from statistics import median

from clipper.alarm_facts import WINDOW, Alarm, Past

# episodes, and the share of the run, after which returns should have risen
FLAT_EPISODES = 200
FLAT_PROGRESS = 0.25
# share of the run after which a task that takes its time should have shown something
SLOW_PROGRESS = 0.5
# what ten rows together are above the first by if returns have risen, in standard errors of a single
# row's difference: a task of wins and losses needs thousands of episodes to show more
RISE_ERRORS = 1.0
# what the rise and fall of returns are at least, in standard errors of their difference
LOST_ERRORS = 4.0
# size of returns beside which the first guesses of a value function and the bonus for entropy weigh
SMALL_SIZE = 0.01
SMALL_PROGRESS = 0.1
# share of the targets' variance that is explained: what comes is foreseen; it is not
FORESEEN = 0.5
UNFORESEEN = 0.1


def flat_return_alarm(past: Past) -> Alarm | None:
    """Every episode runs into its limit, and returns are what they were at the start."""
    found = past.last("rollout/truncated_fraction", WINDOW // 2)
    now = past.row
    if (
        found is None
        or min(found) < 1.0
        or past.has_risen
        or not _should_have_risen(past, FLAT_PROGRESS)
    ):
        return None
    value = now["rollout/episode_return"]
    may_be_best = (
        ", unless that is the best there is" if now["rollout/episode_return_std"] == 0 else ""
    )
    return Alarm(
        "flat_return",
        value,
        f"every episode is cut at its limit, and after {now['rollout/episodes']:,.0f} of them the "
        f"mean return is {value:.4g}, no better than at the start {past.returns}{may_be_best}",
        (
            "reward progress towards the goal",
            "begin nearer to it",
            "raise ent_coef so that it is found (log_std_init for continuous actions)",
            "see that actions have an effect (`clipper check-env`)",
        ),
    )


def same_return_alarm(past: Past) -> Alarm | None:
    """All episodes have had one return, whatever the policy did."""
    now = past.row
    stds = past.series.get("rollout/episode_return_std", ())
    if (
        len(stds) < WINDOW // 2
        or "rollout/episode_return_std" not in now
        or past.base is None
        or max(stds) > 0.0
        or past.base["rollout/episode_return_std"] > 0.0
        or past.best_return != past.base["rollout/episode_return"]
        or not _should_have_risen(past, FLAT_PROGRESS)
        or flat_return_alarm(past) is not None  # which has more to say
    ):
        return None
    value = now["rollout/episode_return"]
    return Alarm(
        "same_return",
        value,
        f"all of {now['rollout/episodes']:,.0f} episodes have returned {value:.4g}: unless that is the "
        "best there is, nothing tells better actions from worse ones",
        (
            "see that step returns the reward it computes (`clipper check-env`)",
            "reward progress towards the goal",
            "begin nearer to it",
        ),
    )


def small_rewards_alarm(past: Past) -> Alarm | None:
    """Returns have not risen, and rewards are too small to count beside what else is in the loss."""
    now = past.row
    if "loss/value" not in now:
        return None  # as in CEM, which compares returns and nothing else
    if past.are_rewards_scaled or past.has_risen or not _should_have_risen(past, SMALL_PROGRESS):
        return None
    size = hypot(now["rollout/episode_return"], now["rollout/episode_return_std"])
    if not 0.0 < size < SMALL_SIZE:
        return None
    return Alarm(
        "small_rewards",
        size,
        f"returns are {size:.2g} in size, next to nothing beside what a value function begins with, and "
        f"have not risen {past.returns}",
        ("set normalize_reward true", "give larger rewards"),
    )


def no_episode_alarm(past: Past) -> Alarm | None:
    """No episode has ended, so that nothing is known of returns."""
    counts = past.last("rollout/episodes", WINDOW // 2)
    if counts is None or counts[-1] > 0.0 or past.progress < FLAT_PROGRESS:
        return None
    return Alarm(
        "no_episode",
        past.progress,
        f"no episode has ended, and {100 * past.progress:.0f} % of the run is over: nothing is known of "
        "returns, and states after an end are never seen again",
        (
            "see that step returns terminated where an episode ends",
            "cut episodes by `--max-episode-steps`",
        ),
    )


def no_progress_alarm(past: Past) -> Alarm | None:
    """Half of the run is over, and the returns of the last ten rows are what they were at the start."""
    found = past.last("rollout/episode_return", WINDOW // 2)
    if found is None or past.base is None or not _should_have_risen(past, SLOW_PROGRESS):
        return None
    stds = past.series.get("rollout/episode_return_std", ())
    if past.base["rollout/episode_return_std"] == 0.0 and not any(stds):
        return None  # as in `same_return`
    if past.begins_trained:
        return None
    first, now = past.base["rollout/episode_return"], median(found)
    if now > first + RISE_ERRORS * past.return_error:
        return None
    count = f"after {past.row['rollout/episodes']:,.0f} episodes"
    best, lost = past.best_return, LOST_ERRORS * past.return_error
    if best is not None and lost > 0.0 and best - first > lost and best - now > lost:
        return Alarm(
            "no_progress",
            now,
            f"{count} the returns of the last ones are {now:.4g}, no better than the {first:.4g} at "
            f"first: the {best:.4g} that they had risen to is lost",
            ("lower learning_rate", "lower num_epochs", "set target_kl 0.02", "lower max_kl"),
        )
    why, cures = _what_is_foreseen(past)
    return Alarm(
        "no_progress",
        now,
        f"{count} returns have not risen ({first:.4g} at first, {now:.4g} now){why}",
        (*cures, "raise gamma", "raise total_timesteps where a task takes longer"),
    )


def _what_is_foreseen(past: Past) -> tuple[str, tuple[str, ...]]:
    """Returns what the value function tells of the task, and what that asks for."""
    found = past.last("value/explained_variance", WINDOW // 2)
    if found is None:
        return "", ("look at the task with `clipper check-env`",)
    share = median(found)
    if share > FORESEEN:
        return (
            f", though the value function foresees {100 * share:.0f} % of their variance",
            ("see that actions have an effect (`clipper check-env`)", "raise ent_coef"),
        )
    if share < UNFORESEEN:
        return (
            f", and the value function foresees {max(100 * share, 0.0):.0f} % of their variance",
            (
                "see that observations tell what rewards depend on (`clipper check-env`)",
                "set normalize_obs true",
                "set normalize_reward true",
            ),
        )
    return "", ("look at the task with `clipper check-env`",)


def _should_have_risen(past: Past, progress: float) -> bool:
    """True if so much of the run is over, and 200 episodes are."""
    episodes = past.row.get("rollout/episodes", 0.0)
    return past.progress >= progress and episodes >= FLAT_EPISODES
