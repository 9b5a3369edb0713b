"""An Atari game in, the same as agents learn it out: fewer, smaller, grey frames, several at a time.

The preprocessing of Mnih et al. 2015 (Nature 518, methods) as the PPO paper's runs have it. What learns
from a game, and not what the game is, is left to settings: the sign of rewards (`clip_reward`) and lost
lives (`terminal_on_life_loss`), so that training and evaluation play the same game.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from clipper.errors import EnvironmentFault

FRAME_SKIP = 4
SCREEN_SIZE = 84
STACK_SIZE = 4
MOST_NOOPS = 30
# of frames, in the games' registration, and so of steps
MOST_STEPS = 108_000 // FRAME_SKIP
_FRAMES_PER_SECOND = 60
# who asks for one of these wants the game as it is
_OF_THE_RAW_GAME = ("frameskip", "obs_type", "continuous", "sound_obs")
_STICKINESS = "repeat_action_probability"

Env = gymnasium.Env[Any, Any]
Frame = NDArray[np.uint8]


def is_atari(name: str) -> bool:
    """Returns True for the id of an Atari game, `ALE/Pong-v5` or `ale_py:ALE/Pong-v5`."""
    return name.rpartition(":")[2].startswith("ALE/")


def register_games(name: str) -> None:
    """Makes Gymnasium know the games.

    Args:
        name: Of the game that is asked for, for the message.

    Raises:
        EnvironmentFault: They are not installed.
    """
    try:
        games = importlib.import_module("ale_py")
        # without its banner
        games.ALEInterface.setLoggerMode(games.LoggerMode.Error)
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"{name} needs packages that are not installed: there is no module {error.name}.",
            hint='pip install "clipper-rl[atari]"',
        ) from None


def is_raw(env_kwargs: Mapping[str, Any]) -> bool:
    """Returns True if the arguments ask for a game without preprocessing."""
    return any(name in env_kwargs for name in _OF_THE_RAW_GAME)


def describe_game(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> list[str]:
    """Returns lines that say what is done to a game, and how often it repeats an action by itself."""
    given = {**spec.kwargs, **env_kwargs}
    lines = []
    if not is_raw(env_kwargs):
        lines.append(
            f"game: {FRAME_SKIP} frames a step, the last two of them laid over each other, grey, "
            f"{SCREEN_SIZE} x {SCREEN_SIZE}, {STACK_SIZE} steps stacked; starts with up to "
            f"{MOST_NOOPS} frames of doing nothing"
        )
    lines.append(
        f"game: {_STICKINESS} {given.get(_STICKINESS, 0.25):g}, the chance a frame that the last "
        f"action is repeated (--env-kwargs '{{\"{_STICKINESS}\": 0}}' for none)"
    )
    return lines


def make_game(spec: EnvSpec, kwargs: Mapping[str, Any], max_episode_steps: int | None) -> Env:
    """Returns a preprocessed game.

    Args:
        spec: What is registered.
        kwargs: Arguments of the game.
        max_episode_steps: Steps, of four frames each, after which an episode is truncated; None for
            the usual 27,000.
    """
    env = gymnasium.make(spec, **{**kwargs, "frameskip": 1, "obs_type": "grayscale"})
    return TimeLimit(AtariPreprocessing(env), max_episode_steps or MOST_STEPS)


class AtariPreprocessing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A game of which agents see 84 x 84 grey pixels of the last four steps, [84, 84, 4] uint8.

    An action is repeated for four frames; what is seen is the larger of the last two frames' pixels,
    because sprites flicker. An episode begins with 1 to 30 frames of doing nothing, as many as the
    seed says.

    Args:
        env: The game, made with frameskip 1.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        game: Any = env.unwrapped
        self._ale = game.ale
        self._actions = list(game._action_set)
        self._noop = self._actions[0]  # of every set of actions
        height, width = self._ale.getScreenDims()
        self._screens = np.zeros((2, height, width), dtype=np.uint8)
        self._resize = AreaResize((height, width), (SCREEN_SIZE, SCREEN_SIZE))
        # as convolutions read them
        self._frames = np.zeros((SCREEN_SIZE, SCREEN_SIZE, STACK_SIZE), dtype=np.uint8)
        self._generator = np.random.default_rng()
        self.observation_space = spaces.Box(0, 255, self._frames.shape, np.uint8)
        # the class's is everybody's
        self.metadata = {**env.metadata, "render_fps": _FRAMES_PER_SECOND // FRAME_SKIP}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Returns the first observation of a new game."""
        self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        for _ in range(int(self._generator.integers(1, MOST_NOOPS + 1))):
            self._ale.act(self._noop)
            if self._ale.game_over():
                self._ale.reset_game()
        self._ale.getScreenGrayscale(self._screens[1])
        self._frames[:] = self._resize(self._screens[1])[..., None]
        return self._frames.copy(), self._info()

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Repeats an action for four frames, fewer if the game ends; returns the raw reward."""
        ale, chosen = self._ale, self._actions[action]
        reward = 0.0
        self._screens[0] = 0
        for k in range(FRAME_SKIP):
            reward += ale.act(chosen)
            if k == FRAME_SKIP - 2:
                ale.getScreenGrayscale(self._screens[0])
            if ale.game_over():
                break
        ale.getScreenGrayscale(self._screens[1])
        # four bytes are one number, whose first byte is the oldest frame
        words = self._frames.view("<u4")
        words >>= 8
        self._frames[..., -1] = self._resize(np.maximum(*self._screens))
        terminated = bool(ale.game_over(with_truncation=False))
        return self._frames.copy(), reward, terminated, bool(ale.game_truncated()), self._info()

    def _info(self) -> dict[str, Any]:
        return {"lives": self._ale.lives()}


class AreaResize:
    """Pictures to smaller ones, every pixel the mean of the area it covers, in whole numbers.

    The weights are exact: an output pixel covers input pixels wholly or by a fraction whose
    denominator is the number of outputs. So the same bytes come out on every machine.

    Args:
        before: Height and width of what comes in.
        after: Height and width of what goes out, not larger.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        self._rows, self._columns = (_taps(n, m) for n, m in zip(before, after, strict=True))
        # outputs weigh their inputs by n / m each, in units of 1 / m
        self._area = before[0] * before[1]

    def __call__(self, picture: Frame) -> Frame:
        """Returns the smaller picture, rounded to the nearest, halves up."""
        parts = [picture[i].astype(np.int32) * weights[:, None] for i, weights in self._rows]
        rows = functools.reduce(np.add, parts)
        both = functools.reduce(np.add, [rows[:, i] * weights for i, weights in self._columns])
        found: Frame = ((2 * both + self._area) // (2 * self._area)).astype(np.uint8)
        return found


def _taps(before: int, after: int) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Returns the inputs of every output and their weights, int [after] each, one pair a tap.

    Output j covers the inputs from j n / m to (j + 1) n / m; in units of 1 / m input i lies from i m
    to (i + 1) m, and the weights of an output add up to n.
    """
    starts = np.arange(after) * before
    found = []
    for k in range(-(-before // after) + 1):
        inputs = starts // after + k
        overlap = np.minimum((inputs + 1) * after, starts + before) - np.maximum(
            inputs * after, starts
        )
        weights = np.maximum(overlap, 0).astype(np.int32)
        found.append((np.minimum(inputs, before - 1), weights))
    return [tap for tap in found if tap[1].any()]
