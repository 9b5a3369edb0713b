"""What the rules of alarms look at, and what they return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

# share of what returns had risen by that counts as lost
RISE_LOST = 0.05


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that goes wrong in training.

    Attributes:
        name: Its metric is `alarm/NAME`.
        value: The number that proves it.
        text: What is wrong, with that number, as a sentence without its full stop.
        cures: What mends it, one of several, as imperatives.
    """

    name: str
    value: float
    text: str
    cures: tuple[str, ...]

    def __str__(self) -> str:
        *others, last = self.cures
        return f"alarm {self.name}: {self.text}; {', '.join(others)}{', or ' * bool(others)}{last}"


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
        begins_trained: True if the policy was trained before, and may be as good as it gets.
        are_rewards_scaled: True if what the networks see of rewards does not depend on their size.
    """

    row: Row
    series: Mapping[str, Sequence[float]]
    first: Row
    base: Row | None
    largest_reward: float
    best_return: float | None
    progress: float
    are_rewards_scaled: bool = False
    begins_trained: bool = False

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
        """True if returns are better than they were, by twice the standard error; or unknown.

        Both are means of up to 100 episodes; the spread of single ones would hide what is learnt
        wherever returns are 0 or 1.
        """
        now = self.row.get("rollout/episode_return")
        if self.base is None or now is None or self.begins_trained:
            return True
        return now > self.base["rollout/episode_return"] + 2.0 * self.return_error

    @property
    def return_error(self) -> float:
        """Standard error of the difference of the mean return now and at first."""
        error = 0.0
        for row in (self.base or {}, self.row):
            count = min(max(row.get("rollout/episodes", 1.0), 1.0), 100.0)
            error += row.get("rollout/episode_return_std", 0.0) ** 2 / count
        return math.sqrt(error)

    @property
    def returns(self) -> str:
        """The mean returns that have not risen, in words."""
        if self.base is None:
            return ""
        first, now = (row["rollout/episode_return"] for row in (self.base, self.row))
        return f"({first:.4g} at first, {now:.4g} now)"

    @property
    def has_fallen(self) -> bool:
        """True if returns have lost more than a twentieth of what they had risen by, and not by chance.

        Both the rise and the fall are above twice the standard error of two means of 100 episodes.
        """
        now = self.row.get("rollout/episode_return")
        if self.base is None or self.best_return is None or now is None:
            return False
        rise = self.best_return - self.base["rollout/episode_return"]
        chance = 2.0 * self.return_error
        return rise > chance and now < self.best_return - max(RISE_LOST * rise, chance)
