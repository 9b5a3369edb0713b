"""Laws of the vector environment: endings, seeds, copies, actions, faults, and going back."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from clipper.envs.make import env_source
from clipper.envs.vector import Ending, VectorEnv, numeric_extras, spaces_of
from clipper.errors import ConfigError, EnvironmentFault, NumericsError, SpaceError
from clipper.randomness import EpisodeSeeds, Purpose
from clipper.sampler import LocalSampler
from helpers import DictEnv, small_policy

Step = tuple[Any, ...]


class Script(gymnasium.Env[Any, Any]):
    """Plays back what it is told, and remembers the seeds and actions it was given.

    The observation is [episode, step]; the reward is 10 * episode + step. An episode lasts
    `length` steps and ends as `ends` says: terminated, truncated or both.

    Args:
        length: Steps of an episode.
        ends: Any of "terminated", "truncated", "both".
        reuses: Hand out the same array at every call.
    """

    def __init__(self, length: int = 3, ends: str = "terminated", reuses: bool = False) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(-np.inf, np.inf, (2,))
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)
        self.length, self.ends = length, ends
        self.buffer = np.zeros(2, dtype=np.float32) if reuses else None
        self.seeds: list[int | None] = []
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seeds.append(seed)
        self.at = 0
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        self.at += 1
        is_over = self.at == self.length
        terminated = is_over and self.ends in ("terminated", "both")
        truncated = is_over and self.ends in ("truncated", "both")
        reward = 10.0 * (len(self.seeds) - 1) + self.at
        return self.obs(), reward, terminated, truncated, self.info()

    def obs(self) -> Any:
        found = np.array([len(self.seeds) - 1, self.at], dtype=np.float32)
        if self.buffer is None:
            return found
        self.buffer[:] = found
        return self.buffer

    def info(self) -> dict[str, Any]:
        return {}


def vector(make: Any, num_envs: int = 1, seed: int = 0, **options: Any) -> VectorEnv:
    """Returns environments that are not reset yet."""
    return VectorEnv(env_source(make, **options), num_envs, EpisodeSeeds(seed))


def started(make: Any, num_envs: int = 1, seed: int = 0, **options: Any) -> VectorEnv:
    """Returns environments at the start of their first episode."""
    envs = vector(make, num_envs, seed, **options)
    envs.reset()
    return envs


class Arrays:
    """What a step of N environments writes into."""

    def __init__(self, num_envs: int) -> None:
        self.rewards = np.full(num_envs, np.nan, dtype=np.float32)
        self.terminated = np.zeros(num_envs, dtype=bool)
        self.truncated = np.zeros(num_envs, dtype=bool)

    def step(self, envs: VectorEnv, actions: Any = None) -> list[Ending]:
        if actions is None:
            actions = np.zeros((envs.num_envs, envs.action_layout.size), envs.action_layout.dtype)
        self.terminated[:] = False
        self.truncated[:] = False
        return envs.step(np.array(actions), self.rewards, self.terminated, self.truncated)


# ---- endings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reuses", [False, True])
def test_an_ending_hands_out_the_true_final_observation(reuses: bool) -> None:
    """In one step: the final observation of the old episode, and the first of the new one."""
    envs = started(lambda: Script(length=2, reuses=reuses), num_envs=2)
    arrays = Arrays(2)
    assert envs.obs.tolist() == [[0, 0], [0, 0]]
    assert arrays.step(envs) == []
    assert envs.obs.tolist() == [[0, 1], [0, 1]]
    endings = arrays.step(envs)
    assert [e.env for e in endings] == [0, 1]
    assert [e.final_obs.tolist() for e in endings] == [[0, 2], [0, 2]]
    assert envs.obs.tolist() == [[1, 0], [1, 0]]
    # the reward and the ending are the old episode's
    assert arrays.rewards.tolist() == [2, 2]
    assert arrays.terminated.tolist() == [True, True]
    arrays.step(envs)
    assert [e.final_obs.tolist() for e in endings] == [[0, 2], [0, 2]]
    assert arrays.terminated.tolist() == [False, False]


@pytest.mark.parametrize(
    ("ends", "terminated", "truncated", "recorded_as_truncated"),
    [
        ("terminated", True, False, False),
        ("truncated", False, True, True),
        # an episode that terminates in its last allowed step has a true end
        ("both", True, True, False),
    ],
)
def test_termination_and_truncation_are_kept_apart(
    ends: str, terminated: bool, truncated: bool, recorded_as_truncated: bool
) -> None:
    """Both flags are handed on as the environment gave them, never merged."""
    envs, arrays = started(lambda: Script(length=1, ends=ends)), Arrays(1)
    (ending,) = arrays.step(envs)
    assert arrays.terminated.tolist() == [terminated]
    assert arrays.truncated.tolist() == [truncated]
    assert ending.episode.truncated is recorded_as_truncated


def test_records_count_each_environments_own_episodes() -> None:
    """Return is the sum of raw rewards: with lengths 2 and 3, 1 + 2 = 3 and then 11 + 12 = 23."""
    lengths = iter([2, 3])
    envs, arrays = started(lambda: Script(length=next(lengths)), num_envs=2), Arrays(2)
    found = [e.episode for _ in range(6) for e in arrays.step(envs)]
    rows = [(e.env, e.index, e.episode_return, e.episode_length) for e in found]
    assert rows == [
        (0, 0, 3.0, 2),
        (1, 0, 6.0, 3),
        (0, 1, 23.0, 2),
        (0, 2, 43.0, 2),
        (1, 1, 36.0, 3),
    ]


def test_a_limit_of_the_users_truncates() -> None:
    """max_episode_steps ends an episode as truncated with its true final observation."""
    envs, arrays = started(lambda: Script(length=99), max_episode_steps=2), Arrays(1)
    assert arrays.step(envs) == []
    (ending,) = arrays.step(envs)
    assert (arrays.terminated[0], arrays.truncated[0]) == (False, True)
    assert ending.final_obs.tolist() == [0, 2]


# ---- seeds ---------------------------------------------------------------------------------------


def scripts_of(envs: VectorEnv) -> list[Script]:
    found = [env.unwrapped for env in envs.envs]
    assert all(isinstance(env, Script) for env in found)
    return found  # type: ignore[return-value]


def seeds_after(num_envs: int, seed: int, steps: int, **options: Any) -> list[list[int | None]]:
    """Returns the seeds every environment's `reset` was called with."""
    envs, arrays = started(lambda: Script(**options), num_envs, seed), Arrays(num_envs)
    for _ in range(steps):
        arrays.step(envs)
    return [env.seeds for env in scripts_of(envs)]


def test_every_reset_gets_a_seed_of_its_own() -> None:
    """No reset goes unseeded, and no two episodes of any environments share a seed."""
    seeds = [s for env in seeds_after(3, seed=0, steps=20, length=2) for s in env]
    assert len(seeds) == 3 * 11
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(s, int) and 0 <= s < 2**31 for s in seeds)


def test_an_episodes_seed_depends_on_run_seed_env_and_index_alone() -> None:
    """Neither the number of environments, nor the length of earlier episodes, nor actions matter."""
    base = seeds_after(2, seed=5, steps=12, length=2)
    assert seeds_after(4, seed=5, steps=12, length=2)[:2] == base
    slower = seeds_after(2, seed=5, steps=12, length=3)
    assert [env[:5] for env in base] == slower
    other = seeds_after(2, seed=6, steps=12, length=2)
    assert not {s for env in base for s in env} & {s for env in other for s in env}


def test_the_seeds_are_those_of_the_counters() -> None:
    """Episode e of env i gets `EpisodeSeeds.of(i, e)`, also across the blocks these come in."""
    found = seeds_after(2, seed=11, steps=600, length=1)
    seeds = EpisodeSeeds(11)
    for i in range(2):
        assert found[i] == [seeds.of(i, e) for e in range(601)]
    # the examination has others
    assert EpisodeSeeds(11, Purpose.EVALUATION_SEED).of(0, 0) != seeds.of(0, 0)


# ---- observations --------------------------------------------------------------------------------


def test_an_environment_that_reuses_its_buffer_gives_the_same_rollout() -> None:
    """Observations are copied on arrival: handing out one array again and again changes nothing."""
    rollouts = []
    for reuses in (False, True):
        envs = vector(lambda reuses=reuses: Script(length=3, reuses=reuses), num_envs=2)
        policy = small_policy("discrete", obs_size=2, dtype=torch.float32)
        rollouts.append(LocalSampler(envs, seed=0).collect(policy, 8))
    fresh, reused = rollouts
    for name in ("obs", "final_obs", "last_obs", "actions", "next_values"):
        assert torch.equal(getattr(fresh, name), getattr(reused, name)), name
    # [episode, step] after t steps of episodes of 3: (t // 3, t % 3)
    assert fresh.obs[:, 0].tolist() == [[t // 3, t % 3] for t in range(8)]
    assert fresh.final_obs.tolist() == [[0, 3], [0, 3], [1, 3], [1, 3]]
    assert fresh.final_at.tolist() == [[2, 0], [2, 1], [5, 0], [5, 1]]


def test_nested_observations_lie_in_a_row() -> None:
    """Dict and Tuple parts follow one another: one-hot of 7, two numbers and two bits, the clock.

    A Dict space orders its keys: body (2 + 2), clock (1), where (7).
    """
    envs = started(DictEnv, num_envs=2, seed=3)
    raw = DictEnv()
    for i in range(2):
        obs, _ = raw.reset(seed=EpisodeSeeds(3).of(i, 0))
        assert list(raw.observation_space.spaces) == ["body", "clock", "where"]
        expected = [*obs["body"][0], *obs["body"][1], *obs["clock"], *np.eye(7)[obs["where"]]]
        assert envs.obs[i].tolist() == np.array(expected, dtype=np.float32).tolist()


# ---- actions at the door -------------------------------------------------------------------------


class Taker(Script):
    """An environment with any action space that refuses what does not belong to it."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(length=99)
        self.action_space = space

    def step(self, action: Any) -> Any:
        if isinstance(action, np.ndarray):
            assert action.dtype == self.action_space.dtype
            assert action.shape == self.action_space.shape
        assert self.action_space.contains(action), f"{action!r} is not of {self.action_space}"
        return super().step(action)


@pytest.mark.parametrize(
    ("space", "sampled", "expected"),
    [
        # [-1, 1] is stretched over [0, 10] and [-2, 2], and what lies outside is clipped
        (
            spaces.Box(np.array([0.0, -2.0], np.float32), np.array([10.0, 2.0], np.float32)),
            [[-1.0, -1.0], [0.0, 0.5], [5.0, -7.0]],
            [[0.0, -2.0], [5.0, 1.0], [10.0, -2.0]],
        ),
        # [-1, 1] itself is only clipped
        (spaces.Box(-1.0, 1.0, (1,)), [[-0.25], [1.5], [-9.0]], [[-0.25], [1.0], [-1.0]]),
        # without bounds nothing is changed; with one bound it is clipped there
        (spaces.Box(-np.inf, np.inf, (1,)), [[-37.5], [0.0], [1e6]], [[-37.5], [0.0], [1e6]]),
        (spaces.Box(0.0, np.inf, (1,)), [[-3.0], [0.5], [4.0]], [[0.0], [0.5], [4.0]]),
        # shape and type of the space
        (
            spaces.Box(-1.0, 3.0, (1, 2), dtype=np.float64),
            [[0.0, 1.0]] * 3,
            [[[1.0, 3.0]]] * 3,
        ),
        (spaces.Discrete(3), [[0], [1], [2]], [0, 1, 2]),
        (spaces.Discrete(3, start=-1), [[0], [1], [2]], [-1, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), [[0, 0], [1, 2], [0, 1]], [[0, 0], [1, 2], [0, 1]]),
        (
            spaces.MultiDiscrete([2, 3], start=[5, -1]),
            [[0, 0], [1, 2], [0, 1]],
            [[5, -1], [6, 1], [5, 0]],
        ),
        (spaces.MultiDiscrete([2, 3], dtype=np.int32), [[1, 2]] * 3, [[1, 2]] * 3),
        (
            spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
            [[1, 2, 3, 4]] * 3,
            [[[1, 2], [3, 4]]] * 3,
        ),
        (spaces.MultiBinary(3), [[0, 1, 1]] * 3, [[0, 1, 1]] * 3),
        (spaces.MultiBinary([2, 2]), [[0, 1, 1, 0]] * 3, [[[0, 1], [1, 0]]] * 3),
    ],
)
def test_actions_arrive_as_the_space_says(
    space: spaces.Space[Any], sampled: list[Any], expected: list[Any]
) -> None:
    """Each sampled row becomes an action that the space contains, of its type, shape and start."""
    envs = started(lambda: Taker(space), num_envs=3)
    actions = np.array(sampled, dtype=envs.action_layout.dtype)
    kept = actions.copy()
    Arrays(3).step(envs, actions)
    for env, wanted in zip(scripts_of(envs), expected, strict=True):
        assert np.array_equal(env.actions[0], wanted)
    # what is stored in the rollout stays as it was sampled
    assert np.array_equal(actions, kept)


def test_an_environment_may_write_into_its_action() -> None:
    """An action is the environment's own: changing it does not change what is learnt from."""

    class Spoils(Script):
        action_space = spaces.Box(-1.0, 1.0, (2,))

        def __init__(self) -> None:
            super().__init__(length=99)
            self.action_space = Spoils.action_space

        def step(self, action: Any) -> Any:
            action[:] = 0.5
            return super().step(action)

    envs = started(Spoils)
    actions = np.array([[0.25, -0.25]], dtype=np.float32)
    envs.step(actions, *vars(Arrays(1)).values())
    assert actions.tolist() == [[0.25, -0.25]]


# ---- faults --------------------------------------------------------------------------------------


class Fault(Script):
    """Goes wrong in step 2 of its second episode, in the way that is given.

    Args:
        change: Turns what `step` returns into what goes wrong.
    """

    def __init__(self, change: Callable[[Step], Any]) -> None:
        super().__init__(length=3)
        self.change = change

    def step(self, action: Any) -> Any:
        found = super().step(action)
        return self.change(found) if (len(self.seeds), self.at) == (2, 2) else found


def raises(found: Step) -> Any:
    raise KeyError("torque")


def with_obs(obs: Any) -> Callable[[Step], Any]:
    return lambda found: (obs, *found[1:])


FAULTS: dict[str, tuple[Callable[[Step], Any], str]] = {
    "it raises": (raises, "must not raise in step, but it raised KeyError: 'torque'"),
    "old API": (lambda found: found[:4], "from step, but returned 4 values, as in the old gym"),
    "three values": (lambda found: found[:3], "from step, but returned 3 values"),
    "six values": (lambda found: (*found, 1), "from step, but returned more than 5 values"),
    "nothing": (lambda found: None, "from step, but returned None"),
    "a number": (lambda found: 1.5, "from step, but returned a float"),
    "wrong shape": (with_obs(np.zeros(3, np.float32)), r"shape \(2,\), but has \(3,\)"),
    "a column": (with_obs(np.zeros((2, 1), np.float32)), r"shape \(2,\), but has \(2, 1\)"),
    "text": (with_obs(np.array(["a", "b"])), "must be numbers"),
    "objects": (with_obs(np.array([None, 1], dtype=object)), "must be numbers"),
    "complex": (with_obs(np.zeros(2, np.complex64)), "must be numbers"),
    "none": (with_obs(None), "must be numbers .* but is None"),
    "a dict": (with_obs({"x": 1}), "must be numbers"),
    "no reward": (
        lambda found: (found[0], None, *found[2:]),
        "give a number as the reward .* is None",
    ),
    "two rewards": (lambda found: (found[0], [1.0, 2.0], *found[2:]), "list"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("broken", [0, 1])
def test_a_fault_names_environment_episode_step_and_seed(name: str, broken: int) -> None:
    """Whatever an environment does wrong is one typed error that says where it was."""
    change, words = FAULTS[name]
    made = iter([lambda found: found] * broken + [change] + [lambda found: found])
    envs, arrays = started(lambda: Fault(next(made)), num_envs=2, seed=4), Arrays(2)
    for _ in range(4):
        arrays.step(envs)
    with pytest.raises(EnvironmentFault, match=words) as caught:
        arrays.step(envs)
    assert f"(environment {broken}, episode 1, step 2)" in caught.value.message
    assert caught.value.message.startswith("test_a_fault_names")
    assert str(EpisodeSeeds(4).of(broken, 1)) in str(caught.value.hint)
    assert "None" not in str(caught.value.hint)


def test_a_fault_of_the_users_code_names_its_line() -> None:
    """The hint leads to the line that raised; the first error is kept as the cause."""
    envs = started(lambda: Fault(raises))
    with pytest.raises(EnvironmentFault) as caught:
        played(envs, 5)
    assert f"{__file__}, line {raises.__code__.co_firstlineno + 1}" in str(caught.value.hint)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_environment_that_ends_the_process_is_at_fault() -> None:
    """As one with a window does when it is closed: training does not end as if all were well."""

    def quits(found: Step) -> Any:
        sys.exit()

    envs = started(lambda: Fault(quits))
    with pytest.raises(EnvironmentFault, match="must not raise in step, but it called sys"):
        played(envs, 5)


def test_an_error_with_a_cause_that_was_never_raised_is_told() -> None:
    """`raise ... from ValueError()` has a cause without a place; the hint is still a sentence."""

    def raises_from(found: Step) -> Any:
        raise RuntimeError("cable loose") from ValueError()

    envs = started(lambda: Fault(raises_from))
    with pytest.raises(EnvironmentFault, match="cable loose") as caught:
        played(envs, 5)
    assert "None" not in str(caught.value.hint)


class BadReset(Script):
    """Its `reset` goes wrong in the second episode.

    Args:
        change: Turns what `reset` returns into what goes wrong.
    """

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__(length=2)
        self.change = change

    def reset(self, **options: Any) -> Any:
        found = super().reset(**options)
        return self.change(found) if len(self.seeds) == 2 else found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (raises, "must not raise in reset, but it raised KeyError"),
        (lambda found: [*found[0].tolist(), 0], "but returned a list of 3"),
        (lambda found: (np.zeros(3), {}), r"shape \(2,\), but has \(3,\)"),
        (lambda found: None, "must return .* from reset, .*, but returned None"),
    ],
)
def test_a_fault_in_reset_names_environment_and_episode(change: Any, words: str) -> None:
    """A reset that goes wrong is told with the episode that it would have begun."""
    envs, arrays = started(lambda: BadReset(change)), Arrays(1)
    arrays.step(envs)
    with pytest.raises(EnvironmentFault, match=words) as caught:
        arrays.step(envs)
    assert "(environment 0, episode 1)" in caught.value.message


class OldReset(Script):
    """A `reset` without a seed, as in the old gym library."""

    def reset(self) -> Any:  # type: ignore[override]
        return self.obs()


@pytest.mark.parametrize("limit", [None, 5])
def test_a_reset_without_a_seed_is_told(limit: int | None) -> None:
    """What must hold, what was found and how to write it, with and without a wrapper around it."""
    with pytest.raises(EnvironmentFault, match="must take seed and options in reset") as caught:
        started(OldReset, max_episode_steps=limit)
    assert "takes no 'seed'" in caught.value.message
    assert "def reset(self, *, seed=None, options=None)" in str(caught.value.hint)


class OldResult(Script):
    """A `reset` that returns the observation alone, as in the old gym library.

    Args:
        found: What it returns.
    """

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.found


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.zeros(2, dtype=np.float32), r"an array of the shape \(2,\)"),
        ([0.0, 0.0], "a list of 2"),
        # two parts of a Tuple, which could be unpacked like a pair
        ((np.zeros(1), np.zeros(1)), "a tuple of 2"),
        (None, "None"),
    ],
)
def test_a_reset_that_returns_the_observation_alone_is_told(found: Any, words: str) -> None:
    """Two numbers are not (observation, info), although they can be unpacked like one."""
    with pytest.raises(EnvironmentFault, match=rf"\(obs, info\) from reset.*{words}") as caught:
        started(lambda: OldResult(found))
    assert "return obs, {}" in str(caught.value.hint)


def test_a_reset_that_returns_its_info_first_is_told() -> None:
    """Both are there, in the wrong order: the hint says which comes first."""
    with pytest.raises(EnvironmentFault, match=r"but returned \(info, obs\)") as caught:
        started(lambda: OldResult(({}, np.zeros(2, dtype=np.float32))))
    assert "`return obs, info`" in str(caught.value.hint)


def test_a_reset_without_an_info_is_let_pass() -> None:
    """(obs, None) is a pair whose second part nobody needs."""
    assert started(lambda: OldResult((np.ones(2), None))).obs.tolist() == [[1, 1]]


@pytest.mark.parametrize("limit", [None, 5])
def test_a_step_of_four_values_is_told(limit: int | None) -> None:
    """The hint says what becomes of done, whether Clipper unpacks the step or Gymnasium's wrapper."""

    class OldStep(Script):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    with pytest.raises(EnvironmentFault, match="but returned 4 values") as caught:
        played(started(OldStep, max_episode_steps=limit), 1)
    assert "TimeLimit.truncated" in str(caught.value.hint)
    assert "seed was" in str(caught.value.hint)


OLD_GYM = Path(__file__).parents[3] / "docs" / "concepts" / "old-gym.md"


class OldGym:
    """An environment of the old gym: one done flag, `seed`, and no info at a reset."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Discrete(2)

    def seed(self, seed: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)

    def reset(self) -> Any:
        self.at = 0
        return self.rng.normal(size=1).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.at += 1
        obs = self.rng.normal(size=1).astype(np.float32)
        return obs, 1.0, self.at == 3, {"TimeLimit.truncated": self.at == 3}


def test_the_documented_wrapper_brings_an_old_environment_over() -> None:
    """The wrapper that the hints name does what they say: seeds, pairs, and a cut that is no death."""
    code = re.findall(r"```python\n(.*?)```", OLD_GYM.read_text(encoding="utf-8"), re.DOTALL)[0]
    found: dict[str, Any] = {}
    exec(code, found)
    envs, arrays = started(lambda: found["Modern"](OldGym()), seed=3), Arrays(1)
    first = envs.obs.copy()
    endings = [arrays.step(envs) for _ in range(3)]
    assert [len(e) for e in endings] == [0, 0, 1]
    assert (arrays.terminated[0], arrays.truncated[0]) == (False, True)
    assert np.array_equal(first, started(lambda: found["Modern"](OldGym()), seed=3).obs)


class NoKey(DictEnv):
    """Forgets a part of its observation from step 2 on."""

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        if self.clock == 2:
            del obs["clock"]
        return obs, *rest


def test_a_missing_part_is_named() -> None:
    """An observation without a part that the space promises is told by that part's name."""
    envs, arrays = started(NoKey), Arrays(1)
    arrays.step(envs)
    with pytest.raises(EnvironmentFault, match="'clock'") as caught:
        arrays.step(envs)
    assert "(environment 0, episode 0, step 2)" in caught.value.message


@pytest.mark.parametrize("at", ["reward", "obs", "final_obs"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_located(at: str, value: float) -> None:
    """NaN in a reward or an observation stops the rollout; environment, episode, step are named.

    Environment 1 gives it in step 2 (or, at the end, 3) of its second episode, in the rollout's
    second half.
    """

    class Spoilt(Fault):
        def step(self, action: Any) -> Any:
            found = Script.step(self, action)
            step = 3 if at == "final_obs" else 2
            return self.change(found) if (len(self.seeds), self.at) == (2, step) else found

    bad = np.array([0.0, value], dtype=np.float32)
    change = (lambda found: (found[0], value, *found[2:])) if at == "reward" else with_obs(bad)
    made = iter([lambda found: found, change])
    sampler = LocalSampler(vector(lambda: Spoilt(next(made)), num_envs=2), seed=0)
    policy = small_policy("discrete", obs_size=2, dtype=torch.float32)
    sampler.collect(policy, 2)
    with pytest.raises(NumericsError) as caught:
        sampler.collect(policy, 5)
    noun = "reward" if at == "reward" else "observation"
    assert noun in caught.value.message
    assert f"{value}" in caught.value.message
    step = {"reward": "in step 2", "obs": "after step 2", "final_obs": "after step 3"}[at]
    assert f"{step} of episode 1 of environment 1" in caught.value.message


def test_environments_of_a_run_must_agree() -> None:
    """A callable that makes different spaces is refused with both of them."""
    sizes = iter([2, 3])
    with pytest.raises(SpaceError, match=r"Discrete\(3\).*Discrete\(2\)"):
        vector(lambda: Taker(spaces.Discrete(next(sizes))), num_envs=2)


@pytest.mark.parametrize("limit", [None, 9])
def test_one_object_is_not_two_environments(limit: int | None) -> None:
    """A callable that gives the same instance again is refused, also within a new wrapper."""
    env = Script()
    with pytest.raises(ConfigError, match="gave the same one twice") as caught:
        vector(lambda: env, num_envs=2, max_episode_steps=limit)
    assert "lambda" in str(caught.value.hint)


def test_an_instance_that_a_callable_gives_again_is_not_closed() -> None:
    """Looking at its spaces does not close the user's environment; playing in it is refused."""
    env = Closes()
    source = env_source(lambda: env)
    spaces_of(source)
    with pytest.raises(ConfigError, match="gave the same one twice"):
        VectorEnv(source, 1, EpisodeSeeds(0))
    assert env.closed == 0
    # what was made to be looked at is closed once another one is there
    made: list[Closes] = []

    def fresh() -> Closes:
        made.append(Closes())
        return made[-1]

    other = env_source(fresh)
    spaces_of(other)
    VectorEnv(other, 1, EpisodeSeeds(0))
    assert [env.closed for env in made] == [1, 0]


# ---- going back ----------------------------------------------------------------------------------


def played(envs: VectorEnv, steps: int, seed: int = 0) -> list[Any]:
    """Steps with random actions, a function of `seed`, and returns all that comes out."""
    rng, arrays = np.random.default_rng(seed), Arrays(envs.num_envs)
    kind = envs.action_layout
    log: list[Any] = []
    for _ in range(steps):
        if kind.is_continuous:
            actions = rng.normal(size=(envs.num_envs, kind.size)).astype(np.float32)
        else:
            actions = rng.integers(0, kind.num_categories, size=(envs.num_envs, kind.size))
        endings = arrays.step(envs, actions)
        log.append(
            (
                envs.obs.tolist(),
                arrays.rewards.tolist(),
                arrays.terminated.tolist(),
                arrays.truncated.tolist(),
                [(e.env, e.final_obs.tolist(), e.episode) for e in endings],
            )
        )
    return log


@pytest.mark.parametrize("make", ["CartPole-v1", "Pendulum-v1", DictEnv])
@pytest.mark.parametrize("steps", [0, 1, 33])
def test_a_loaded_state_goes_on_identically(make: Any, steps: int) -> None:
    """Fresh environments, brought to a saved point, do the very same from there on."""
    first = started(make, num_envs=3, seed=8)
    played(first, steps)
    state = first.state_dict()
    expected = played(first, 60, seed=1)
    second = vector(make, num_envs=3, seed=8)
    assert second.load_state_dict(state) is None
    again = second.state_dict()
    assert state.keys() == again.keys()
    for name in state:
        assert np.array_equal(state[name], again[name]), name
    assert played(second, 60, seed=1) == expected


def test_the_control_of_the_above() -> None:
    """Negative control: another seed, or one action that was another, goes on differently."""
    first = started("CartPole-v1", num_envs=2, seed=8)
    played(first, 5)
    state = first.state_dict()
    expected = played(first, 20, seed=1)
    other = vector("CartPole-v1", num_envs=2, seed=9)
    assert other.load_state_dict(state) is not None
    changed = {**state, "actions": 1 - state["actions"]}
    second = vector("CartPole-v1", num_envs=2, seed=8)
    assert second.load_state_dict(changed) is not None
    assert played(second, 20, seed=1) != expected


def test_a_mark_is_a_point_in_time() -> None:
    """What is described later from a mark is what was there when it was taken."""
    envs = started(DictEnv, num_envs=2, seed=1)
    played(envs, 10)
    mark, now = envs.mark(), envs.state_dict()
    played(envs, 25, seed=1)
    later = envs.state_dict(mark)
    assert all(np.array_equal(now[name], later[name]) for name in now)


def test_marks_keep_no_more_than_the_running_episodes() -> None:
    """Memory does not grow with the run: after episodes of 3 steps at most 3 actions are kept."""
    envs = started(lambda: Script(length=3), num_envs=2)
    for _ in range(10):
        played(envs, 10)
        assert sum(map(len, envs.mark().log)) <= 3


def test_an_episode_too_long_to_replay_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past MAX_REPLAY_STEPS the actions are let go, and loading says that it is not exact."""
    monkeypatch.setattr(VectorEnv, "MAX_REPLAY_STEPS", 20)
    envs = started(lambda: Script(length=99), num_envs=2)
    played(envs, 20)
    exact = vector(lambda: Script(length=99), num_envs=2)
    assert exact.load_state_dict(envs.state_dict()) is None
    played(envs, 1)
    state = envs.state_dict()
    assert len(state["actions"]) == 0
    second = vector(lambda: Script(length=99), num_envs=2)
    problem = second.load_state_dict(state)
    assert problem is not None
    assert "2 of 2" in problem
    # they stand at the start of the next episode
    assert second.positions() == ([1, 1], [0, 0])


def test_one_endless_episode_does_not_cost_the_others_their_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of lengths 21 and 1 with a maximum of 20, the second environment goes on exactly.

    Its episodes last 4 steps: after 21 steps it is in the first step of its sixth.
    """
    monkeypatch.setattr(VectorEnv, "MAX_REPLAY_STEPS", 20)
    lengths = iter([99, 4, 99, 4])
    envs = started(lambda: Script(length=next(lengths)), num_envs=2)
    played(envs, 21)
    state = envs.state_dict()
    assert state["replayed"].tolist() == [0, 1]
    assert len(state["actions"]) == 1
    second = vector(lambda: Script(length=next(lengths)), num_envs=2)
    for i in (0, 1):
        # this environment counts its resets, and the fresh one has seen none
        second.envs[i].unwrapped.seeds += [None] * 5 * i  # type: ignore[attr-defined]
    assert "1 of 2" in str(second.load_state_dict(state))
    assert second.positions() == ([1, 5], [0, 1])


def test_long_episodes_are_described_quickly() -> None:
    """Eight episodes of 100,000 steps are sliced, not gathered row by row (which took 2 s)."""
    envs = started("CartPole-v1", num_envs=8)
    envs._log = [np.zeros((1, 8, 1), dtype=np.int64)] * 100_000
    envs._lengths = [100_000] * 8
    started_at = time.perf_counter()
    state = envs.state_dict()
    assert time.perf_counter() - started_at < 0.5
    assert state["actions"].shape == (800_000, 1)


class Counts(Script):
    """Its reward counts the resets it has seen; no observation shows them."""

    def obs(self) -> Any:
        return np.array([0.0, self.at], dtype=np.float32)


def test_hidden_state_that_a_reward_showed_is_found() -> None:
    """The same observation with another return is not where the run stopped."""
    envs = started(lambda: Counts(length=5))
    played(envs, 12)
    second = vector(lambda: Counts(length=5))
    problem = second.load_state_dict(envs.state_dict())
    assert problem is not None
    assert "return" in problem
    assert second.positions() == ([3], [0])
    # control: in its first episode it has seen as many resets as a fresh one
    envs = started(lambda: Counts(length=5))
    played(envs, 3)
    assert vector(lambda: Counts(length=5)).load_state_dict(envs.state_dict()) is None


class Forgets(Script):
    """Has a counter that no seed reaches; every other instance begins it elsewhere."""

    made = 0

    def __init__(self) -> None:
        super().__init__(length=99)
        Forgets.made += 1
        self.noise = Forgets.made

    def obs(self) -> Any:
        return np.array([self.noise, self.at], dtype=np.float32)


def test_an_environment_that_cannot_be_replayed_is_reported() -> None:
    """Only those whose observation differs begin anew, and the sentence counts them."""
    made = iter([Forgets(), Script(length=99), Forgets(), Script(length=99)])
    envs = started(lambda: next(made), num_envs=2)
    played(envs, 4)
    second = vector(lambda: next(made), num_envs=2)
    problem = second.load_state_dict(envs.state_dict())
    assert problem is not None
    assert "1 of 2 environments" in problem
    # episode 1 at its start, and episode 0 after 4 steps
    assert second.positions() == ([1, 0], [0, 4])


@pytest.mark.parametrize("length", [2, 3])
def test_an_episode_that_ends_while_it_is_replayed_is_reported(length: int) -> None:
    """The code of an environment changed between the two runs: no crash, but it is said."""
    envs = started(lambda: Script(length=9))
    played(envs, 3)
    second = vector(lambda: Script(length=length))
    assert second.load_state_dict(envs.state_dict()) is not None
    assert second.positions() == ([1], [0])


def test_an_environment_that_raises_while_it_is_replayed_is_reported() -> None:
    """A fault in the replay is no reason not to go on."""
    envs = started(lambda: Script(length=9))
    played(envs, 3)

    class Raises(Script):
        def step(self, action: Any) -> Any:
            raise RuntimeError("by design")

    second = vector(Raises)
    assert second.load_state_dict(envs.state_dict()) is not None


class Changes(Script):
    """Begins every episode alike and then shows how often it was reset, whatever the seed."""

    def __init__(self, shows: str) -> None:
        super().__init__(length=99)
        self.shows = shows

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        _, reward, terminated, truncated, info = super().step(action)
        resets, obs = len(self.seeds), np.zeros(2, dtype=np.float32)
        if self.shows == "obs":
            obs[1] = resets
        elif self.shows == "reward":
            reward = resets
        else:
            terminated = self.at == 10 + resets
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("shows", ["obs", "reward", "ending"])
def test_a_seed_that_decides_nothing_is_found_where_no_episode_is_open(shows: str) -> None:
    """At the start of an episode there is nothing to replay; it is tried twice instead."""
    state = started(lambda: Changes(shows), num_envs=2).state_dict()
    second = vector(lambda: Changes(shows), num_envs=2)
    assert second.load_state_dict(state) == (
        "2 of 2 environments do not repeat an episode when its seed and actions are given again "
        "(environment 0, episode 0)"
    )
    # they go on from where they were, as far as that can be had
    assert second.positions() == ([0, 0], [0, 0])


def test_trying_leaves_an_environment_at_the_start_of_its_episode() -> None:
    """What is tried is not counted: the episode is then played as it would have been."""
    first = started("Pendulum-v1", num_envs=2, seed=8)
    state = first.state_dict()
    expected = played(first, 250)
    second = vector("Pendulum-v1", num_envs=2, seed=8)
    assert second.load_state_dict(state) is None
    assert second.positions() == ([0, 0], [0, 0])
    assert played(second, 250) == expected


def test_a_slow_environment_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is spent, nothing is said: nobody waits for a simulator."""
    monkeypatch.setattr(VectorEnv, "MAX_TRIED_SECONDS", 0.0)
    state = started(lambda: Changes("obs")).state_dict()
    assert vector(lambda: Changes("obs")).load_state_dict(state) is None


def test_a_trial_ends_when_its_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of steps of a second each those of five are tried twice, in the first environment alone."""
    steps = 0

    class Slow(Changes):
        def step(self, action: Any) -> Any:
            nonlocal steps
            steps += 1
            return super().step(action)

    monkeypatch.setattr("clipper.envs.replay.time", SimpleNamespace(perf_counter=lambda: steps))
    monkeypatch.setattr(VectorEnv, "MAX_TRIED_SECONDS", 5)
    state = started(lambda: Slow("obs"), num_envs=8).state_dict()
    reason = vector(lambda: Slow("obs"), num_envs=8).load_state_dict(state)
    assert reason is not None
    assert reason.startswith("1 of 8")
    assert steps == 2 * 6


# ---- extras --------------------------------------------------------------------------------------


class Tells(Script):
    """Gives numbers and other things in `info`."""

    def info(self) -> dict[str, Any]:
        return {
            "is_success": self.at == 2 and len(self.seeds) == 1,
            "distance": np.float32(0.5),
            "count": np.int64(3),
            "zero_dim": np.array(1.5),
            "flag": np.bool_(True),
            "text": "no number",
            "array": np.zeros(2),
            "missing": None,
            "nan": float("nan"),
            "infinite": np.inf,
            "nested": {"x": 1},
            "episode": {"r": 99.0, "l": 99, "t": 99.0, "fuel": 0.25},
        }


def test_extras_of_the_last_step_are_in_the_record() -> None:
    """Finite numbers of an episode's last info are kept, is_success as 1 or 0; the rest is not."""
    envs, arrays = started(lambda: Tells(length=2)), Arrays(1)
    found = [e.episode.extras for _ in range(4) for e in arrays.step(envs)]
    rest = {"distance": 0.5, "count": 3.0, "zero_dim": 1.5, "flag": 1.0, "fuel": 0.25}
    assert found == [{"is_success": 1.0, **rest}, {"is_success": 0.0, **rest}]
    assert all(type(value) is float for extras in found for value in extras.values())


def test_names_of_extras_can_head_a_column() -> None:
    """Line ends, commas, quotes and control characters become `_`; letters of any language stay."""
    info = {'a,b\n"c"': 1.0, "\x1b[2J": 2.0, "Höhe (m/s)": 3.0, 7: 4.0}
    assert numeric_extras(info) == {"a_b__c_": 1.0, "__2J": 2.0, "Höhe (m/s)": 3.0, "7": 4.0}


@pytest.mark.parametrize("info", [None, [], 3, {}, {"x": 10**400}, {"x": float("nan")}])
def test_an_info_without_numbers_gives_none(info: Any) -> None:
    """An odd info is no fault: there is nothing to record in it."""
    assert numeric_extras(info) == {}


# ---- lifetime ------------------------------------------------------------------------------------


class Closes(Script):
    """Remembers that it was closed, and raises at it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        raise RuntimeError("by design")


def test_environments_made_here_are_closed_but_not_the_users() -> None:
    """An instance belongs to the user; a close that raises does not keep others from closing."""
    envs = vector(Closes, num_envs=2)
    envs.close()
    assert [env.closed for env in envs.envs] == [1, 1]  # type: ignore[attr-defined]
    own = Closes()
    vector(own).close()
    assert own.closed == 0
