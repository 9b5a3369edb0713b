"""A policy and environments in, fresh episodes and honest numbers about them out.

Episode i of an evaluation has a seed, and in stochastic mode noise, that are functions of
(evaluation seed, i) alone: how many environments step side by side changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.envs.contract import fault, first_obs, read_reward
from clipper.envs.dropping import what_is_not_finite
from clipper.envs.make import EnvSource, close_all
from clipper.envs.names import Env
from clipper.envs.raised import brief, where_raised
from clipper.errors import EnvironmentFault, NumericsError
from clipper.leaves import Rows
from clipper.metrics import mean_and_std
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, derived_seed, normal, uniform, words

# an episode that does not end is cut here: an examination must
MAX_EPISODE_STEPS = 100_000
# environments that play side by side at most, and rows the policy is asked about at once
MAX_ENVS = 16


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

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers without the single episodes; `num_cut` only where it matters."""
        data = asdict(self)
        del data["returns"], data["lengths"]
        if not self.num_cut:
            del data["num_cut"]
        return data

    def __str__(self) -> str:
        mode = "deterministic" if self.deterministic else "stochastic"
        cut = ""
        if self.num_cut:
            cut = f"; {self.num_cut} did not end and were cut after {max(self.lengths):,} steps"
        return (
            f"{self.env}: mean {self.mean:.1f}, sd {self.std:.1f}, 95 % interval {self.low:.1f} to "
            f"{self.high:.1f} ({self.episodes} episodes, {mode}, seed {self.seed}{cut})"
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
    max_steps: int | None = None,
    num_envs: int = MAX_ENVS,
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
        place: Receives, before each step, where it is taken, int64 [5]: 0, the episode, its seed, the
            step (0 for the reset), and how many were; for whoever watches from outside.

    Raises:
        EnvironmentFault: An environment raised.
        NumericsError: A reward or observation is not finite.
        ConfigError: A callable gave the same environment twice.
    """
    limit = MAX_EPISODE_STEPS
    if max_steps is not None:
        limit = min(limit, max(max_steps // episodes, 1))
    slots = 1 if source.instance is not None else min(episodes, num_envs)
    exam = _Exam(policy, source.name, episodes, seed, deterministic, slots, purposes, limit, place)
    players = exam.play(source)
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
    )


@dataclass(slots=True)
class _Player:
    """An environment in the middle of one numbered episode, whose observation is row `slot`."""

    env: Env
    episode: int
    slot: int
    obs: Rows
    total: float = 0.0
    length: int = 0
    was_cut: bool = False


class _Exam:
    """Numbered episodes of a fixed policy, as many side by side as there are environments.

    Args:
        policy: Plays with frozen normalisation.
        name: The environment's, for messages.
        episodes: How many.
        seed: The evaluation's.
        deterministic: Take the most likely action, or sample.
        num_envs: Environments side by side.
        purposes: Which counters to draw from.
        limit: Steps after which an episode is cut.
        place: Receives where each step is taken, or None.
    """

    def __init__(
        self,
        policy: ActorCritic,
        name: str,
        episodes: int,
        seed: int,
        deterministic: bool,
        num_envs: int = 1,
        purposes: Purposes = EXAM,
        limit: int = MAX_EPISODE_STEPS,
        place: NDArray[np.int64] | None = None,
    ) -> None:
        self._policy = policy
        self._name = name
        self._seed = seed
        self._seeds = derived_seed(seed, purposes.episode_seed, 0, np.arange(episodes)).tolist()
        self._deterministic = deterministic
        self._purposes = purposes
        self._limit = limit
        self._place = place
        self._num_envs = num_envs
        # always as many rows: torch rounds products of other sizes otherwise, and a walk of 1,600
        # steps makes another of a difference in the seventh digit
        self._rows = policy.obs_layout.new_rows(max(MAX_ENVS, num_envs))

    def play(self, source: EnvSource) -> list[_Player]:
        """Returns every episode after its end, in order."""
        opened = source.make_several(self._num_envs)
        try:
            return self._play(source, opened)
        finally:
            if source.instance is None:
                close_all(opened)

    def _play(self, source: EnvSource, opened: list[Env]) -> list[_Player]:
        waiting = iter(range(len(self._seeds)))
        playing = [self.begin(env, next(waiting), slot) for slot, env in enumerate(opened)]
        finished: list[_Player] = []
        while playing:
            actions = self.act(playing)
            still: list[_Player] = []
            for player in playing:
                if not self.step(player, actions[player.slot]):
                    still.append(player)
                    continue
                finished.append(player)
                episode = next(waiting, None)
                if episode is not None:
                    env = player.env
                    if source.is_fresh_per_episode:
                        opened.remove(env)
                        close_all([env])
                        opened.append(env := source.make())
                    still.append(self.begin(env, episode, player.slot))
            playing = still
        return sorted(finished, key=lambda player: player.episode)

    def act(self, playing: list[_Player]) -> Sequence[Any]:
        """Returns what each slot's environment is given next."""
        policy, rows = self._policy, self._rows
        if not np.isfinite(policy.obs_layout.numbers(rows)).all():
            for player in playing:
                self._check_finite(player, 0.0)
        noise = None if self._deterministic else self._noise(playing)
        return policy.action_layout.to_env(policy.act(rows, noise))

    def _noise(self, playing: list[_Player]) -> torch.Tensor:
        distribution = self._policy.distribution
        draw = normal if distribution.noise == "normal" else uniform
        numbers = np.zeros((2, len(self._rows)), dtype=np.int64)
        for player in playing:
            numbers[:, player.slot] = player.episode, player.length
        size = distribution.noise_size
        return torch.from_numpy(
            draw(self._seed, self._purposes.action, numbers[0], numbers[1], size)
        )

    def begin(self, env: Env, episode: int, slot: int = 0) -> _Player:
        """Returns an environment at the start of an episode."""
        player = _Player(env, episode, slot, self._rows[slot])
        self._note_place(player, 0)
        try:
            obs = first_obs(env, self._seeds[episode])
            self._policy.obs_layout.write(obs, player.obs)
        except (Exception, SystemExit) as error:
            raise self._fault("reset", player, error) from error
        self._check_finite(player, 0.0)
        return player

    def _check_finite(self, player: _Player, reward: float) -> None:
        """Raises if an observation or a reward is not finite."""
        numbers = self._policy.obs_layout.numbers(player.obs)
        if math.isfinite(reward) and np.isfinite(numbers).all():
            return
        what = what_is_not_finite(self._policy.obs_layout, player.obs, reward)
        raise NumericsError(
            f"rewards and observations must be finite, but {self._name} gave {what} (evaluation "
            f"episode {player.episode}, step {player.length}, seed {self._seeds[player.episode]})."
        )

    def step(self, player: _Player, action: Any) -> bool:
        """Steps one environment and returns True if its episode ended."""
        self._note_place(player, player.length + 1)
        try:
            obs, reward, terminated, truncated, _ = player.env.step(action)
            self._policy.obs_layout.write(obs, player.obs)
            reward = read_reward(reward)
        except (Exception, SystemExit) as error:
            raise self._fault("step", player, error) from error
        player.total += reward
        player.length += 1
        player.was_cut = player.length >= self._limit and not (terminated or truncated)
        if terminated or truncated or player.was_cut or not math.isfinite(reward):
            self._check_finite(player, reward)  # else `act` looks at all of them at once
            return True
        return False

    def _note_place(self, player: _Player, step: int) -> None:
        if (place := self._place) is not None:
            place[:] = (0, player.episode, self._seeds[player.episode], step, place[4] + 1)

    def _fault(self, call: str, player: _Player, error: BaseException) -> EnvironmentFault:
        seed = self._seeds[player.episode]
        step = f" step {player.length + 1}," if call == "step" else ""
        where = f"evaluation episode {player.episode},{step} seed {seed}"
        return fault(self._name, call, error, where)


def play_frames(
    policy: ActorCritic,
    env: Env,
    name: str,
    *,
    episodes: int,
    seed: int,
    deterministic: bool,
    remake: Callable[[], Env] | None = None,
) -> Iterator[tuple[NDArray[np.uint8], int, float]]:
    """Yields every rendered frame with its episode's number and return so far.

    Args:
        policy: Plays with frozen normalisation.
        env: Made with `render_mode="rgb_array"`.
        name: Name of the environment, for messages.
        episodes: How many to play; the same episodes as an evaluation with this seed.
        seed: The evaluation's seed.
        deterministic: Take the most likely action, or sample.
        remake: Makes a new environment for every episode but the first; None to play on in `env`.
    """
    exam = _Exam(policy, name, episodes, seed, deterministic)
    made: list[Env] = []
    try:
        for episode in range(episodes):
            if episode and remake is not None:
                close_all(made)
                made = [env := remake()]
            player = exam.begin(env, episode)
            ended = False
            yield _frame(env, name), episode, player.total
            while not ended:
                ended = exam.step(player, exam.act([player])[0])
                yield _frame(env, name), episode, player.total
    finally:
        close_all(made)


def _frame(env: Env, name: str) -> NDArray[np.uint8]:
    try:
        frame = env.render()
    except (Exception, SystemExit) as error:
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
