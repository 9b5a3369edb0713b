"""Laws of the profile: parts sum to the whole, each is what it says, nothing learnt depends on it."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import clipper
from clipper.envs.make import env_source
from clipper.envs.vector import VectorEnv
from clipper.errors import EnvironmentFault, FileError
from clipper.profile_files import COLUMNS, draw_profile, write_profile
from clipper.profiling import NO_STOPWATCH, PARTS, RunProfile, Stopwatch
from clipper.randomness import EpisodeSeeds
from helpers import DictEnv, flat_parameters
from libraries import NEEDS_ENGINE

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 32,
    "num_epochs": 2,
    "minibatch_size": 32,
    "hidden_sizes": (8,),
    "total_timesteps": 6 * 64,
    "eval_every": 0,
}
STEP_SECONDS = 2e-3
RESET_SECONDS = 4e-3


class Slow(gymnasium.Env):
    """Every step and reset takes its time; an episode has 8 steps.

    A busy machine lets it sleep longer than it wanted, so it notes how long it did.
    """

    slept = 0.0

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begins, after its time."""
        self._sleep(RESET_SECONDS)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        """Goes on, after its time."""
        self._sleep(STEP_SECONDS)
        self.count += 1
        return np.full(2, self.count / 8, np.float32), 1.0, self.count == 8, False, {}

    def _sleep(self, seconds: float) -> None:
        started = time.perf_counter()
        time.sleep(seconds)
        Slow.slept += time.perf_counter() - started


def agent(env: Any = "CartPole-v1", **changes: Any) -> clipper.PPO:
    return clipper.PPO(env, **{**SMALL, "seed": 5, **changes})


class FakeClock:
    """Time goes on when it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)

    def pass_by(self, nanoseconds: int) -> None:
        """Lets time go by."""
        self.now += nanoseconds


def test_a_part_within_another_interrupts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is counted once: to the innermost part, to `other` where there is none."""
    clock = FakeClock(monkeypatch)
    watch = Stopwatch()
    clock.pass_by(1)
    step = watch.timed("env", clock.pass_by)
    with watch.part("store"):
        clock.pass_by(10)
        step(100)
        clock.pass_by(20)
        with watch.part("act"):
            clock.pass_by(1000)
        clock.pass_by(30)
    clock.pass_by(2)
    watch.move(20e-9, "store", "estimate")
    profile = watch.result(num_steps=2)
    found = {name: round(1e9 * count) for name, count in profile.seconds.items() if count}
    assert found == {"env": 100, "act": 1000, "store": 40, "estimate": 20, "other": 3}
    # 1163 ns in all, over 2 steps
    assert profile.whole_seconds == pytest.approx(1163e-9)
    assert profile.microseconds_per_step(profile.whole_seconds) == pytest.approx(0.5815)
    assert profile.share(profile.seconds["act"]) == pytest.approx(1000 / 1163)


def test_a_part_that_fails_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was on before it is on again when an error has passed through."""
    clock = FakeClock(monkeypatch)
    watch = Stopwatch()

    def fail() -> None:
        clock.pass_by(5)
        raise ZeroDivisionError

    def attempt() -> None:
        with watch.part("store"):
            watch.timed("env", fail)()

    with pytest.raises(ZeroDivisionError):
        attempt()
    clock.pass_by(7)
    found = watch.result(1).seconds
    assert (found["env"], found["store"], found["other"]) == pytest.approx((5e-9, 0, 7e-9))


def test_without_a_stopwatch_nothing_stands_in_between() -> None:
    """Functions and objects come back as they are, those that were timed before unwrapped."""
    env = DictEnv()
    assert NO_STOPWATCH.timed("env", env.step) == env.step
    assert NO_STOPWATCH.around(env, step="env") is env
    timed = Stopwatch().around(env, step="env", reset="env")
    assert timed is not env
    assert timed.action_space is env.action_space
    assert NO_STOPWATCH.around(timed, step="env") is env


def test_environments_of_known_cost() -> None:
    """`env` is what they take, and the parts sum to the time of the whole call."""
    found = agent(Slow)
    found.warnings()  # makes an environment to look at, before the time is taken
    Slow.slept = 0.0
    started = time.perf_counter()
    outcome = found.train(progress=False, profile=True)
    elapsed = time.perf_counter() - started
    profile = outcome.profile
    assert profile is not None
    assert profile.num_steps == 6 * 64
    # 384 steps of 2 ms, and 2 first resets and 384 / 8 = 48 later ones of 4 ms: 0.968 s
    assert Slow.slept >= 384 * STEP_SECONDS + 50 * RESET_SECONDS
    assert profile.seconds["env"] == pytest.approx(Slow.slept, rel=0.05)
    assert profile.whole_seconds == pytest.approx(elapsed, rel=0.03)
    assert sum(profile.seconds.values()) == profile.whole_seconds
    assert list(profile.seconds) == list(PARTS)
    assert 0 < profile.overhead_seconds < 0.05 * elapsed


@NEEDS_ENGINE
def test_acting_in_native_environments_is_told_apart() -> None:
    """Though a rollout is one call: 2 x 256 units take 100 times what a step of CartPole in C takes."""
    found = agent(vectorization="native", hidden_sizes=(256, 256))
    profile = found.train(progress=False, profile=True).profile
    assert profile is not None
    assert profile.seconds["act"] > 5 * profile.seconds["env"] > 0


@pytest.mark.parametrize("changes", [{"engine": "native"}, {"engine": "reference"}, {"workers": 1}])
def test_nothing_learnt_depends_on_it(changes: dict[str, Any]) -> None:
    """Parameters are the same to the bit, also where a run goes on without; so is what takes time."""
    plain, profiled = agent(**changes), agent(**changes)
    plain.train(progress=False)
    outcome = profiled.train(progress=False, profile=True, callback=lambda r: r.iteration < 4)
    assert outcome.profile is not None
    assert outcome.profile.num_steps == outcome.step == 4 * 64
    assert profiled.train(progress=False).profile is None
    assert profiled.step == plain.step == 6 * 64
    assert torch.equal(flat_parameters(profiled.policy), flat_parameters(plain.policy))
    seconds = outcome.profile.seconds
    never = {"evaluate"} if "workers" in changes else {"evaluate", "workers"}
    assert {name for name, count in seconds.items() if count == 0} == never
    assert 0 < seconds["estimate"] < seconds["improve"]
    plain.close()
    profiled.close()


@pytest.mark.parametrize("is_fresh", [False, True])
def test_environments_are_themselves_again_afterwards(is_fresh: bool) -> None:
    """Also those that were made for an episode within the time that was counted."""
    envs = VectorEnv(env_source(DictEnv), 2, EpisodeSeeds(0))
    envs.is_fresh_per_episode = is_fresh
    watch = Stopwatch()
    envs.count_time(watch)
    envs.reset()
    for _ in range(25):  # episodes have at most 20 steps
        envs.step(np.ones((2, 1), np.int64), *(np.zeros(2, t) for t in ("f4", "?", "?")))
    assert all(type(env) is not DictEnv for env in envs.envs)
    assert watch.result(50).seconds["env"] > 0
    envs.count_time(NO_STOPWATCH)
    assert all(type(env) is DictEnv for env in envs.envs)


def test_a_fault_is_told_as_without() -> None:
    """The error of an environment names the same place; a run that failed has no profile."""

    class Failing(DictEnv):
        def step(self, action: int) -> Any:
            if self.clock == 5:
                raise KeyError("lost")
            return super().step(action)

    messages = []
    for profile in (False, True):
        with pytest.raises(EnvironmentFault) as caught:
            agent(Failing).train(progress=False, profile=profile)
        messages.append((caught.value.message, caught.value.hint))
    assert messages[0] == messages[1]


def test_the_files(tmp_path: Path) -> None:
    """A table with every part and the whole, and a picture; neither without being asked."""
    plain, profiled = tmp_path / "plain", tmp_path / "profiled"
    assert agent().train(progress=False, run_dir=plain).profile is None
    outcome = agent().train(progress=False, run_dir=profiled, profile=True)
    assert not list(plain.glob("profile*"))
    assert sorted(path.name for path in profiled.glob("*profile*")) == [
        "profile.csv",
        "profile.png",
    ]
    with open(profiled / "profile.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [row[0] for row in rows] == [*PARTS, "whole"]
    numbers = np.array([[float(cell) for cell in row[1:]] for row in rows])
    assert numbers[:-1].sum(0) == pytest.approx(numbers[-1], abs=1e-3)
    assert numbers[-1, 1] == 1.0
    assert numbers[-1, 2] == pytest.approx(1e6 * numbers[-1, 0] / 384, rel=1e-4)
    assert outcome.profile is not None
    assert numbers[-1, 0] == pytest.approx(outcome.profile.whole_seconds, abs=1e-6)
    assert outcome.profile.seconds["log"] > 0  # rows and curve
    with Image.open(profiled / "profile.png") as picture:
        assert picture.width == 1200


def test_the_table() -> None:
    """Every part that took time on a line of its own, columns below one another."""
    seconds = dict.fromkeys(PARTS, 0.0) | {"env": 3.0, "improve": 1.0}
    lines = str(RunProfile(seconds, 200_000, 0.02)).splitlines()
    assert lines == [
        "part        seconds    share    us/step",
        "env           3.000   75.0 %      15.00  step and reset of the environments",
        "improve       1.000   25.0 %       5.00  minibatch updates, normalisers, metrics",
        "whole         4.000  100.0 %      20.00",
        "measuring took at least 0.020 s of it (0.5 %)",
    ]


def test_no_steps() -> None:
    """A call that has nothing to do has a profile too, whose steps cost no number."""
    found = agent(total_timesteps=64)
    found.train(progress=False)
    profile = found.train(progress=False, profile=True).profile
    assert profile is not None
    assert profile.num_steps == 0
    assert math.isnan(profile.microseconds_per_step(1.0))
    assert "nan" in str(profile)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """A typed error names the file."""
    profile = RunProfile(dict.fromkeys(PARTS, 1.0), 10, 0.0)
    with pytest.raises(FileError, match=r"profile.csv must be writable"):
        write_profile(profile, tmp_path / "missing", "title")
    (tmp_path / "profile.png").mkdir()
    with pytest.raises(FileError, match=r"profile.png must be writable"):
        draw_profile(profile, tmp_path / "profile.png", "title")
