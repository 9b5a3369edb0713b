"""A policy and environments in, fresh episodes and honest numbers about them out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.envs.make import EnvSource
from clipper.errors import NumericsError
from clipper.exam import EXAM, MAX_ENVS, MAX_EPISODE_STEPS, Exam, Purposes
from clipper.metrics import mean_and_std
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, words


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Returns of fresh episodes of a fixed policy.

    Attributes:
        env: Name of the environment.
        episodes: How many were played.
        seed: The evaluation's seed.
        deterministic: True if the most likely action was taken, False if actions were sampled.
        mean: Mean return, raw rewards.
        std: Sample standard deviation of the returns.
        low: Lower end of a 95 % bootstrap interval of the mean.
        high: Upper end of it.
        returns: Every episode's return.
        lengths: Every episode's steps.
        num_cut: How many episodes were cut here because they did not end; their returns, and so the
            mean, are those of unfinished episodes.
        dropped: What was not finite in each episode that was left out for it; no other number here has
            anything of them. Only periodic evaluations with `on_nonfinite` `drop-episode` leave out any.
    """

    env: str
    episodes: int
    seed: int
    deterministic: bool
    mean: float
    std: float
    low: float
    high: float
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    num_cut: int = 0
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers without the single episodes; `num_cut` only where it matters.

        One episode has no spread: deviation and interval are None.
        """
        data = asdict(self)
        del data["returns"], data["lengths"], data["dropped"]
        if self.episodes == 1:
            data |= dict.fromkeys(("std", "low", "high"))
        if not self.num_cut:
            del data["num_cut"]
        return data

    def __str__(self) -> str:
        mode = "deterministic" if self.deterministic else "stochastic"
        cut = ""
        if self.num_cut:
            cut = f"; {self.num_cut} did not end and were cut after {max(self.lengths):,} steps"
        how = f"{mode}, seed {self.seed}{cut}"
        if self.episodes == 1:
            return f"{self.env}: return {self.mean:.1f} (1 episode, {how})"
        return (
            f"{self.env}: mean {self.mean:.1f}, sd {self.std:.1f}, 95 % interval {self.low:.1f} to "
            f"{self.high:.1f} ({self.episodes} episodes, {how})"
        )


def evaluate(
    policy: ActorCritic,
    source: EnvSource,
    *,
    episodes: int,
    seed: int,
    deterministic: bool,
    purposes: Purposes = EXAM,
    max_steps: int | None = None,
    num_envs: int = MAX_ENVS,
    drops: bool = False,
    place: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Returns the result of playing `episodes` fresh episodes to their end.

    Args:
        policy: Plays with frozen normalisation.
        source: Where the environments come from.
        episodes: How many; all of them count, whenever they end.
        seed: The evaluation's seed, apart from the training seed.
        deterministic: Take the most likely action, or sample.
        purposes: Which counters to draw from.
        max_steps: Steps of the whole examination, or None. Each episode has an equal share, so that
            the result does not depend on who plays beside whom; one that needs more is cut.
        num_envs: Environments stepped side by side at most, which changes no result.
        drops: Leave out episodes that give a number which is not finite.
        place: Receives, before each step, where it is taken, int64 [5]: 0, the episode, its seed, the
            step (0 for the reset), and how many were; for whoever watches from outside.

    Raises:
        EnvironmentFault: An environment raised.
        NumericsError: A reward or observation is not finite; with `drops`, in every episode.
        ConfigError: A callable gave the same environment twice.
    """
    limit = MAX_EPISODE_STEPS
    if max_steps is not None:
        limit = min(limit, max(max_steps // episodes, 1))
    slots = 1 if source.instance is not None else min(episodes, num_envs)
    exam = Exam(
        policy, source.name, episodes, seed, deterministic, slots, purposes, limit, place, drops
    )
    played = exam.play(source)
    players = [player for player in played if player.flaw is None]
    flaws = tuple(player.flaw for player in played if player.flaw is not None)
    if not players:
        raise NumericsError(
            f"an evaluation must have an episode of finite numbers, but none of {episodes} was: "
            f"{flaws[0]}",
            hint="find the step in its code that divides or overflows.",
        )
    returns = tuple(player.total for player in players)
    mean, std = mean_and_std(returns)
    low, high = bootstrap_interval(np.array(returns), seed)
    return Evaluation(
        env=source.name,
        episodes=episodes,
        seed=seed,
        deterministic=deterministic,
        mean=mean,
        std=std,
        low=low,
        high=high,
        returns=returns,
        lengths=tuple(player.length for player in players),
        num_cut=sum(player.was_cut for player in players),
        dropped=flaws,
    )


def bootstrap_interval(
    values: NDArray[np.float64], seed: int, *, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean (Efron 1979).

    Args:
        values: Independent numbers.
        seed: The resamples are a function of it.
        resamples: How many.
        level: Coverage.
    """
    size = len(values)
    means = np.empty(resamples)
    block = max(1, 1_000_000 // size)
    for start in range(0, resamples, block):
        index = np.arange(start, min(start + block, resamples))
        bits = words(seed, Purpose.BOOTSTRAP, 0, index, size)
        chosen = (bits * np.uint64(size)) >> np.uint64(32)
        means[index] = values[chosen.astype(np.int64)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
