"""Environments with known answers: each can be solved only if one part of the method is right.

With gamma 0.9 every value below is exact. Observations are small, episodes short.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ONE = np.ones(1, dtype=np.float32)


class Probe(gymnasium.Env[Any, Any]):
    """One observation that is always 1, and two actions that do nothing."""

    def __init__(self) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (1,))
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Returns the first observation."""
        super().reset(seed=seed)
        return self.begin(), {}

    def begin(self) -> Any:
        """Returns the first observation of an episode."""
        return ONE


class ConstantReward(Probe):
    """Reward 1, then the end: V = 1."""

    def step(self, action: Any) -> Any:
        """Ends."""
        return ONE, 1.0, True, False, {}


class ObservationReward(Probe):
    """The observation is +1 or -1 at random and is the reward: V(x) = x."""

    def begin(self) -> Any:
        """Draws the sign."""
        self.sign = np.float32(self.np_random.choice([-1.0, 1.0]))
        return np.array([self.sign])

    def step(self, action: Any) -> Any:
        """Ends."""
        return ONE * 0, float(self.sign), True, False, {}


class TwoSteps(Probe):
    """Observation 0, then 1, then the end with reward 1: V(0) = 0.9, V(1) = 1."""

    def begin(self) -> Any:
        """Begins at 0."""
        self.at = 0
        return ONE * 0

    def step(self, action: Any) -> Any:
        """Goes on to 1, then ends."""
        self.at += 1
        return ONE, float(self.at == 2), self.at == 2, False, {}


class ActionReward(Probe):
    """Action 1 is worth 1, action 0 is worth -1."""

    def step(self, action: Any) -> Any:
        """Ends."""
        return ONE, 1.0 if action == 1 else -1.0, True, False, {}


class BothReward(ObservationReward):
    """Action 1 is right where the observation is +1, action 0 where it is -1: 1 or -1."""

    def step(self, action: Any) -> Any:
        """Ends."""
        return ONE * 0, 1.0 if (action == 1) == (self.sign > 0) else -1.0, True, False, {}


class LaterReward(Probe):
    """Observation 0; the action there decides the next one, +1 or -1, and that is its reward.

    Only an estimator that looks further than the reward of the step itself finds action 1 at 0.
    """

    def begin(self) -> Any:
        """Begins at 0."""
        self.sign = 0.0
        return ONE * 0

    def step(self, action: Any) -> Any:
        """Goes to one side with no reward, then ends with the reward of that side."""
        if self.sign == 0:
            self.sign = 1.0 if action == 1 else -1.0
            return ONE * np.float32(self.sign), 0.0, False, False, {}
        return ONE * np.float32(self.sign), self.sign, True, False, {}


class Forever(Probe):
    """Reward 1 at every step and no end of its own: V = 1 / (1 - 0.9) = 10, wherever it is cut."""

    def step(self, action: Any) -> Any:
        """Goes on."""
        return ONE, 1.0, False, False, {}


class Countdown(Probe):
    """Reward 1 for n steps and a true end: with k steps left V = (1 - 0.9^k) / 0.1.

    The observation says how many are left, as one of n categories: k - 1.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.observation_space = spaces.Discrete(n)

    def begin(self) -> Any:
        """Begins with n steps left."""
        self.left = self.n
        return self.left - 1

    def step(self, action: Any) -> Any:
        """Has one step less."""
        self.left -= 1
        return max(self.left - 1, 0), 1.0, self.left == 0, False, {}


class Trap(Probe):
    """From the first observation (0) a step costs 30; then reward 1 for ever; cut after 4 steps.

    V(1) = 10 and V(0) = -30 + 0.9 x 10 = -21. Whoever takes the value of the observation after the
    reset for that of the step's end has V(1) far below: with x the share of cut steps, V(1) tends
    to 1 + 0.9 ((1 - x) V(1) + x V(0)).
    """

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Discrete(2)

    def begin(self) -> Any:
        """Begins at 0."""
        self.steps = 0
        return 0

    def step(self, action: Any) -> Any:
        """Falls, then stays."""
        self.steps += 1
        return 1, -30.0 if self.steps == 1 else 1.0, False, self.steps == 4, {}


class Bounds(Probe):
    """The best action lies on the bounds: the highest of [-3, 5] and the lowest of [10, 12].

    The reward is linear, so a policy that is not held at the door walks out of the box.
    """

    def __init__(self) -> None:
        super().__init__()
        low, high = np.array([-3, 10], np.float32), np.array([5, 12], np.float32)
        self.action_space = spaces.Box(low, high)

    def step(self, action: Any) -> Any:
        """Ends; an action outside the box, or of another type, is an error."""
        assert action.dtype == np.float32
        assert self.action_space.contains(action), action
        return ONE, float((action[0] - 1) / 4 - (action[1] - 11)), True, False, {}


class Numbered(Probe):
    """Actions are numbered 5, 6, 7 and the middle one is right."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(3, start=5)
        self.seen: set[int] = set()

    def step(self, action: Any) -> Any:
        """Ends; an action that is not in the space is an error."""
        assert self.action_space.contains(action), action
        return ONE, float(action == 6), True, False, {}
