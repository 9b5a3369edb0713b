"""Named numbers with units: the metrics of an iteration and the record of an episode.

A metric's name is a path such as `policy/approx_kl`, the same in the CSV file, in TensorBoard, in
callbacks and in the docs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipper.errors import FileError
from clipper.files import is_count, is_number

Metrics = dict[str, float]

DESCRIPTIONS: Mapping[str, tuple[str, str]] = {
    "rollout/episode_return": (
        "reward",
        "mean return of the last 100 training episodes, raw rewards",
    ),
    "rollout/episode_return_std": ("reward", "standard deviation of the same"),
    "rollout/episode_length": ("steps", "mean length of the same episodes"),
    "rollout/episodes": ("episodes", "training episodes finished so far"),
    "rollout/success_rate": (
        "fraction",
        "mean of is_success over the last 100 episodes that give it",
    ),
    "rollout/env_faults": ("faults", "faults of environments in workers, which were replaced"),
    "rollout/dropped_episodes": (
        "episodes",
        "episodes that ended for a number which is not finite (on_nonfinite drop-episode)",
    ),
    "rollout/reward_mean": ("reward", "mean raw reward per step of the rollout"),
    "rollout/complete_fraction": (
        "fraction",
        "rows of episodes that began and ended in the rollout (advantage total_return)",
    ),
    "rollout/truncated_fraction": ("fraction", "endings of the rollout that were truncations"),
    "loss/policy": ("", "minus the surrogate objective, mean over the iteration's updates"),
    "loss/value": ("", "mean of 0.5 (V - target)^2"),
    "loss/total": ("", "the loss that is minimised"),
    "loss/grad_norm": ("", "joint norm of the gradient before clipping"),
    "policy/entropy": ("nats", "mean entropy of the policy"),
    "policy/approx_kl": (
        "nats",
        "k3 estimate of KL(old || new), mean over the iteration's updates",
    ),
    "policy/kl": (
        "nats",
        "mean exact KL(old || new) over the rollout after the updates (KL objectives, vpg, trpo)",
    ),
    "policy/kl_coef": ("", "beta of the KL penalty in the iteration (kl_fixed, kl_adaptive)"),
    "policy/surrogate_gain": ("", "rise of the surrogate in the step that was accepted (trpo)"),
    "policy/step_fraction": (
        "fraction",
        "share of the full step that was taken, 0 if none was accepted (trpo)",
    ),
    "policy/line_search_tries": ("steps", "steps tried in the iteration (trpo)"),
    "policy/clip_fraction": ("fraction", "ratios outside 1 +- clip_range"),
    "policy/action_saturation": ("fraction", "sampled action numbers outside the bounds"),
    "policy/action_std": ("", "mean standard deviation of continuous actions, in units of [-1, 1]"),
    "policy/average_kl": ("nats", "mean KL(average policy || policy) before each update"),
    "policy/trust_region_fraction": ("fraction", "rows whose update the trust region held back"),
    "policy/epochs": ("epochs", "epochs done, fewer than num_epochs if target_kl ended them"),
    "policy/first_ratio_error": (
        "",
        "largest |ratio - 1| of the first minibatch, zero but for rounding",
    ),
    "value/explained_variance": ("fraction", "1 - Var[target - V] / Var[target]; 1 is perfect"),
    "value/target_mean": ("", "mean value target, in units of the (scaled) reward"),
    "value/target_std": ("", "standard deviation of the value targets"),
    "value/reward_scale": ("reward", "what rewards are divided by"),
    "replay/updates": ("updates", "updates from memory in the iteration"),
    "replay/timesteps": ("steps", "transitions that are remembered"),
    "replay/ratio_mean": ("", "mean importance weight of what was replayed, before truncation"),
    "replay/truncated_fraction": ("fraction", "importance weights above importance_clip"),
    "search/score_mean": ("reward", "mean return of the generation's candidates (cem)"),
    "search/score_elite": ("reward", "mean return of those it was fitted to (cem)"),
    "search/score_best": ("reward", "return of the best candidate (cem)"),
    "search/num_elites": ("candidates", "how many it was fitted to (cem)"),
    "search/std": ("", "mean standard deviation of the parameters among these (cem)"),
    "schedule/extra_std": (
        "",
        "standard deviation whose square is added to every variance (cem)",
    ),
    "schedule/learning_rate": ("", "step size in the iteration"),
    "schedule/clip_range": ("", "clip range in the iteration"),
    "eval/return_deterministic": (
        "reward",
        "mean return of the periodic evaluation, most likely action",
    ),
    "eval/return_stochastic": ("reward", "mean return of the periodic evaluation, sampled actions"),
    "alarm/kl": ("nats", "the policy moves too far: median KL of three iterations above 0.3"),
    "alarm/entropy": (
        "fraction",
        "share of its first entropy that a policy has left which has not become better",
    ),
    "alarm/saturation": (
        "fraction",
        "sampled action numbers outside the bounds, median of ten iterations, while their standard "
        "deviation grows",
    ),
    "alarm/reward": ("", "mean reward as a multiple of the largest before, above 100"),
    "alarm/scale": ("", "size of value targets of which the value function explains nothing"),
    "alarm/value_loss": (
        "",
        "value loss as a multiple of that of a constant, median of ten iterations, above 10",
    ),
    "alarm/explained_variance": (
        "fraction",
        "mean explained variance of 20 iterations, all of them below 0",
    ),
    "alarm/flat_return": (
        "reward",
        "mean return that has not risen while every episode is cut at its limit",
    ),
    "alarm/small_rewards": ("", "size of returns, below 0.01, that have not risen"),
    "alarm/no_episode": ("fraction", "share of the run in which no episode has ended"),
    "alarm/no_progress": (
        "reward",
        "median return of the last ten rows, no better than at first when half the run is over",
    ),
    "alarm/same_return": ("reward", "return of every episode so far, whatever the policy did"),
    "alarm/still": (
        "nats",
        "median KL of ten iterations, below 1e-5, of a policy that has not become better",
    ),
    "alarm/complete": (
        "fraction",
        "rows of episodes that began and ended in the rollout, where they are too few to learn from",
    ),
    "time/wall_seconds": ("s", "training time so far, evaluation and saving included"),
    "time/timesteps_per_second": ("1/s", "transitions per second of the iteration"),
}


@dataclass(slots=True)
class Episode:
    """A finished training episode.

    Not frozen, which takes three times as long to make; nobody changes it once it is handed out.

    Attributes:
        env: Index of its environment.
        index: How many episodes this environment finished before it.
        episode_return: Sum of its raw rewards.
        episode_length: Its steps.
        truncated: True if it was cut off, False if it terminated.
        step: Transitions of the run, over all environments, when it ended.
        extras: Numbers its last `info` gave: `is_success`, those of `info["episode"]` and others.
    """

    env: int
    index: int
    episode_return: float
    episode_length: int
    truncated: bool
    step: int
    extras: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Iteration:
    """What one iteration of an algorithm did.

    Attributes:
        metrics: Numbers by path, see `DESCRIPTIONS`.
        episodes: Training episodes that ended in it.
        num_timesteps: Transitions collected.
    """

    metrics: Metrics
    episodes: tuple[Episode, ...]
    num_timesteps: int


class RecentEpisodes:
    """The last 100 episodes, for curves, stopping rules and the progress display."""

    WINDOW = 100

    def __init__(self) -> None:
        self.count = 0
        self._episodes: deque[Episode] = deque(maxlen=self.WINDOW)

    def copy(self) -> RecentEpisodes:
        """Returns a copy that goes its own way."""
        other = RecentEpisodes()
        other.count = self.count
        other._episodes.extend(self._episodes)
        return other

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Adds finished episodes in order."""
        for episode in episodes:
            self._episodes.append(episode)
            self.count += 1

    @property
    def returns(self) -> list[float]:
        """Returns of the last episodes, raw rewards, oldest first."""
        return [episode.episode_return for episode in self._episodes]

    @property
    def is_full(self) -> bool:
        """True once the window holds 100 episodes."""
        return len(self._episodes) == self.WINDOW

    def metrics(self) -> Metrics:
        """Returns the means over the window; empty before the first episode ends."""
        if not self._episodes:
            return {"rollout/episodes": float(self.count)}
        mean, std = mean_and_std(self.returns)
        found = {
            "rollout/episode_return": mean,
            "rollout/episode_return_std": std,
            "rollout/episode_length": _mean([e.episode_length for e in self._episodes]),
            "rollout/episodes": float(self.count),
        }
        extras: dict[str, list[float]] = {}
        for episode in self._episodes:
            if episode.extras:
                for name, value in episode.extras.items():
                    extras.setdefault(name, []).append(value)
        for name, values in extras.items():
            path = "rollout/success_rate" if name == "is_success" else f"info/{name}"
            found[path] = _mean(values)
        return found

    def to_json(self) -> dict[str, object]:
        """Returns the window as JSON values."""
        rows = [
            [
                e.env,
                e.index,
                e.episode_return,
                e.episode_length,
                e.truncated,
                e.step,
                dict(e.extras),
            ]
            for e in self._episodes
        ]
        return {"count": self.count, "episodes": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> RecentEpisodes:
        """Returns the window that `to_json` wrote.

        Raises:
            FileError: It is something else.
        """
        recent = cls()
        rows = data.get("episodes") if isinstance(data, Mapping) else None
        if (
            not isinstance(rows, list)
            or len(rows) > cls.WINDOW
            or set(data) != _WINDOW_KEYS
            or not all(_is_episode(row) for row in rows)
        ):
            raise FileError(
                "the recent episodes of a run must be a count and at most 100 episodes."
            )
        recent.extend(Episode(*row) for row in rows)
        count: Any = data["count"]
        if not is_count(count) or count < recent.count:
            raise FileError(
                f"the count of episodes must be at least {recent.count}, but is {count!r:.80}."
            )
        recent.count = count
        return recent


_WINDOW_KEYS = {"count", "episodes"}
_EPISODE_KINDS = (int, int, float, int, bool, int, dict)


def _is_episode(row: Any) -> bool:
    """True for the values of an `Episode` as JSON."""
    if not isinstance(row, list) or len(row) != len(_EPISODE_KINDS):
        return False
    if not all(type(x) is kind for x, kind in zip(row, _EPISODE_KINDS, strict=True)):
        return False
    env, index, _, length, _, step, extras = row
    return all(map(is_count, (env, index, length, step))) and all(map(is_number, extras.values()))


def _mean(numbers: list[float]) -> float:
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:  # their sum is beyond what a float holds, their mean is not
        return math.fsum([x / len(numbers) for x in numbers])


def mean_and_std(values: Iterable[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (0 for one value, NaN for none)."""
    numbers = list(values)
    if not numbers:
        return math.nan, math.nan
    mean = _mean(numbers)
    if len(numbers) == 1:
        return mean, 0.0
    try:
        # a list, because a generator takes twice as long, and this is done in every iteration
        return mean, math.sqrt(math.fsum([(x - mean) ** 2 for x in numbers]) / (len(numbers) - 1))
    except OverflowError:  # a square is beyond what a float holds
        largest = max(map(abs, numbers))
        return mean, largest * mean_and_std([x / largest for x in numbers])[1]
