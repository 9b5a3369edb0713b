"""Environments that are seen in pixels, with known best returns, small enough to learn in seconds."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 10


class Catch(gymnasium.Env[Any, Any]):
    """A ball falls from the top of 10 x 10 pixels; a paddle in the lowest row moves to catch it.

    Actions: left, stay, right. The reward is +1 for a caught ball and -1 for a lost one, at the end
    of the ninth step; from every start the best return is 1, because the paddle begins in the middle
    and can reach every column in nine steps.

    Args:
        form: What the observation is: `last` uint8 [10, 10, 1], `first` uint8 [1, 10, 10], `plane`
            uint8 [10, 10], `float` float32 [10, 10, 1] from 0 to 1, or `dict`, whose image shows the
            ball alone, beside the paddle's column as one number.
        render_mode: `rgb_array` or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 9}  # noqa: RUF012

    def __init__(self, form: str = "last", render_mode: str | None = None) -> None:
        self.form = form
        self.render_mode = render_mode
        shape = {"first": (1, SIDE, SIDE), "plane": (SIDE, SIDE)}.get(form, (SIDE, SIDE, 1))
        image = spaces.Box(0, 255, shape, np.uint8)
        if form == "float":
            image = spaces.Box(0.0, 1.0, shape, np.float32)
        self.observation_space: spaces.Space[Any] = image
        if form == "dict":
            column = spaces.Box(-1.0, 1.0, (1,))
            self.observation_space = spaces.Dict(camera=image, paddle=column)
        self.action_space: spaces.Space[Any] = spaces.Discrete(3)
        self._shape = shape

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Drops a ball from a random column."""
        super().reset(seed=seed)
        self.ball = int(self.np_random.integers(SIDE))
        self.height = 0
        self.paddle = SIDE // 2
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        """Moves the paddle, then the ball."""
        self.paddle = min(max(self.paddle + int(action) - 1, 0), SIDE - 1)
        self.height += 1
        done = self.height == SIDE - 1
        reward = (1.0 if self.ball == self.paddle else -1.0) if done else 0.0
        return self._obs(), reward, done, False, {}

    def render(self) -> Any:
        """Returns ball and paddle, eight pixels for one."""
        plane = self._plane(True).repeat(8, 0).repeat(8, 1)
        return plane[..., None].repeat(3, -1)

    def _plane(self, has_paddle: bool) -> Any:
        plane = np.zeros((SIDE, SIDE), np.uint8)
        plane[self.height, self.ball] = 255
        if has_paddle:
            plane[SIDE - 1, self.paddle] = 255
        return plane

    def _obs(self) -> Any:
        image = self._plane(self.form != "dict").reshape(self._shape)
        if self.form == "float":
            return (image / np.float32(255)).astype(np.float32)
        if self.form == "dict":
            place = np.array([self.paddle / (SIDE - 1) * 2 - 1], np.float32)
            return {"camera": image, "paddle": place}
        return image


class CatchBeside(Catch):
    """Catch whose paddle is a number beside the image."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("dict", render_mode)


class Lives(gymnasium.Env[Any, Any]):
    """Three lives of four steps each; every step is a reward of 5, and the info counts the lives."""

    def __init__(self) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(0.0, 12.0, (1,))
        self.action_space: spaces.Space[Any] = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begins with three lives."""
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"lives": 3}

    def step(self, action: Any) -> Any:
        """Loses a life in every fourth step."""
        self.count += 1
        lives = 3 - self.count // 4
        obs = np.full(1, self.count, np.float32)
        return obs, 5.0, lives == 0, False, {"lives": lives}
