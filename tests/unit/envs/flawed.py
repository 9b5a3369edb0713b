"""A sound environment, and copies of it with one classic defect each."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class Sound(gymnasium.Env[Any, Any]):
    """A point that is pushed about; it falls at random, or is cut after 100 steps.

    Args:
        render_mode: None or rgb_array.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(-5.0, 5.0, (3,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self.place = np.zeros(3)
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begins somewhere."""
        super().reset(seed=seed)
        self.begin()
        return self.obs(), {}

    def begin(self) -> None:
        """Sets everything back."""
        self.place = self.np_random.uniform(-1.0, 1.0, 3)
        self.time = 0

    def step(self, action: Any) -> Any:
        """Pushes the point."""
        self.move(action)
        self.time += 1
        return self.obs(), self.reward(), self.is_fallen(), self.time >= 100, {}

    def move(self, action: Any) -> None:
        """Moves by the action and by chance."""
        push = np.array([action[0], action[1], action[0] * action[1]])
        self.place = np.tanh(0.9 * self.place + 0.3 * push + self.noise())

    def noise(self) -> Any:
        """Returns what chance adds."""
        return self.np_random.normal(0.0, 0.1, 3)

    def obs(self) -> Any:
        """Returns the observation."""
        return self.place.astype(np.float32)

    def reward(self) -> Any:
        """Returns the reward."""
        return -float(np.abs(self.place).sum())

    def is_fallen(self) -> Any:
        """Returns whether the episode terminates."""
        return bool(self.np_random.random() < 0.01)

    def render(self) -> Any:
        """Returns a picture."""
        return np.full((8, 8, 3), 100, dtype=np.uint8)


class NanLate(Sound):
    def obs(self) -> Any:
        return super().obs() * (np.float32(np.nan) if self.time == 50 else 1)


class TooLargeForFloat32(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def obs(self) -> Any:
        return self.place * (1e45 if self.time == 20 else 1)


class ShapeLate(Sound):
    def obs(self) -> Any:
        return super().obs()[: 2 if self.time == 50 else 3]


class DtypeLate(Sound):
    def obs(self) -> Any:
        return self.place if self.time == 50 else super().obs()


class ListLate(Sound):
    def obs(self) -> Any:
        return super().obs().tolist() if self.time == 50 else super().obs()


class NoneLate(Sound):
    def obs(self) -> Any:
        return None if self.time == 50 else super().obs()


class Nested(Sound):
    """Sound, with a Dict of everything."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Dict(
            {
                "body": spaces.Tuple((spaces.Box(-5.0, 5.0, (3,), np.float32),)),
                "clock": spaces.Discrete(101),
            }
        )
        self.action_space = spaces.MultiDiscrete([3, 3], start=[-1, -1])

    def obs(self) -> Any:
        return {"body": (super().obs(),), "clock": self.time}


class NestedNan(Nested):
    def obs(self) -> Any:
        found = super().obs()
        return {**found, "body": (found["body"][0] * np.nan,)} if self.time == 30 else found


class NestedMissing(Nested):
    def obs(self) -> Any:
        found = super().obs()
        return {"body": found["body"]} if self.time == 30 else found


class NestedOutside(Nested):
    def obs(self) -> Any:
        return {**super().obs(), "clock": self.time + 5}


class OutsideSpace(Sound):
    def obs(self) -> Any:
        return super().obs() * np.float32(10)


class Reused(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.buffer = np.zeros(3, np.float32)

    def obs(self) -> Any:
        self.buffer[:] = self.place
        return self.buffer


class UnseededGenerator(Sound):
    def begin(self) -> None:
        super().begin()
        self.place = np.random.default_rng().uniform(-1.0, 1.0, 3)


class SeedUnused(Sound):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(options=options)


class GlobalNumpy(Sound):
    def noise(self) -> Any:
        return np.random.normal(0.0, 0.1, 3)


class GlobalRandom(Sound):
    def noise(self) -> Any:
        return random.gauss(0.0, 0.1)


class Clock(Sound):
    def noise(self) -> Any:
        return (time.perf_counter_ns() % 1000) / 1e4


class SameWithoutSeed(Sound):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=0 if seed is None else seed)


class SeedWithoutUse(Sound):
    """Nothing in it is left to chance."""

    def begin(self) -> None:
        self.place, self.time = np.zeros(3), 0

    def noise(self) -> Any:
        return 0.0

    def is_fallen(self) -> Any:
        return bool(self.place[0] > 0.8)


class Leaky(Sound):
    """The wind of the last episode blows on."""

    wind = 0.0

    def begin(self) -> None:
        self.wind += 0.001
        super().begin()

    def noise(self) -> Any:
        return super().noise() + self.wind


class NoRestart(Sound):
    def begin(self) -> None:
        if self.time == 0:
            super().begin()


class CounterGoesOn(Sound):
    """Its limit counts all steps of its life."""

    def begin(self) -> None:
        time = self.time
        super().begin()
        self.time = time

    def is_fallen(self) -> Any:
        return False


class CounterShown(Sound):
    """So does its clock, which is observed."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(-5.0, 5000.0, (3,), np.float32)
        self.life = 0

    def move(self, action: Any) -> None:
        super().move(action)
        self.life += 1

    def obs(self) -> Any:
        found = super().obs()
        found[2] = self.life / 1000
        return found


class SharedPlace(Sound):
    """One simulation for all instances."""

    world: ClassVar[dict[str, Any]] = {}

    @property
    def place(self) -> Any:
        return self.world["place"]

    @place.setter
    def place(self, value: Any) -> None:
        self.world["place"] = value


class ClosesAll(Sound):
    """One connection for all instances, which the first that is closed ends."""

    world: ClassVar[dict[str, Any]] = {"num": 0}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.world["is_open"] = True

    def move(self, action: Any) -> None:
        if not self.world["is_open"]:
            raise ConnectionError("not connected to the simulator")
        super().move(action)

    def close(self) -> None:
        self.world["is_open"] = False


class OneOnly(Sound):
    """One simulation for a process; a second is refused."""

    open_now: ClassVar[set[int]] = set()

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        if self.open_now:
            raise RuntimeError("the simulator is in use")
        self.open_now.add(id(self))

    def close(self) -> None:
        self.open_now.discard(id(self))


class OnceOnly(Sound):
    """Cannot be made again after it was closed."""

    was_closed: ClassVar[list[bool]] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        if self.was_closed:
            raise OSError("the port is in use")

    def close(self) -> None:
        self.was_closed.append(True)


class CloseRaises(Sound):
    def close(self) -> None:
        raise AttributeError("no window")


class ActionMutated(Sound):
    def move(self, action: Any) -> None:
        action *= 0.5
        super().move(action)


class RewardNone(Sound):
    def reward(self) -> Any:
        return None if self.time == 20 else super().reward()


class RewardArray(Sound):
    def reward(self) -> Any:
        return np.array([super().reward()])


class RewardText(Sound):
    def reward(self) -> Any:
        return str(super().reward())


class RewardInfinite(Sound):
    def reward(self) -> Any:
        return -np.inf if self.time == 40 else super().reward()


class RewardTooLarge(Sound):
    def reward(self) -> Any:
        return 1e39 if self.time == 40 else super().reward()


class RewardZero(Sound):
    def reward(self) -> Any:
        return 0.0


class RewardHuge(Sound):
    def reward(self) -> Any:
        return 1e5 * super().reward()


class NeverEnds(Sound):
    def step(self, action: Any) -> Any:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, False, info


class LimitTerminates(Sound):
    def step(self, action: Any) -> Any:
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, truncated, False, info


class AlwaysBoth(Sound):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, terminated or truncated, info


class FlagsNone(Sound):
    def is_fallen(self) -> Any:
        return None


class FlagsInt(Sound):
    def is_fallen(self) -> Any:
        return int(super().is_fallen())


class FlagsArray(Sound):
    def is_fallen(self) -> Any:
        return np.array([super().is_fallen()])


class InfoList(Sound):
    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], []


class ResetInfoList(Sound):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0], []


class ResetObsOnly(Sound):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class ResetOldSignature(Sound):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class ResetRaises(Sound):
    def begin(self) -> None:
        if self.time:
            raise KeyError("level 2")
        super().begin()


class StepOfFour(Sound):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class RaisesAtHigh(Sound):
    """Fails at the edge of the space, where random actions never are."""

    def move(self, action: Any) -> None:
        if action[0] >= 1.0:
            raise IndexError("index 10 is out of bounds for axis 0 with size 10")
        super().move(action)


class RaisesLate(Sound):
    def move(self, action: Any) -> None:
        if self.time == 60:
            raise ZeroDivisionError("float division by zero")
        super().move(action)


class WideActions(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Box(-1000.0, 1000.0, (2,), np.float32)

    def move(self, action: Any) -> None:
        super().move(action / 1000)


class LopsidedActions(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Box(0.0, 1.0, (2,), np.float32)


class UnboundedActions(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class HugeObs(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def obs(self) -> Any:
        return super().obs() * np.array([1, 1, 1e5], np.float32)


class ConstantColumn(Sound):
    def obs(self) -> Any:
        return super().obs() * np.array([1, 0, 1], np.float32)


class ConstantObs(Sound):
    def obs(self) -> Any:
        return np.ones(3, np.float32)


class ActionsIgnored(Sound):
    def move(self, action: Any) -> None:
        super().move(np.zeros(2))


class OneStepIgnored(ActionsIgnored):
    """Episodes of one step, of which many are needed to tell."""

    def is_fallen(self) -> bool:
        return True


class ActionsLate(ActionsIgnored):
    """Actions count from the tenth step on: that is enough."""

    def move(self, action: Any) -> None:
        if self.time < 10:
            super().move(action)
        else:
            Sound.move(self, action)


class Cue(Sound):
    """Shows at the start alone which way is up."""

    def begin(self) -> None:
        super().begin()
        self.cue = self.np_random.choice([-1.0, 1.0])

    def obs(self) -> Any:
        return super().obs() * np.array([1, self.cue if self.time == 0 else 0.0, 1], np.float32)


class SpaceChanges(Sound):
    def begin(self) -> None:
        super().begin()
        self.observation_space = spaces.Box(-6.0, 6.0, (3,), np.float32)


class SpacesDiffer(Sound):
    made: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.made.append(1)
        self.observation_space = spaces.Box(-5.0, 5.0 + len(self.made), (3,), np.float32)


class TupleActions(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Tuple((spaces.Box(-1.0, 1.0), spaces.Box(-1.0, 1.0)))

    def move(self, action: Any) -> None:
        super().move([float(action[0][0]), float(action[1][0])])


class RenderNone(Sound):
    def render(self) -> Any:
        return None


class RenderFloat(Sound):
    def render(self) -> Any:
        return np.zeros((8, 8, 3))


class RenderRefused(Sound):
    def __init__(self) -> None:
        super().__init__()


class RenderUndeclared(Sound):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("human")


class Slow(Sound):
    def move(self, action: Any) -> None:
        time.sleep(0.004)
        super().move(action)


class SlowReset(Sound):
    def begin(self) -> None:
        time.sleep(0.05)
        super().begin()


class LeaksThreads(Sound):
    def begin(self) -> None:
        super().begin()
        threading.Thread(target=time.sleep, args=(20.0,), daemon=True).start()


class LeaksMemory(Sound):
    kept: ClassVar[list[Any]] = []

    def begin(self) -> None:
        super().begin()
        self.kept.append(np.ones(250_000))


class InitRaises(Sound):
    def __init__(self, render_mode: str | None = None) -> None:
        raise FileNotFoundError("level1.dat")


class Exits(Sound):
    def move(self, action: Any) -> None:
        if self.time == 7:
            os._exit(9)
        super().move(action)


class Segfaults(Sound):
    def move(self, action: Any) -> None:
        if self.time == 7:
            ctypes.string_at(0)
        super().move(action)


class Hangs(Sound):
    def move(self, action: Any) -> None:
        if self.time == 7:
            time.sleep(60)
        super().move(action)


class SecondSegfaults(Sound):
    num: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.num.append(1)
        if len(self.num) == 2:
            ctypes.string_at(0)
