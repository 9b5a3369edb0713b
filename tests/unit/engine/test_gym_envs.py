"""Laws of the loop in C++ around environments in Python: it does what the loop in Python does.

That one, `VectorEnv` with `ReplayableEnvs.collect`, is the oracle: it is held to the contract by tests
of its own, and shares no line with this one but what begins and records episodes.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from clipper.engine import kernels, native
from clipper.engine.gym_envs import GymEnvs, within_limit
from clipper.envs.make import env_source
from clipper.envs.vector import VectorEnv
from clipper.errors import EnvironmentFault
from clipper.profiling import NO_STOPWATCH, Stopwatch
from clipper.randomness import EpisodeSeeds
from helpers import DictEnv, small_policy
from libraries import NEEDS_ENGINE

pytestmark = NEEDS_ENGINE

Step = tuple[Any, ...]
FREE = spaces.Box(-np.inf, np.inf, (2,))
THREE = spaces.Discrete(3)


class Echo(gymnasium.Env[Any, Any]):
    """Takes any action and returns what is asked of it; its state is a sum of all it was given.

    Args:
        action_space: Its actions.
        observation_space: Its observations.
        obs: From the clock and the sum of the actions to an observation.
        change: Turns what a step returns into what it returns at clock 3.
        length: Steps of an episode.
        cut: Episodes are truncated, else terminated.
    """

    def __init__(
        self,
        action_space: spaces.Space[Any] = THREE,
        observation_space: spaces.Space[Any] = FREE,
        obs: Callable[[int, float], Any] = lambda clock, x: np.array([clock, x], np.float32),
        change: Callable[[Step], Any] = lambda found: found,
        length: int = 5,
        cut: bool = False,
    ) -> None:
        self.action_space, self.observation_space = action_space, observation_space
        self.make_obs, self.change, self.length, self.cut = obs, change, length, cut
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.clock, self.x = 0, float(seed % 3)
        return self.make_obs(0, self.x), {}

    def step(self, action: Any) -> Any:
        self.given.append(action)
        self.clock += 1
        self.x += float(np.asarray(action, dtype=np.float64).sum())
        is_over = self.clock == self.length
        info = {"is_success": self.x > 0} if is_over else {}
        ends = (is_over and not self.cut, is_over and self.cut)
        found = (self.make_obs(self.clock, self.x), self.x / 3, *ends, info)
        return self.change(found) if self.clock == 3 else found


class Blocks:
    """Blocks of T steps of N environments, with actions that are a function of the seed."""

    def __init__(self, envs: VectorEnv, num_steps: int, seed: int = 0) -> None:
        layout, shape = envs.action_layout, (num_steps, envs.num_envs)
        rng = np.random.default_rng(seed)
        if layout.is_continuous:
            drawn = rng.normal(0, 2, (*shape, layout.size)).astype(np.float32)
            # what clipping must not change, and what it must
            drawn[0, 0, 0], drawn[1, 0, 0], drawn[2, 0, 0] = -0.0, np.float32(1e30), -1.0
        else:
            high = np.array(layout.num_categories or [2] * layout.size)
            drawn = rng.integers(0, high, (*shape, layout.size))
        self.drawn = drawn
        self.obs = np.full((*shape, envs.obs_layout.size), np.nan, dtype=np.float32)
        self.actions = np.zeros_like(drawn)
        self.rewards = np.full(shape, np.nan, dtype=np.float32)
        self.terminated, self.truncated = np.zeros((2, *shape), dtype=bool)

    def act(self, t: int) -> None:
        self.actions[t] = self.drawn[t]

    def collect(self, envs: VectorEnv) -> Any:
        rows = (self.obs, self.actions, self.rewards, self.terminated, self.truncated)
        endings = envs.collect(self.act, *rows)
        found = [(t, e.env, e.final_obs.tobytes(), repr(e.episode)) for t, e in endings]
        return [row.tobytes() for row in rows], found, envs.obs.tobytes(), envs.positions()


def both(make: Any, num_envs: int = 3, **options: Any) -> tuple[VectorEnv, GymEnvs]:
    """Returns the same environments twice, reset."""
    found = []
    for kind in (VectorEnv, GymEnvs):
        envs = kind(env_source(make, **options), num_envs, EpisodeSeeds(7), 2)
        envs.reset()
        found.append(envs)
    return found[0], found[1]  # type: ignore[return-value]


def assert_same(make: Any, num_steps: int = 23, **options: Any) -> tuple[VectorEnv, GymEnvs]:
    """Two blocks, and the state after them, are the same to the bit."""
    theirs, ours = both(make, **options)
    for seed in (0, 1):
        with np.errstate(over="ignore"):
            expected = Blocks(theirs, num_steps, seed).collect(theirs)
            assert Blocks(ours, num_steps, seed).collect(ours) == expected
        assert expected[1], "the episodes should end"
    state = theirs.state_dict()
    for name, array in ours.state_dict().items():
        assert np.array_equal(array, state[name]), name
        assert array.dtype == state[name].dtype
    return theirs, ours


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("make", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", DictEnv, Echo])
def test_both_loops_collect_the_same(make: Any, cut: bool) -> None:
    """Blocks, endings, records and saved states of both loops are equal, with and without a limit."""
    assert_same(make, 230 if make == "Pendulum-v1" and not cut else 41, **limit(cut))


def limit(cut: bool) -> dict[str, Any]:
    return {"max_episode_steps": 4} if cut else {}


ACTIONS: dict[str, spaces.Space[Any]] = {
    "plain": spaces.Box(-1.0, 1.0, (2,)),
    "plain float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "plain matrix": spaces.Box(-1.0, 1.0, (2, 2)),
    "scaled": spaces.Box(np.array([0.0, -2.0], np.float32), np.array([10.0, 0.1], np.float32)),
    "scaled float64": spaces.Box(-0.3, 0.7, (1, 2), np.float64),
    "from 0": spaces.Box(0.0, np.inf, (1,)),
    "to 0": spaces.Box(-np.inf, 0.0, (1,)),
    "free": spaces.Box(-np.inf, np.inf, (3,)),
    "float16": spaces.Box(-1.0, 1.0, (2,), np.float16),
    "choices": spaces.Discrete(4),
    "choices from -1": spaces.Discrete(3, start=-1),
    "many choices": spaces.Discrete(5000),
    "int32": spaces.Discrete(3, dtype=np.int32),
    "pairs": spaces.MultiDiscrete([2, 3], start=[5, -1]),
    "bits": spaces.MultiBinary(3),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_those_of_the_other_loop(name: str) -> None:
    """Environments get the same values, types and shapes, and each an object of its own."""
    theirs, ours = assert_same(lambda: Echo(ACTIONS[name]))
    for mine, other in zip(ours.envs, theirs.envs, strict=True):
        for a, b in zip(mine.given, other.given, strict=True):  # type: ignore[attr-defined]
            assert type(a) is type(b)
            assert a.dtype == b.dtype
            # tobytes: -0.0 is not 0.0
            assert (a.shape, a.tobytes()) == (b.shape, b.tobytes())
            assert not isinstance(a, np.ndarray) or (a.flags.writeable and a.flags.c_contiguous)
    given = [a for env in ours.envs for a in env.given]  # type: ignore[attr-defined]
    if isinstance(given[0], np.ndarray):
        assert len({a.__array_interface__["data"][0] for a in given}) == len(given)


def vector_space(size: int, dtype: Any) -> spaces.Box:
    return (
        spaces.Box(0, 1000, (size,), dtype) if dtype != np.int8 else spaces.Box(0, 99, (2,), dtype)
    )


OBSERVATIONS: dict[str, tuple[spaces.Space[Any], Callable[[int, float], Any]]] = {
    "float64": (vector_space(2, np.float64), lambda c, x: np.array([c / 3, x / 7])),
    "too large": (vector_space(2, np.float64), lambda c, x: np.array([c, 1e300])),
    "int64": (vector_space(2, np.int64), lambda c, x: np.array([c, 2])),
    "int8": (vector_space(2, np.int8), lambda c, x: np.array([c, 2], np.int8)),
    "strided": (FREE, lambda c, x: np.array([[c, 9], [x, 9]], np.float32)[:, 0]),
    "backwards": (FREE, lambda c, x: np.array([x, c], np.float32)[::-1]),
    "unaligned": (FREE, lambda c, x: unaligned([c, x])),
    "big-endian": (FREE, lambda c, x: np.array([c, x], ">f4")),
    "another type": (FREE, lambda c, x: np.array([c, x])),
    "list": (FREE, lambda c, x: [c, x]),
    "subclass": (FREE, lambda c, x: np.ma.array([c, x], dtype=np.float32)),
    "matrix": (spaces.Box(0, 9, (1, 2)), lambda c, x: np.array([[c, x]], np.float32)),
    "choice": (spaces.Discrete(9), lambda c, x: c),
    "tuple": (
        spaces.Tuple([spaces.Discrete(9), FREE]),
        lambda c, x: (c, np.array([1, x], np.float32)),
    ),
}


def unaligned(values: list[float]) -> Any:
    raw = np.zeros(9, dtype=np.uint8)
    found = raw[1:].view(np.float32)
    found[:] = values
    assert not found.flags.aligned
    return found


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_of_every_kind_arrive(name: str) -> None:
    """A copy alone or not, rows hold the same numbers."""
    space, obs = OBSERVATIONS[name]
    assert_same(lambda: Echo(observation_space=space, obs=obs))


def with_part(index: int, value: Any) -> Callable[[Step], Any]:
    return lambda found: (*found[:index], value, *found[index + 1 :])


ODD: dict[str, Callable[[Step], Any]] = {
    "a list": list,
    "a generator": lambda found: (part for part in found),
    "whole reward": with_part(1, 2),
    "float32 reward": with_part(1, np.float32(0.1)),
    "float64 reward": with_part(1, np.float64(0.1)),
    "reward of no dimension": with_part(1, np.array(0.25)),
    "reward true": with_part(1, True),
    "reward -1": with_part(1, -1.0),
    "numpy flags": lambda found: (*found[:2], np.bool_(True), np.bool_(False), found[4]),
    "flags 1 and 0": with_part(2, 1),
    "flags of no dimension": with_part(3, np.array(True)),
    "both": lambda found: (*found[:2], True, True, found[4]),
    "no info": with_part(4, None),
    "NaN": with_part(1, float("nan")),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_are_understood_alike(name: str) -> None:
    """Numbers and flags of other types than Python's own, in step 3 of every episode."""
    theirs, ours = both(lambda: Echo(change=ODD[name]))
    expected = Blocks(theirs, 17).collect(theirs)
    assert Blocks(ours, 17).collect(ours) == expected


def raises(found: Step) -> Any:
    raise KeyError("torque")


def stops(found: Step) -> Any:
    raise StopIteration


FAULTS: dict[str, Callable[[Step], Any]] = {
    "it raises": raises,
    "no flag": with_part(2, None),
    "it raises StopIteration": stops,
    "four values": lambda found: found[:4],
    "six values": lambda found: (*found, 1),
    "nothing": lambda found: None,
    "a string of five": lambda found: "abcde",
    "wrong shape": with_part(0, np.zeros(3, np.float32)),
    "a row": with_part(0, np.zeros((1, 2), np.float32)),
    "no observation": with_part(0, None),
    "a reward of two": with_part(1, np.zeros(2)),
    "no reward": with_part(1, None),
    "a reward in words": with_part(1, "2.5"),
    "a reward in an array": with_part(1, np.ones(1)),
    "a complex reward": with_part(1, 1j),
    "a reward too large": with_part(1, 10**400),
    "two flags": with_part(2, np.zeros(2, bool)),
    "fault of ours": lambda found: (_ for _ in ()).throw(EnvironmentFault("the cable is out.")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_in_the_same_words(name: str) -> None:
    """Environment, episode, step, what must hold, what was found, hint and cause are the same."""
    told = []
    for kind in (VectorEnv, GymEnvs):
        made = iter([lambda found: found, FAULTS[name]])
        source = env_source(lambda made=made: Echo(change=next(made)))
        envs = kind(source, 2, EpisodeSeeds(7))
        envs.reset()
        with pytest.raises(EnvironmentFault) as caught:
            Blocks(envs, 9).collect(envs)
        error = caught.value
        # a number that Python cannot read is raised where each loop reads it
        hint = re.sub(r"raised in .*src/clipper/\S+, line \d+", "raised here", str(error.hint))
        told.append((error.message, hint, type(error.__cause__), envs.positions()))
    assert told[0] == told[1]
    assert "environment 1, episode 0, step 3" in told[0][0]


def test_a_fault_in_reset_is_one_of_reset() -> None:
    """The second episode's first observation is wrong: it is not said to be the step's fault."""

    class Bad(Echo):
        def reset(self, **kwargs: Any) -> Any:
            self.resets = getattr(self, "resets", 0) + 1
            found = super().reset(**kwargs)
            return found if self.resets == 1 else found[0]

    envs = both(Bad, num_envs=1)[1]
    with pytest.raises(EnvironmentFault, match=r"\(obs, info\) from reset.*episode 1\)"):
        Blocks(envs, 9).collect(envs)


def test_what_the_policy_raises_passes_through() -> None:
    """An error while acting is no fault of an environment."""
    envs = both(Echo)[1]
    blocks = Blocks(envs, 9)

    def act(t: int) -> None:
        raise ZeroDivisionError(t)

    blocks.act = act  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError, match="0"):
        blocks.collect(envs)


def test_control_c_ends_a_rollout() -> None:
    """A signal raises KeyboardInterrupt within two steps, whoever handles it."""
    envs = both(Echo)[1]
    count = iter(range(99))

    def interrupted(action: Any) -> Any:
        if next(count) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return np.zeros(2, np.float32), 0.0, False, False, {}

    for env in envs.envs:
        env.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        Blocks(envs, 30).collect(envs)
    assert next(count) <= 12


def test_the_time_limit_is_counted_for_its_wrapper() -> None:
    """After a block the wrapper knows how many steps were taken, and goes on from there by itself."""
    theirs, ours = both(lambda: Echo(length=99), max_episode_steps=6)
    assert all(type(env) is TimeLimit for env in ours.envs)
    for steps in (4, 5):
        Blocks(theirs, steps).collect(theirs)
        Blocks(ours, steps).collect(ours)
        taken = [env._elapsed_steps for env in theirs.envs]  # type: ignore[attr-defined]
        assert [env._elapsed_steps for env in ours.envs] == taken  # type: ignore[attr-defined]
    # 9 steps: three into the second episode, so its limit comes with the third step from here
    flags = np.zeros((2, 3), dtype=bool)
    rewards = np.zeros(3, dtype=np.float32)
    counts = [len(ours.step(np.zeros((3, 1), int), rewards, *flags)) for _ in range(3)]
    assert counts == [0, 0, 3]


def test_the_limit_is_known_after_a_fault_too() -> None:
    """What the wrapper was not told while the loop ran it is told when the loop breaks off."""
    made = iter([raises, raises])
    source = env_source(lambda: Echo(change=next(made), length=99), max_episode_steps=6)
    envs = GymEnvs(source, 2, EpisodeSeeds(7))
    envs.reset()
    with pytest.raises(EnvironmentFault):
        Blocks(envs, 9).collect(envs)
    assert [env._elapsed_steps for env in envs.envs] == [2, 2]  # type: ignore[attr-defined]


def test_only_a_limit_around_it_all_is_counted_in_the_loop() -> None:
    """A wrapper outside sees every step, and so does a class derived from the limit's."""

    class Own(TimeLimit):
        pass

    env = Echo()
    limited = TimeLimit(env, 4)
    assert within_limit(limited) == (env, 4)
    own = Own(env, 4)
    assert within_limit(own) == (own, 0)
    outer = gymnasium.Wrapper(limited)
    assert within_limit(outer) == (outer, 0)
    limited.step = env.step  # type: ignore[method-assign]
    assert within_limit(limited) == (limited, 0)


def test_an_environment_may_replace_its_step() -> None:
    """One that goes through phases by methods, as some games do, is called at the one of now."""

    class Phases(Echo):
        def step(self, action: Any) -> Any:
            self.step = self.second  # type: ignore[method-assign]
            return super().step(action)

        def second(self, action: Any) -> Any:
            del self.step
            obs, reward, *rest = super().step(action)
            return obs, reward + 100, *rest

    assert_same(Phases)


def test_environments_that_are_made_anew_are_stepped_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a new environment for every episode the loop steps the new one."""
    monkeypatch.setattr("clipper.envs.make.depends_on_past", lambda make: True)
    theirs, ours = assert_same("CartPole-v1")
    assert theirs.is_fresh_per_episode
    assert ours.is_fresh_per_episode


def test_a_profile_changes_nothing() -> None:
    """While time is counted the same is collected, and it is counted to acting and environments."""
    theirs, ours = both("CartPole-v1")
    watch = Stopwatch()
    ours.count_time(watch)
    expected = Blocks(theirs, 50).collect(theirs)
    assert Blocks(ours, 50).collect(ours) == expected
    seconds = watch.result(150).seconds
    assert seconds["env"] > 0
    assert seconds["act"] > 0
    ours.count_time(NO_STOPWATCH)
    assert Blocks(ours, 50).collect(ours) == Blocks(theirs, 50).collect(theirs)


@pytest.mark.parametrize("name", ["plain", "choices", "pairs"])
def test_no_reference_is_lost_or_kept(name: str) -> None:
    """After many steps no object more is alive, and actions that all share have no owner fewer."""
    envs = GymEnvs(env_source(lambda: Forgetful(ACTIONS[name])), 2, EpisodeSeeds(7))
    envs.reset()

    def counted() -> tuple[int, list[int]]:
        rewards = np.zeros((400, 2), dtype=np.float32)
        flags = np.zeros((2, 400, 2), dtype=bool)
        obs = np.zeros((400, 2, 2), dtype=np.float32)
        layout = envs.action_layout
        actions = np.zeros((400, 2, layout.size), dtype=layout.dtype)
        envs.collect(lambda t: None, obs, actions, rewards, *flags)
        envs._log.clear()
        shared = [rewards, flags, obs, Forgetful.info, Forgetful.seen, True, None]
        return sys.getallocatedblocks(), [sys.getrefcount(part) for part in shared]

    counted()
    blocks, references = counted()
    again, later = counted()
    assert abs(again - blocks) < 100
    assert all(abs(b - a) < 100 for a, b in zip(references, later, strict=True))


class Forgetful(Echo):
    """Keeps nothing, and returns the same objects at every step."""

    info: dict[str, Any] = {}  # noqa: RUF012 - shared on purpose
    seen = np.zeros(2, dtype=np.float32)

    def step(self, action: Any) -> Any:
        return self.seen, 0.5, False, False, self.info


def test_a_policy_made_for_other_blocks_is_refused() -> None:
    """The kernel that acts writes into the blocks it was made for; with others nothing is stepped."""
    envs = both(Echo)[1]
    policy = small_policy("discrete", obs_size=2, dtype=torch.float32)
    native.NativeEngine(policy)
    blocks, other = Blocks(envs, 9), Blocks(envs, 9)
    noise = np.zeros((9, 3, 1), dtype=np.float32)
    act = policy.play(other.obs, noise, other.actions).act
    assert isinstance(act, kernels.Stepper)
    rows = (blocks.obs, blocks.actions, blocks.rewards, blocks.terminated, blocks.truncated)
    with pytest.raises(ValueError, match="made for these environments"):
        envs.collect(act, *rows)
