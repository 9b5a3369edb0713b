"""Laws of the probe: it finds environments whose episodes depend on earlier ones, and only those."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from clipper.envs.make import env_source
from clipper.envs.probe import depends_on_past
from clipper.envs.vector import VectorEnv
from clipper.randomness import EpisodeSeeds


class Remembers(gymnasium.Env[Any, Any]):
    """Shows what it remembers of earlier episodes where it is told to.

    Args:
        shown: "obs", "reward", "end" or nothing.
        chance: Draw numbers that obey no seed.
        raises: At which reset it raises, or 0.
        spoils: From which reset on its rewards are NaN, or 0.
    """

    opened = 0

    def __init__(
        self, shown: str = "", chance: bool = False, raises: int = 0, spoils: int = 0
    ) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,))
        self.action_space = spaces.Discrete(2)
        self.shown, self.chance, self.raises, self.spoils = shown, chance, raises, spoils
        self.resets = 0
        Remembers.opened += 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.resets += 1
        if self.resets == self.raises:
            raise RuntimeError("by design")
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        reward = float(self.resets if self.shown == "reward" else action)
        if 0 < self.spoils <= self.resets:
            reward = np.nan
        return self.obs(), reward, self.shown == "end" and self.resets > 2, False, {}

    def obs(self) -> Any:
        base = float(self.resets) if self.shown == "obs" else 0.0
        noise = np.random.default_rng().normal() if self.chance else self.np_random.normal()
        return np.array([base + noise], dtype=np.float32)

    def close(self) -> None:
        Remembers.opened -= 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"shown": "obs"}, True),
        ({"shown": "reward"}, True),
        ({"shown": "end"}, True),
        # a new instance would not make it obey its seed either
        ({"chance": True}, False),
        # what raises is told by the run, with its place
        ({"raises": 1}, False),
        ({"raises": 3}, False),
        ({"spoils": 3}, False),
    ],
)
def test_what_depends_on_earlier_episodes_is_found(options: dict[str, Any], expected: bool) -> None:
    """A used instance differs from a new one, and a new one does not from another new one."""
    Remembers.opened = 0
    assert depends_on_past(lambda: Remembers(**options)) is expected
    assert Remembers.opened == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BipedalWalker-v3", True),
        ("LunarLander-v3", False),
        ("CartPole-v1", False),
        ("Pendulum-v1", False),
        ("FrozenLake-v1", False),
    ],
)
def test_environments_of_gymnasium(name: str, expected: bool) -> None:
    """Of Gymnasium's, BipedalWalker alone solves its contacts in an order that the past decides."""
    assert env_source(name).is_fresh_per_episode is expected


def test_the_probe_is_quick() -> None:
    """Starting must not wait for it: 50 ms for CartPole, and nobody is asked twice."""
    env_source("CartPole-v1").make()
    source = env_source("CartPole-v1")
    times = []
    for _ in range(2):
        started = time.perf_counter()
        assert not source.is_fresh_per_episode
        times.append(time.perf_counter() - started)
    assert times[0] < 0.05
    assert times[1] < 0.001


def test_what_a_class_remembers_is_left_alone() -> None:
    """A curriculum, a connection, a wrapper's statistics: what is registered alone is made anew.

    Who registers an environment without nondeterministic=True promises that its seed decides it.
    """
    Remembers.opened = 0
    for name, chance in (("Promised-v0", False), ("Free-v0", True)):
        gymnasium.register(name, Remembers, kwargs={"shown": "obs"}, nondeterministic=chance)
    try:
        assert env_source("Promised-v0").is_fresh_per_episode
        assert not env_source("Free-v0").is_fresh_per_episode
    finally:
        del gymnasium.registry["Promised-v0"], gymnasium.registry["Free-v0"]
    assert Remembers.opened == 0
    sources = [
        env_source(f"{__name__}:Remembers", env_kwargs={"shown": "obs"}),
        env_source(lambda: Remembers("obs")),
        env_source(Remembers("obs")),
        env_source("BipedalWalker-v3", wrappers=[gymnasium.wrappers.NormalizeObservation]),
    ]
    assert [source.is_fresh_per_episode for source in sources] == [False] * 4
    assert Remembers.opened == 1


def test_episodes_of_bipedal_walker_are_functions_of_their_seeds() -> None:
    """In training each is what a new environment gives, and a run goes on exactly."""

    def walked(envs: VectorEnv, steps: int, seed: int) -> list[Any]:
        rng, log = np.random.default_rng(seed), []
        rewards = np.zeros(2, np.float32)
        ends = np.zeros((2, 2), bool)
        for _ in range(steps):
            actions = rng.uniform(-1, 1, (2, 4)).astype(np.float32)
            endings = envs.step(actions, rewards, ends[0], ends[1])
            log.append((envs.obs.tolist(), rewards.tolist(), [e.episode for e in endings]))
        return log

    source = env_source("BipedalWalker-v3", max_episode_steps=8)
    envs = VectorEnv(source, 2, EpisodeSeeds(0))
    assert envs.is_fresh_per_episode
    envs.reset()
    log = walked(envs, 26, seed=0)
    for episode in range(3):
        env = source.make()
        obs, _ = env.reset(seed=EpisodeSeeds(0).of(0, episode + 1))
        assert np.array_equal(np.array(log[8 * episode + 7][0][0], np.float32), obs)
    second = VectorEnv(source, 2, EpisodeSeeds(0))
    assert second.load_state_dict(envs.state_dict()) is None
    assert walked(second, 30, seed=1) == walked(envs, 30, seed=1)
