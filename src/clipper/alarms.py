"""Rows of metrics in, alarms out: what goes wrong in training, the number that proves it, the cure.

Every rule is a pure function of the rows so far. Thresholds stand beside the numbers that healthy runs
of the presets reach (docs/concepts/alarms.md), with room between; a rule whose metrics an algorithm
does not report is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

Row = Mapping[str, float]

WINDOW = 20
"""Numbers of every metric that are looked back on."""
KEPT = (
    "policy/approx_kl",
    "policy/entropy",
    "policy/action_std",
    "policy/action_saturation",
    "rollout/episode_return",
    "rollout/episode_return_std",
    "rollout/episodes",
    "rollout/complete_fraction",
    "rollout/reward_mean",
    "rollout/truncated_fraction",
    "loss/value",
    "value/explained_variance",
    "value/target_mean",
    "value/target_std",
)

# median of three rows; a mean over updates of 0.005 to 0.03 is what a clip range of 0.2 makes
KL_LIMIT = 0.3
# share of what the policy began with that is left, while returns have not risen
ENTROPY_LEFT = 0.05
STD_LEFT = 0.1
# median of ten rows of the share of actions drawn outside their bounds, their standard deviation as a
# multiple of the first, and the share of what returns had risen by that is lost
SATURATION_LIMIT = 0.25
STD_GROWTH = 1.25
RISE_LOST = 0.05
# times the largest mean reward of a row so far
REWARD_JUMP = 100.0
# median of ten rows of the loss, in units of what a constant would have
VALUE_LOSS_LIMIT = 10.0
# mean of the last rows, none of which is above 0
EXPLAINED_VARIANCE_LIMIT = -0.1
# episodes, and the share of the run, after which returns should have risen
FLAT_EPISODES = 200
FLAT_PROGRESS = 0.25
# median of ten rows, before the last tenth of the run, whose steps a schedule may end at 0
STILL_LIMIT = 1e-5
STILL_PROGRESS = 0.9
# median of three rows
COMPLETE_LIMIT = 0.25


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that goes wrong in training.

    Attributes:
        name: Its metric is `alarm/NAME`.
        value: The number that proves it.
        text: What is wrong, with that number, as a sentence without its full stop.
        cure: The setting that mends it, as an imperative.
    """

    name: str
    value: float
    text: str
    cure: str

    def __str__(self) -> str:
        return f"alarm {self.name}: {self.text}; {self.cure}"


@dataclass(frozen=True, slots=True)
class Past:
    """What the rules look at.

    Attributes:
        row: The newest row.
        series: The last `WINDOW` numbers of every metric, the newest last, by its name.
        first: The first row of the run.
        base: The first row after 20 episodes, or None before.
        largest_reward: The largest absolute mean reward of a row before this one, 0 for none.
        best_return: The best mean return of a row since `base`, or None.
        progress: Share of the run that is done, 0 to 1.
    """

    row: Row
    series: Mapping[str, Sequence[float]]
    first: Row
    base: Row | None
    largest_reward: float
    best_return: float | None
    progress: float

    def last(self, name: str, count: int) -> Sequence[float] | None:
        """Returns the last numbers of a metric of the newest row, or None if there are not so many."""
        found = self.series.get(name, ())
        return found[-count:] if len(found) >= count and name in self.row else None

    def target_scales(self, count: int) -> list[tuple[float, float]] | None:
        """Returns the standard deviation of the last value targets, and a tenth of their mean.

        The second is counted as spread beside the first: a task that is solved has targets that hardly
        differ, and errors that are large by their deviation and small by any other measure.
        """
        stds, means = self.last("value/target_std", count), self.last("value/target_mean", count)
        if stds is None or means is None:
            return None
        if self.largest_reward == 0.0 == self.row.get("rollout/reward_mean"):
            return None  # no reward has come yet: targets are what the network began with
        # of targets that are all 0 nothing can be said
        return [(std, max(0.1 * abs(mean), 1e-9)) for std, mean in zip(stds, means, strict=True)]

    @property
    def has_risen(self) -> bool:
        """True if returns are better than they were, by more than their first spread; or unknown."""
        now = self.row.get("rollout/episode_return")
        if self.base is None or now is None:
            return True
        first, spread = (self.base[f"rollout/episode_return{end}"] for end in ("", "_std"))
        return now > first + spread

    @property
    def has_fallen(self) -> bool:
        """True if returns have lost more than a twentieth of what they had risen by."""
        now = self.row.get("rollout/episode_return")
        if self.base is None or self.best_return is None or now is None:
            return False
        rise = self.best_return - self.base["rollout/episode_return"]
        return rise > 0.0 and now < self.best_return - RISE_LOST * rise


def kl_alarm(past: Past) -> Alarm | None:
    """The policy moves too far in an iteration: KL(old || new) is above 0.3 nats."""
    found = past.last("policy/approx_kl", 3)
    if found is None or not (kl := median(found)) > KL_LIMIT:
        return None
    return Alarm(
        "kl",
        kl,
        f"the policy moves by a KL of {kl:.3g} nats in an iteration, where 0.005 to 0.03 is usual",
        "lower learning_rate or num_epochs, or set target_kl 0.02",
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
        "risen",
        "raise ent_coef, or lower learning_rate",
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
        "begin with less noise (log_std_init -1), lower ent_coef, or stop sooner (total_timesteps)",
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
        "look for a step of the environment that divides or sums up without a limit; "
        "normalize_reward softens it",
    )


def value_loss_alarm(past: Past) -> Alarm | None:
    """The value function diverges: its loss is ten times that of a constant, and stays there."""
    losses = past.last("loss/value", WINDOW)
    scales = past.target_scales(WINDOW // 2)
    if losses is None or scales is None:
        return None
    pairs = zip(losses[-len(scales) :], scales, strict=True)
    value = median(2.0 * loss / (std**2 + floor**2) for loss, (std, floor) in pairs)
    if not value > VALUE_LOSS_LIMIT:
        return None
    return Alarm(
        "value_loss",
        value,
        f"the value function diverges: its loss is {value:.3g} times that of a constant",
        "lower learning_rate and max_grad_norm, or set normalize_reward",
    )


def explained_variance_alarm(past: Past) -> Alarm | None:
    """The value function has long been worse than a constant."""
    raw = past.last("value/explained_variance", WINDOW)
    if raw is None or max(raw) > 0.0 or (scales := past.target_scales(WINDOW)) is None:
        return None
    # what is left unexplained, (1 - x) std^2, may be next to nothing where targets hardly differ
    found = [
        1.0 - (1.0 - x) * std**2 / (std**2 + floor**2)
        for x, (std, floor) in zip(raw, scales, strict=True)
    ]
    if max(found) > 0.0 or not (mean := fmean(found)) < EXPLAINED_VARIANCE_LIMIT:
        return None
    return Alarm(
        "explained_variance",
        mean,
        f"the value function explains {mean:.2f} of the variance of its targets over {WINDOW} "
        "iterations: a constant would do better",
        "set normalize_obs and normalize_reward, raise num_epochs, or lower gamma",
    )


def flat_return_alarm(past: Past) -> Alarm | None:
    """Every episode runs into its limit, and returns are what they were at the start."""
    found = past.last("rollout/truncated_fraction", WINDOW // 2)
    now = past.row
    if (
        found is None
        or min(found) < 1.0
        or past.progress < FLAT_PROGRESS
        or past.has_risen
        or now["rollout/episodes"] < FLAT_EPISODES
    ):
        return None
    value = now["rollout/episode_return"]
    return Alarm(
        "flat_return",
        value,
        f"every episode is cut at its limit, and after {now['rollout/episodes']:,.0f} of them the "
        f"mean return is {value:.4g}, no better than at the start",
        "reward progress towards the goal, begin nearer to it, or raise ent_coef (log_std_init for "
        "continuous actions) so that it is found",
    )


def same_return_alarm(past: Past) -> Alarm | None:
    """All episodes have had one return, whatever the policy did; they end by themselves."""
    stds = past.last("rollout/episode_return_std", WINDOW)
    cut = past.last("rollout/truncated_fraction", 1)
    now = past.row
    if (
        stds is None
        or past.base is None
        or max(stds) > 0.0
        or past.base["rollout/episode_return_std"] > 0.0
        or past.best_return != past.base["rollout/episode_return"]
        or past.progress < FLAT_PROGRESS
        or now["rollout/episodes"] < FLAT_EPISODES
        or (cut is not None and cut[0] == 1.0)  # `flat_return` has more to say
    ):
        return None
    value = now["rollout/episode_return"]
    return Alarm(
        "same_return",
        value,
        f"all of {now['rollout/episodes']:,.0f} episodes have returned {value:.4g}: there is nothing "
        "to tell better actions from worse ones",
        "see that step returns the reward it computes (`clipper check-env`), reward progress towards "
        "the goal, or begin nearer to it",
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
        "returns have not risen",
        "raise learning_rate or num_epochs; a module's outputs must depend on its parameters",
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
        "raise num_steps beyond the length of episodes, or set advantage gae",
    )


RULES: tuple[Callable[[Past], Alarm | None], ...] = (
    kl_alarm,
    entropy_alarm,
    saturation_alarm,
    reward_alarm,
    value_loss_alarm,
    explained_variance_alarm,
    flat_return_alarm,
    same_return_alarm,
    still_alarm,
    complete_alarm,
)


def alarms_of(past: Past) -> list[Alarm]:
    """Returns what all rules say of the newest row."""
    return [alarm for rule in RULES if (alarm := rule(past)) is not None]
