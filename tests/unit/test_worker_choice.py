"""How many workers `auto` takes, of environments that are slow, fast, and slow to begin."""

from __future__ import annotations

import time
from typing import Any

import pytest

from clipper import worker_choice
from clipper.config_ppo import PPOConfig
from clipper.envs.make import env_source
from clipper.worker_choice import choose_workers
from helpers import DictEnv
from libraries import NEEDS_ENGINE


def test_auto_needs_work_to_share() -> None:
    """One environment or a short run stay alone; the reason is in words."""
    config = PPOConfig().replace(total_timesteps=1_000)
    number, reason = choose_workers(env_source("CartPole-v1"), config)
    assert number == 0
    assert reason
    single = PPOConfig().replace(num_envs=1)
    assert choose_workers(env_source("CartPole-v1"), single)[0] == 0


class Sleeper(DictEnv):
    """Says how long it took, and how often it was stepped."""

    make_seconds = reset_seconds = step_seconds = 0.0
    num_steps = 0

    def __init__(self) -> None:
        super().__init__()
        time.sleep(self.make_seconds)

    def reset(self, **kwargs: Any) -> Any:
        time.sleep(self.reset_seconds)
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        type(self).num_steps += 1
        time.sleep(self.step_seconds)
        return super().step(action)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_choice, "num_cores", lambda: 4)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("num_envs", "expected"), [(8, 3), (3, 2)])
def test_auto_takes_workers_for_a_slow_environment(
    monkeypatch: pytest.MonkeyPatch, num_envs: int, expected: int
) -> None:
    """2 ms for each of 100,000 steps are 200 s, most of which workers save."""
    monkeypatch.setattr(Sleeper, "step_seconds", 0.002)
    config = PPOConfig().replace(total_timesteps=100_000, num_envs=num_envs)
    assert choose_workers(env_source(Sleeper), config)[0] == expected


@pytest.mark.usefixtures("four_cores")
def test_auto_takes_none_for_a_fast_environment() -> None:
    """20,000 steps of CartPole take half a second or so, a worker's start three."""
    config = PPOConfig().replace(total_timesteps=20_000, num_envs=8)
    number, reason = choose_workers(env_source("CartPole-v1"), config)
    assert number == 0
    assert "so 3 would save about" in reason


@NEEDS_ENGINE
@pytest.mark.usefixtures("four_cores")
def test_auto_knows_what_a_native_environment_takes() -> None:
    """A tenth of a microsecond in C, where a call of each from Python would take ten.

    3,000,000 steps of 0.1 us are 0.3 s; of 10 us, 30 s.
    """
    config = PPOConfig().replace(total_timesteps=3_000_000, num_envs=8)
    for task in ("CartPole-v1", "Pendulum-v1"):
        number, reason = choose_workers(env_source(task), config, "native")
        assert number == 0, reason


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("slow", ["make_seconds", "reset_seconds", "step_seconds"])
def test_auto_looks_no_longer_than_it_has_to(monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    """One that takes longer than there is time for is stepped once, or as long as its steps are."""
    monkeypatch.setattr(Sleeper, "num_steps", 0)
    monkeypatch.setattr(Sleeper, slow, 0.3)
    config = PPOConfig().replace(total_timesteps=100_000, num_envs=8)
    choose_workers(env_source(Sleeper), config)
    assert Sleeper.num_steps == 1


@pytest.mark.usefixtures("four_cores")
def test_auto_keeps_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0.1 s, steps of 30 ms are at most four."""
    monkeypatch.setattr(Sleeper, "num_steps", 0)
    monkeypatch.setattr(Sleeper, "step_seconds", 0.03)
    choose_workers(env_source(Sleeper), PPOConfig().replace(num_envs=8))
    assert 1 <= Sleeper.num_steps <= 4
