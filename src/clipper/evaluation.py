"""A policy and environments in, fresh episodes and honest numbers about them out.

Episode i of an evaluation has a seed, and in stochastic mode noise, that are functions of
(evaluation seed, i) alone: how many environments step side by side changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.envs.make import Env, EnvSource, brief, where_raised
from clipper.errors import EnvironmentFault, NumericsError
from clipper.metrics import mean_and_std
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, derived_seed, normal, uniform, words

# an episode that does not end is cut here: an examination must
MAX_EPISODE_STEPS = 100_000


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

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers without the single episodes."""
        data = asdict(self)
        del data["returns"], data["lengths"]
        return data

    def __str__(self) -> str:
        mode = "deterministic" if self.deterministic else "stochastic"
        return (
            f"{self.env}: mean {self.mean:.1f}, sd {self.std:.1f}, 95 % interval {self.low:.1f} to "
            f"{self.high:.1f} ({self.episodes} episodes, {mode}, seed {self.seed})"
        )


@dataclass(frozen=True)
class Purposes:
    """Which counters an evaluation draws from; training's best agent is chosen on its own seeds."""

    episode_seed: Purpose = Purpose.EVALUATION_SEED
    action: Purpose = Purpose.EVALUATION_ACTION


EXAM = Purposes()
SELECTION = Purposes(Purpose.SELECTION_SEED, Purpose.SELECTION_ACTION)


def evaluate(
    policy: ActorCritic,
    source: EnvSource,
    *,
    episodes: int,
    seed: int,
    deterministic: bool,
    purposes: Purposes = EXAM,
    max_envs: int = 16,
) -> Evaluation:
    """Returns the result of playing `episodes` fresh episodes to their end.

    Args:
        policy: Plays with frozen normalisation.
        source: Where the environments come from.
        episodes: How many; all of them count, whenever they end.
        seed: The evaluation's seed, apart from the training seed.
        deterministic: Take the most likely action, or sample.
        purposes: Which counters to draw from.
        max_envs: Environments stepped side by side.

    Raises:
        EnvironmentFault: An environment raised.
        NumericsError: A reward or observation is not finite.
    """
    count = 1 if source.instance is not None else min(episodes, max_envs)
    envs = [source.make() for _ in range(count)]
    try:
        players = _play_all(policy, envs, source.name, episodes, seed, deterministic, purposes)
    finally:
        if source.instance is None:
            for env in envs:
                env.close()
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
    )


@dataclass(slots=True)
class _Player:
    """An environment in the middle of one numbered episode."""

    env: Env
    episode: int
    obs: NDArray[np.float32]
    total: float = 0.0
    length: int = 0


def _play_all(
    policy: ActorCritic,
    envs: list[Env],
    name: str,
    episodes: int,
    seed: int,
    deterministic: bool,
    purposes: Purposes,
) -> list[_Player]:
    seeds = derived_seed(seed, purposes.episode_seed, 0, np.arange(episodes)).tolist()
    waiting = iter(range(episodes))
    playing = [_begin(policy, env, name, next(waiting), seeds) for env in envs]
    finished: list[_Player] = []
    while playing:
        noise = None if deterministic else _noise(policy, playing, seed, purposes)
        actions = policy.act(np.stack([player.obs for player in playing]), noise)
        still: list[_Player] = []
        for player, action in zip(playing, policy.action_layout.to_env(actions), strict=True):
            if not _step(policy, player, name, action, seeds):
                still.append(player)
                continue
            finished.append(player)
            episode = next(waiting, None)
            if episode is not None:
                still.append(_begin(policy, player.env, name, episode, seeds))
        playing = still
    return sorted(finished, key=lambda player: player.episode)


def _noise(
    policy: ActorCritic, playing: list[_Player], seed: int, purposes: Purposes
) -> torch.Tensor:
    draw = normal if policy.distribution.noise == "normal" else uniform
    episodes = np.array([player.episode for player in playing])
    steps = np.array([player.length for player in playing])
    size = policy.distribution.noise_size
    return torch.from_numpy(draw(seed, purposes.action, episodes, steps, size))


def _begin(policy: ActorCritic, env: Env, name: str, episode: int, seeds: list[int]) -> _Player:
    player = _Player(env, episode, np.empty(policy.obs_layout.size, dtype=np.float32))
    try:
        obs, _ = env.reset(seed=seeds[episode])
        policy.obs_layout.write(obs, player.obs)
    except Exception as error:
        raise _fault(name, "reset", player, seeds, error) from error
    return player


def _step(policy: ActorCritic, player: _Player, name: str, action: Any, seeds: list[int]) -> bool:
    """Steps one environment and returns True if its episode ended."""
    try:
        obs, reward, terminated, truncated, _ = player.env.step(action)
        policy.obs_layout.write(obs, player.obs)
        player.total += float(reward)
    except Exception as error:
        raise _fault(name, "step", player, seeds, error) from error
    player.length += 1
    if not math.isfinite(player.total) or not np.isfinite(player.obs).all():
        raise NumericsError(
            f"rewards and observations must be finite, but {name} gave one that is not "
            f"(evaluation episode {player.episode}, step {player.length}, "
            f"seed {seeds[player.episode]})."
        )
    return bool(terminated or truncated) or player.length >= MAX_EPISODE_STEPS


def _fault(
    name: str, call: str, player: _Player, seeds: list[int], error: Exception
) -> EnvironmentFault:
    step = f" step {player.length + 1}," if call == "step" else ""
    return EnvironmentFault(
        f"{name} must not raise in {call}, but {brief(error)} (evaluation episode {player.episode},"
        f"{step} seed {seeds[player.episode]}).",
        hint=where_raised(error),
    )


def play_frames(
    policy: ActorCritic, env: Env, name: str, *, episodes: int, seed: int, deterministic: bool
) -> Iterator[tuple[NDArray[np.uint8], int, float]]:
    """Yields every rendered frame with its episode's number and return so far.

    Args:
        policy: Plays with frozen normalisation.
        env: Made with `render_mode="rgb_array"`.
        name: Name of the environment, for messages.
        episodes: How many to play; the same episodes as an evaluation with this seed.
        seed: The evaluation's seed.
        deterministic: Take the most likely action, or sample.
    """
    seeds = derived_seed(seed, EXAM.episode_seed, 0, np.arange(episodes)).tolist()
    for episode in range(episodes):
        player = _begin(policy, env, name, episode, seeds)
        ended = False
        yield _frame(env, name), episode, player.total
        while not ended:
            noise = None if deterministic else _noise(policy, [player], seed, EXAM)
            actions = policy.act(player.obs[None], noise)
            action = policy.action_layout.to_env(actions)[0]
            ended = _step(policy, player, name, action, seeds)
            yield _frame(env, name), episode, player.total


def _frame(env: Env, name: str) -> NDArray[np.uint8]:
    try:
        frame = env.render()
    except Exception as error:
        raise EnvironmentFault(
            f"{name} must not raise in render, but {brief(error)}.", hint=where_raised(error)
        ) from error
    if not isinstance(frame, np.ndarray):
        raise EnvironmentFault(
            f"{name} must render arrays with render_mode='rgb_array', but gave "
            f"{type(frame).__name__}.",
            hint="return a uint8 array [height, width, 3] from render().",
        )
    return frame


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
