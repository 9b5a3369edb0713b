"""A fixed policy and environments in, fresh episodes with their returns, or their frames, out.

Episode i of an examination has a seed, and in stochastic mode noise, that are functions of
(evaluation seed, i) alone: how many environments step side by side changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, derived_seed, normal, uniform
from clipper.spaces import check_same_spaces

# an episode that does not end is cut here: an examination must
MAX_EPISODE_STEPS = 100_000
# environments that play side by side at most, and rows the policy is asked about at once
MAX_ENVS = 16


@dataclass(frozen=True)
class Purposes:
    """Which counters an evaluation draws from; training's best agent is chosen on its own seeds."""

    episode_seed: Purpose = Purpose.EVALUATION_SEED
    action: Purpose = Purpose.EVALUATION_ACTION


EXAM = Purposes()
SELECTION = Purposes(Purpose.SELECTION_SEED, Purpose.SELECTION_ACTION)


@dataclass(slots=True)
class Player:
    """An environment in the middle of one numbered episode, whose observation is row `slot`.

    `flaw` says what was not finite where the episode was dropped for it.
    """

    env: Env
    episode: int
    slot: int
    obs: Rows
    total: float = 0.0
    length: int = 0
    was_cut: bool = False
    flaw: str | None = None


class Exam:
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
        drops: An episode that gives a number which is not finite ends there with a `flaw`; otherwise it
            is an error.
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
        drops: bool = False,
    ) -> None:
        self._policy = policy
        self._name = name
        self._seed = seed
        self._seeds = derived_seed(seed, purposes.episode_seed, 0, np.arange(episodes)).tolist()
        self._deterministic = deterministic
        self._purposes = purposes
        self._limit = limit
        self._place = place
        self._drops = drops
        self._num_envs = num_envs
        # always as many rows: torch rounds products of other sizes otherwise, and a walk of 1,600
        # steps makes another of a difference in the seventh digit
        self._rows = policy.obs_layout.new_rows(max(MAX_ENVS, num_envs))

    def play(self, source: EnvSource) -> list[Player]:
        """Returns every episode after its end, in order."""
        opened = source.make_several(self._num_envs)
        try:
            self._check_spaces(opened[0])
            return self._play(source, opened)
        finally:
            if source.instance is None:
                close_all(opened)

    def _check_spaces(self, env: Env) -> None:
        """Raises if an environment, made in a process of its own perhaps, is another one by now."""
        policy = self._policy
        wanted = policy.obs_layout.space, policy.action_layout.space
        check_same_spaces(self._name, (env.observation_space, env.action_space), wanted)

    def _play(self, source: EnvSource, opened: list[Env]) -> list[Player]:
        waiting = iter(range(len(self._seeds)))
        playing = [self.begin(env, next(waiting), slot) for slot, env in enumerate(opened)]
        finished: list[Player] = []
        while playing:
            actions = self.act(playing)
            still: list[Player] = []
            for player in playing:
                if player.flaw is None and not self.step(player, actions[player.slot]):
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

    def act(self, playing: list[Player]) -> Sequence[Any]:
        """Returns what each slot's environment is given next."""
        policy, rows = self._policy, self._rows
        if not np.isfinite(policy.obs_layout.numbers(rows)).all():
            for player in playing:
                self._check_finite(player, 0.0)
        noise = None if self._deterministic else self._noise(playing)
        return policy.action_layout.to_env(policy.act(rows, noise))

    def _noise(self, playing: list[Player]) -> torch.Tensor:
        distribution = self._policy.distribution
        draw = normal if distribution.noise == "normal" else uniform
        numbers = np.zeros((2, len(self._rows)), dtype=np.int64)
        for player in playing:
            numbers[:, player.slot] = player.episode, player.length
        size = distribution.noise_size
        return torch.from_numpy(
            draw(self._seed, self._purposes.action, numbers[0], numbers[1], size)
        )

    def begin(self, env: Env, episode: int, slot: int = 0) -> Player:
        """Returns an environment at the start of an episode."""
        player = Player(env, episode, slot, self._rows[slot])
        self._note_place(player, 0)
        try:
            obs = first_obs(env, self._seeds[episode])
            self._policy.obs_layout.write(obs, player.obs)
        except (Exception, SystemExit) as error:
            raise self._fault("reset", player, error) from error
        self._check_finite(player, 0.0)
        return player

    def _check_finite(self, player: Player, reward: float) -> None:
        """Drops the episode, or raises, if its observation or reward is not finite."""
        numbers = self._policy.obs_layout.numbers(player.obs)
        if math.isfinite(reward) and np.isfinite(numbers).all():
            return
        what = what_is_not_finite(self._policy.obs_layout, player.obs, reward)
        player.flaw = (
            f"{self._name} gave {what} (evaluation episode {player.episode}, step {player.length}, "
            f"seed {self._seeds[player.episode]})."
        )
        if not self._drops:
            raise NumericsError(
                f"rewards and observations must be finite, but {player.flaw}",
                hint="find the step in its code that divides or overflows.",
            )
        player.obs[:] = 0  # the policy is asked about every row

    def step(self, player: Player, action: Any) -> bool:
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
        ended = terminated or truncated or player.was_cut or not math.isfinite(reward)
        if ended or self._drops:
            self._check_finite(player, reward)  # else `act` looks at all of them at once
        return ended or player.flaw is not None

    def _note_place(self, player: Player, step: int) -> None:
        if (place := self._place) is not None:
            place[:] = (0, player.episode, self._seeds[player.episode], step, place[4] + 1)

    def _fault(self, call: str, player: Player, error: BaseException) -> EnvironmentFault:
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
    exam = Exam(policy, name, episodes, seed, deterministic)
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
