"""An environment that gives NaN or infinity with `on_nonfinite drop-episode`: its episode ends there."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clipper
import facts
from clipper.action_layout import ActionLayout
from clipper.cli.main import main
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import env_source
from clipper.envs.names import Env
from clipper.envs.vector import VectorEnv
from clipper.errors import NumericsError
from clipper.faults import Fault, FaultLedger
from clipper.randomness import EpisodeSeeds
from clipper.rollout import Rollout
from clipper.sampler import LocalSampler
from clipper.spaces import ObservationLayout
from clipper.workers import ProcessSampler
from commands import read_rows
from helpers import DictEnv, flat_parameters, policy_for
from libraries import NEEDS_ENGINE, walk

NUM_ENVS = 3
SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 4,
    "num_steps": 24,
    "num_epochs": 1,
    "minibatch_size": 32,
    "hidden_sizes": (8,),
    "total_timesteps": 6 * 96,
    "eval_every": 0,
    "seed": 1,
    "on_nonfinite": "drop-episode",
}


class Patient(FaultLedger):
    """Never has enough."""

    def count(self, env: int) -> bool:
        return False


class Spoilt(DictEnv):
    """By its episode's seed gives NaN in an observation or as a reward, or begins with it."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        assert seed is not None
        self.fate, self.at = seed % 5, 1 + seed // 5 % 6
        if self.fate == 2:
            obs["body"][0][1] = math.inf
        return obs, info

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        if self.clock == self.at and self.fate == 0:
            obs["clock"][0] = math.nan
        if self.clock == self.at and self.fate == 1:
            reward = -math.inf
        return obs, reward, *rest


class Pole(Spoilt):
    """The same with numbers alone, which the loop in C++ copies by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = self.observation_space["body"][0]

    def reset(self, **keywords: Any) -> Any:
        obs, info = super().reset(**keywords)
        return obs["body"][0], info

    def step(self, action: int) -> Any:
        obs, *rest = super().step(action)
        return obs["body"][0] * (obs["clock"][0] * 0 + 1), *rest


NATIVE = pytest.param("walk", marks=NEEDS_ENGINE)
MACROS = ("BOX", "NAN_AT=4", "INF_AT=7", "NAN_EVERY=3")


def source_of(name: str) -> Any:
    """Returns the environment of a name; the walk's reward and observation go wrong at 4 and 7."""
    return {"dict": Spoilt, "numbers": Pole}.get(name) or walk(*MACROS)


def sampler_of(name: str, vectorization: str, until_third: bool = False) -> LocalSampler:
    ledger = FaultLedger() if until_third else Patient()
    source = env_source(source_of(name))
    if vectorization == "python":
        envs = VectorEnv(source, NUM_ENVS, EpisodeSeeds(5))
        envs.drop_episodes(ledger)
        return LocalSampler(envs, 5)
    return local_sampler(source, range(NUM_ENVS), 5, vectorization, ledger=ledger)


def assert_same(found: Rollout, expected: Rollout) -> None:
    for field in dataclasses.fields(Rollout):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert a == b if field.name == "episodes" else torch.equal(a, b), field.name


def ways(name: str) -> list[str]:
    return ["python", "gymnasium", *(["native"] if name == "walk" else [])]


def collected(sampler: LocalSampler, name: str, engine: str = "auto") -> list[Rollout]:
    policy = policy_for(source_of(name), engine)
    return [sampler.collect(policy, steps) for steps in (7, 60, 1, 1, 40)]


class Replayed:
    """One environment played again from a rollout's actions: what it gives is what must be there."""

    def __init__(self, name: str, env: int) -> None:
        self.made: Env = env_source(source_of(name)).make()
        self.env, self.episode = env, -1
        self.obs_layout = ObservationLayout(self.made.observation_space)
        self.action_layout = ActionLayout(self.made.action_space)
        self.row = np.zeros(self.obs_layout.size, np.float32)

    def begin(self, episode: int) -> np.ndarray:
        self.episode = episode
        obs, _ = self.made.reset(seed=EpisodeSeeds(5).of(self.env, episode))
        self.obs_layout.write(obs, self.row)
        return self.row

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        given = self.action_layout.to_env(action[None])[0]
        obs, reward, terminated, truncated, _ = self.made.step(given)
        self.obs_layout.write(obs, self.row)
        return self.row, float(reward), bool(terminated), bool(truncated)


@pytest.mark.parametrize("name", ["dict", "numbers", NATIVE])
def test_every_row_is_a_good_step_and_no_step_is_missing(name: str) -> None:
    """Each environment played again by its own actions gives the rollout's rows, endings and faults.

    The oracle knows nothing of rollouts: it resets with the seeds of the episodes, steps, and where an
    episode was dropped tries the action that was noted, which must give NaN or infinity.
    """
    sampler = sampler_of(name, ways(name)[-1])
    rollouts = collected(sampler, name)
    faults = sampler.take_faults()
    assert faults
    for rollout, steps in zip(rollouts, (7, 60, 1, 1, 40), strict=True):
        assert rollout.rewards.shape == (steps, NUM_ENVS)
        for block in (rollout.obs, rollout.rewards, rollout.final_obs, rollout.last_obs):
            assert torch.isfinite(block).all()
    num_dropped = 0
    for env in range(NUM_ENVS):
        again = Replayed(name, env)
        mine = {(f.episode): f for f in faults if f.env == env}
        finals = {
            (n, t): (rollout.final_obs[k], rollout.episodes[k])
            for n, rollout in enumerate(rollouts)
            for k, (t, i) in enumerate(rollout.final_at.tolist())
            if i == env
        }
        length, total = 0, 0.0
        row = again.begin(0)
        for n, rollout in enumerate(rollouts):
            for t in range(len(rollout.rewards)):
                while (again.episode in mine and mine[again.episode].step == length + 1) or (
                    not np.isfinite(row).all()
                ):
                    fault = mine.pop(again.episode)
                    assert fault.seed == EpisodeSeeds(5).of(env, again.episode)
                    assert fault.step == (length + 1 if np.isfinite(row).all() else 0)
                    if fault.step:
                        assert len(fault.actions) == fault.step
                        _, reward, *_ = again.step(fault.actions[-1])
                        assert not (np.isfinite(row).all() and math.isfinite(reward))
                        num_dropped += 1
                    length, total = 0, 0.0
                    row = again.begin(again.episode + 1)
                assert np.array_equal(rollout.obs[t, env].numpy(), row)
                row, reward, terminated, truncated = again.step(rollout.actions[t, env].numpy())
                length, total = length + 1, total + reward
                assert float(rollout.rewards[t, env]) == np.float32(reward)
                assert bool(rollout.terminated[t, env]) == terminated
                fault_next = mine.get(again.episode)
                is_cut = (
                    fault_next is not None
                    and fault_next.step == length + 1
                    and t + 1 < len(rollout.rewards)
                )
                assert bool(rollout.truncated[t, env]) == (truncated or is_cut)
                if terminated or truncated or is_cut:
                    final, record = finals.pop((n, t))
                    assert np.array_equal(final.numpy(), row)
                    assert (record.env, record.index) == (env, again.episode)
                    assert record.episode_length == length
                    assert record.episode_return == pytest.approx(total)
                if terminated or truncated:
                    length, total = 0, 0.0
                    row = again.begin(again.episode + 1)
        assert finals == {}
    assert num_dropped >= 3
    facts.note("dropped", steps=num_dropped)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", ["dict", "numbers", NATIVE])
def test_all_loops_drop_the_same(name: str, engine: str) -> None:
    """The loops in Python, in C++ and without Python collect the same bits, faults and states."""
    found = []
    for way in ways(name):
        sampler = sampler_of(name, way)
        rollouts = collected(sampler, name, engine)
        told = [(str(f), f.actions.tolist()) for f in sampler.take_faults()]
        found.append((rollouts, sorted(told), sampler.state_dict()))
    for rollouts, told, state in found[1:]:
        for mine, other in zip(rollouts, found[0][0], strict=True):
            assert_same(mine, other)
        assert told == found[0][1]
        for key, array in state.items():
            np.testing.assert_array_equal(array, found[0][2][key], err_msg=key)


@pytest.mark.parametrize("name", ["dict", "numbers", NATIVE])
def test_a_saved_point_after_a_drop_is_reached_again(name: str) -> None:
    """A fresh sampler brought to it goes on with the same bits: the dropped step is in no replay."""
    policy = policy_for(source_of(name))
    first = sampler_of(name, ways(name)[-1])
    first.collect(policy, 50)
    state = first.state_dict()
    expected = first.collect(policy, 30)
    for way in ways(name):
        second = sampler_of(name, way)
        assert second.load_state_dict(state) is None
        assert_same(second.collect(policy, 30), expected)


@pytest.mark.parametrize("name", ["dict", NATIVE])
def test_the_third_time_within_an_hour_is_too_often(name: str) -> None:
    """The error names environment, episode, seed, step and value, and what to do."""
    sampler = sampler_of(name, ways(name)[-1], until_third=True)
    with pytest.raises(NumericsError, match="must not fail 3 times within an hour") as caught:
        collected(sampler, name)
    faults = sampler.take_faults()
    last = faults[-1]
    assert sum(fault.env == last.env for fault in faults) == 3
    assert str(last) in caught.value.message
    assert f"episode {last.episode} (seed {last.seed}) at" in caught.value.message
    assert any(
        word in caught.value.message for word in ("nan in column", "inf as the", "inf in col")
    )
    assert "clipper replay" in str(caught.value.hint)


def test_an_hour_later_it_is_the_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three within an hour of one environment; a saved ledger remembers, an old one counts no more."""
    now = [1_000.0]
    monkeypatch.setattr("clipper.faults.time.time", lambda: now[0])
    ledger = FaultLedger()
    assert [ledger.count(env) for env in (0, 1, 0, 1)] == [False] * 4
    again = FaultLedger.from_json(ledger.to_json())
    assert again.count(0)
    assert again.to_json()["1"] == [1_000.0, 1_000.0]
    now[0] += 3_601.0
    assert not FaultLedger.from_json(ledger.to_json()).count(1)


class Seldom(DictEnv):
    """Gives NaN once in 40 episodes, in the third step; the seed alone decides which."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        found = super().reset(seed=seed)
        assert seed is not None
        self.is_bad = seed % 40 == 3
        return found

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, math.nan if self.is_bad and self.clock == 3 else reward, *rest


def test_workers_collect_what_one_process_does() -> None:
    """Blocks, records and faults are those of one process, however environments are shared out."""
    source = env_source(Seldom)
    config = clipper.PPOConfig().replace(hidden_sizes=(8,), on_nonfinite="drop-episode")
    policy = policy_for(Seldom)
    found = []
    for workers in (0, 2):
        sampler: Any = (
            ProcessSampler(source, 4, workers, 5, policy, config)
            if workers
            else local_sampler(source, range(4), 5, "gymnasium", ledger=FaultLedger())
        )
        rollouts = [sampler.collect(policy, 40) for _ in range(3)]
        faults: list[Fault] = sampler.take_faults()
        found.append((rollouts, sorted(map(str, faults)), sampler.state_dict()))
        sampler.close()
    (alone, told, state), (shared, told_too, state_too) = found
    assert told
    assert told == told_too
    for mine, other in zip(shared, alone, strict=True):
        assert_same(mine, other)
    for key, array in state.items():
        np.testing.assert_array_equal(state_too[key], array, err_msg=key)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_counts_and_tells(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The budget is met exactly, the metric counts, a file shows it again, resuming is exact."""
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING, "clipper"):
        whole = clipper.PPO(Seldom, workers=workers, **SMALL)
        whole.train(progress=False, run_dir=run)
    whole.close()
    assert whole.step == SMALL["total_timesteps"]
    assert whole.inexact is None
    rows = read_rows(run / "metrics.csv")
    dropped = sum(float(row["rollout/dropped_episodes"] or 0) for row in rows)
    files = sorted((run / "faults").iterdir())
    assert dropped == len(files) > 0
    assert (
        caplog.text.count("it gave nan as the reward; the episode ends before that step") == dropped
    )
    first = clipper.PPO(Seldom, **SMALL)
    first.train(progress=False, run_dir=tmp_path / "parts", callback=lambda r: r.iteration != 3)
    second = clipper.resume(tmp_path / "parts", env=Seldom, workers=workers)
    second.train(progress=False)
    second.close()
    assert second.inexact is None
    assert torch.equal(flat_parameters(second.policy), flat_parameters(whole.policy))

    def without_times(folder: Path) -> list[dict[str, str]]:
        rows = read_rows(folder / "metrics.csv")
        return [{k: v for k, v in row.items() if "time/" not in k} for row in rows]

    assert without_times(tmp_path / "parts") == without_times(run)


@pytest.mark.parametrize("isolate", [False, True])
def test_periodic_evaluations_leave_such_episodes_out(
    isolate: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on, and has a score at each of them."""
    settings = {**SMALL, "eval_every": 192, "eval_episodes": 200}
    agent = clipper.PPO(Seldom, isolate=isolate, max_episode_steps=20, **settings)
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(progress=False, run_dir=tmp_path / "run")
    agent.close()
    assert agent.step == SMALL["total_timesteps"]
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    scores = [float(row["eval/return_deterministic"] or math.nan) for row in rows]
    assert [math.isfinite(score) for score in scores] == [False, True] * 3
    assert agent.best == max(scores[1::2])
    assert re.search(r"deterministic evaluation: \d+ of 200 episodes left out: ", caplog.text)


@NEEDS_ENGINE
def test_what_was_given_is_seen_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`clipper replay` plays the episode to the step that went wrong, and names the number."""
    run = tmp_path / "run"
    agent = clipper.PPO(walk("BOX", "NAN_AT=4", "NAN_EVERY=17"), **SMALL)
    agent.train(progress=False, run_dir=run)
    files = sorted((run / "faults").iterdir())
    assert files
    capsys.readouterr()
    assert main(["replay", str(files[0]), "--trust-env"]) == 3
    said = capsys.readouterr()
    assert "then it gave nan in column 0 of the observation" in said.err
    assert said.out == "gave nan in column 0 of the observation in step 4\n"


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "ACER", "VPG", "TRPO", "CEM"])
def test_every_algorithm_goes_on(algorithm: str) -> None:
    """With NaN now and then all of them meet their budget, with an agent that is finite."""
    settings = {"preset": "none", "num_envs": 2, "hidden_sizes": (8,), "eval_every": 0, "seed": 0}
    if algorithm == "CEM":
        settings["population_size"] = 6
    agent = getattr(clipper, algorithm)(
        Seldom, total_timesteps=600, on_nonfinite="drop-episode", **settings
    )
    dropped = 0.0

    def count(report: Any) -> None:
        nonlocal dropped
        dropped += report.metrics.get("rollout/dropped_episodes", 0.0)

    agent.train(progress=False, callback=count)
    assert dropped > 0
    assert agent.step >= 600
    assert torch.isfinite(flat_parameters(agent.policy)).all()


def test_one_episode_rollouts_end_where_the_episode_was_good() -> None:
    """REINFORCE's rollout of a dropped episode has its good steps alone, the last one truncated."""
    sampler = local_sampler(env_source(Spoilt), range(1), 5, "gymnasium", ledger=Patient())
    policy = policy_for(Spoilt)
    rollouts = [sampler.collect(policy, 50, until_end=True) for _ in range(40)]
    told = {fault.episode: fault.step for fault in sampler.take_faults() if fault.step > 1}
    cut = 0
    for rollout in rollouts:
        (record,) = rollout.episodes
        assert len(rollout.rewards) == record.episode_length
        if record.index in told:
            cut += 1
            assert record.episode_length == told[record.index] - 1
            assert bool(rollout.truncated[-1, 0])
            assert not bool(rollout.terminated[-1, 0])
    assert cut == len(told) > 0
