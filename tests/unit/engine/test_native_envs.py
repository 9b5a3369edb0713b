"""Laws of environments stepped by the engine: nothing downstream can tell them from the others."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import clipper
from clipper.engine.native_envs import NativeEnvs, is_native, local_sampler
from clipper.envs.make import env_source
from clipper.errors import ConfigError, EnvironmentFault, NumericsError
from clipper.rollout import Rollout
from clipper.sampler import LocalSampler
from commands import read_rows
from helpers import collected, policy_for
from libraries import NEEDS_ENGINE, compiled, walk

pytestmark = NEEDS_ENGINE

SMALL = {
    "preset": "none",
    "num_envs": 4,
    "num_steps": 24,
    "num_epochs": 2,
    "minibatch_size": 32,
    "hidden_sizes": (8,),
    "total_timesteps": 6 * 96,
    "eval_every": 0,
    "learning_rate": "linear:1e-2:0",
}
ENVS = {
    "cartpole": ("CartPole-v1",),
    "pendulum": ("Pendulum-v1",),
    "choices": (walk,),
    "numbers": (walk, "BOX"),
    "endless": (walk, "BOX", "LIMIT=0"),
}


def name_of(key: str) -> str:
    make, *macros = ENVS[key]
    return make if isinstance(make, str) else make(*macros)


def sampler_for(name: str, vectorization: str, num_envs: int = 4) -> LocalSampler:
    return local_sampler(env_source(name), range(num_envs), 5, vectorization)


def assert_same(found: Rollout, expected: Rollout) -> None:
    for field in dataclasses.fields(Rollout):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert a == b if field.name == "episodes" else torch.equal(a, b), field.name
        if field.name != "episodes":
            assert a.dtype == b.dtype, field.name


@pytest.mark.parametrize("key", ENVS)
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_both_ways_collect_the_same(key: str, engine: str) -> None:
    """Every column, ending, record and saved state is that of Gymnasium's way, bit for bit."""
    name = name_of(key)
    theirs, ours = sampler_for(name, "gymnasium"), sampler_for(name, "native")
    assert isinstance(ours._envs, NativeEnvs)
    expected = collected(theirs, policy_for(name, engine), 70)
    found = collected(ours, policy_for(name, engine), 70)
    for mine, other in zip(found, expected, strict=True):
        assert_same(mine, other)
    episodes = [episode for rollout in found for episode in rollout.episodes]
    assert len(episodes) > 0
    assert {type(v) for e in episodes for v in (e.env, e.index, e.episode_length)} == {int}
    wanted = theirs.state_dict()
    for key_, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, wanted[key_], err_msg=key_)
        assert array.dtype == wanted[key_].dtype


@pytest.mark.parametrize("key", ["cartpole", "choices", "numbers"])
def test_a_state_is_taken_up_by_either(key: str) -> None:
    """Saved in the middle of episodes, each way goes on from the other's state, exactly."""
    name = name_of(key)
    policy = policy_for(name)
    first = sampler_for(name, "native")
    first.collect(policy, 33)
    state = first.state_dict()
    expected = first.collect(policy, 30)
    for vectorization in ("native", "gymnasium"):
        second = sampler_for(name, vectorization)
        assert second.load_state_dict(state) is None
        assert_same(second.collect(policy, 30), expected)
        second.close()
    spoilt = {**state, "obs": state["obs"] + 1}
    reason = sampler_for(name, "native").load_state_dict(spoilt)
    assert reason is not None
    assert reason.startswith("4 of 4 environments could not be replayed")


@pytest.mark.parametrize(
    ("macro", "text"),
    [
        ("FAIL_AT=3", r"must not fail in step, but did: the floor is missing at \d \(environment 0, "
         "episode 0, step 3"),
        ("FAIL_RESET", r"must not fail in reset, but did: .*episode \d+\)"),
        ("NUM_PLACES=3", "not one of its categories"),
    ],
)  # fmt: skip
def test_a_failure_is_told_with_its_place(macro: str, text: str) -> None:
    """The library's words, the environment, the episode, the step and the seed."""
    name = walk(macro)
    sampler = sampler_for(name, "native")
    with pytest.raises(EnvironmentFault, match=text) as caught:
        sampler.collect(policy_for(name), 200)
    assert "seed was" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("macros", "text"),
    [
        (
            (),
            r"fail in step, but did: it threw an exception, a gear is broken \(environment 0, epis",
        ),
        (
            ("THROW_IN_RESET",),
            r"fail in reset, but did: it threw an exception \(environment 0, epis",
        ),
    ],
)
def test_what_a_library_throws_is_told_with_its_place(
    macros: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    """As a failure that it returns is, and not as a defect of ours."""
    flags = ["-x", "c++", *(f"-D{macro}" for macro in macros), "-Wl,--no-as-needed", "-lstdc++"]
    source = Path(__file__).parents[2] / "throws.cpp"
    name = str(compiled(source, tmp_path / "libthrows.so", *flags))
    with pytest.raises(EnvironmentFault, match=text):
        sampler_for(name, "native").collect(policy_for(name), 200)


def test_a_number_that_is_not_finite_is_found() -> None:
    """The check of the whole block is that of all samplers."""
    name = walk("BOX", "NAN_AT=4")
    with pytest.raises(NumericsError, match="after step 4 of episode 0 of environment 0"):
        sampler_for(name, "native").collect(policy_for(name), 10)


def test_what_cannot_be_stepped_by_the_engine() -> None:
    """Wrappers, arguments and other environments are refused; auto takes libraries alone."""
    with pytest.raises(ConfigError, match="must be one of auto, gymnasium, native"):
        is_native(env_source("CartPole-v1"), "fast")
    with pytest.raises(ConfigError, match="by its name alone"):
        is_native(env_source(walk(), wrappers=[lambda env: env]), "native")
    kwargs = {"sutton_barto_reward": True}
    with pytest.raises(ConfigError, match="env_kwargs must be empty"):
        is_native(env_source("CartPole-v1", env_kwargs=kwargs), "native")
    assert not is_native(env_source("CartPole-v1"), "auto")
    assert is_native(env_source(walk()), "auto")
    assert not is_native(env_source(walk()), "gymnasium")


def parameters(agent: clipper.PPO) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def test_a_run_is_the_same_run(tmp_path: Path) -> None:
    """Native, then Gymnasium's, then with a worker: parameters and episodes of one whole run."""
    whole = clipper.PPO("CartPole-v1", seed=2, **SMALL)
    whole.train(progress=False, run_dir=tmp_path / "whole")
    first = clipper.PPO("CartPole-v1", seed=2, vectorization="native", **SMALL)
    first.train(
        progress=False, run_dir=tmp_path / "parts", callback=lambda report: report.iteration != 2
    )
    first.close()
    second = clipper.resume(tmp_path / "parts")
    second.train(progress=False, callback=lambda report: report.iteration != 4)
    second.close()
    third = clipper.resume(tmp_path / "parts", workers=1, vectorization="native")
    third.train(progress=False)
    assert torch.equal(parameters(third), parameters(whole))
    third.close()
    assert third.inexact is None

    def episodes(name: str) -> list[dict[str, str]]:
        rows = read_rows(tmp_path / name / "episodes.csv")
        return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]

    assert episodes("parts") == episodes("whole")
    assert len(episodes("whole")) > 3


def test_an_agent_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained by its file's name, saved, and examined again only with trust."""
    agent = clipper.PPO(walk(), seed=1, **SMALL)
    agent.train(progress=False, run_dir=tmp_path / "run")
    expected = agent.evaluate(episodes=3)
    assert "environments: stepped by the engine, without Python" in agent.describe()
    agent.close()
    with pytest.raises(ConfigError, match="not imported unasked"):
        clipper.load(tmp_path / "run").evaluate(episodes=3)
    loaded = clipper.load(tmp_path / "run", trust_env=True)
    assert loaded.evaluate(episodes=3).mean == expected.mean


def test_isolated_environments_give_the_same_run(tmp_path: Path) -> None:
    """All in workers, evaluations too: parameters and scores of the run in one process."""
    settings = {**SMALL, "eval_every": 192}
    alone = clipper.PPO("CartPole-v1", seed=2, vectorization="native", **settings)
    alone.train(progress=False)
    for workers in (0, 2):
        apart = clipper.PPO(
            "CartPole-v1", seed=2, isolate=True, workers=workers, vectorization="native", **settings
        )
        folder = tmp_path / str(workers)
        apart.train(progress=False, run_dir=folder, callback=lambda report: report.iteration != 3)
        apart.close()
        resumed = clipper.resume(folder, isolate=True)
        resumed.train(progress=False)
        assert torch.equal(parameters(resumed), parameters(alone))
        assert resumed.inexact is None
        assert resumed.best == alone.best
        assert resumed.evaluate(episodes=3) == alone.evaluate(episodes=3)
        resumed.close()


def test_an_inexact_start_is_not_forgotten_when_an_examination_comes_first(tmp_path: Path) -> None:
    """Environments that could not be brought back are reported, whoever needed them first."""
    name = walk("BOX")
    agent = clipper.PPO(name, seed=1, isolate=True, **SMALL)
    agent.train(progress=False, run_dir=tmp_path / "run", callback=lambda r: r.iteration != 1)
    agent.close()
    resumed = clipper.resume(tmp_path / "run", trust_env=True, isolate=True)
    state = dict(resumed._playground._state or {})
    resumed._playground.leave_at({**state, "episodes": state["episodes"] + 5})
    resumed.evaluate(episodes=1)
    resumed.train(progress=False, callback=lambda r: r.iteration != 2)
    assert "could not be replayed" in str(resumed.inexact)
    resumed.close()


def test_a_library_that_exits_is_not_done(tmp_path: Path) -> None:
    """exit(0) in a step: exit code 3 and where it was, in place of a run that seems to have ended."""
    name = walk("BOX", "EXIT_AT=20")
    code = "import sys; from clipper.cli.main import main; raise SystemExit(main(sys.argv[1:]))"
    words = ["train", name, "--out", str(tmp_path), "--quiet", "--total-timesteps", "4096"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert (
        f"error: {name} must not end the process, but called exit in clipper_env_step "
        "(environment 0, episode 0, step 20)." in done.stderr
    )
    by_python = [sys.executable, "-c", code, *words, "--vectorization=gymnasium"]
    done = subprocess.run(by_python, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "error: the library of an environment must not end the process, but" in done.stderr
    ended = subprocess.run(
        [sys.executable, "-c", code, *words, "--isolate"], capture_output=True, text=True
    )
    assert ended.returncode == 3
    assert "called exit in clipper_env_step" in ended.stderr
    assert "clipper replay" in ended.stderr


def test_a_crash_is_contained(tmp_path: Path) -> None:
    """A library that aborts ends its worker, which is replaced; three times is enough."""
    name = walk("BOX", "CRASH_AT=20")
    agent = clipper.PPO(name, seed=1, isolate=True, **{**SMALL, "num_steps": 8})
    with pytest.raises(EnvironmentFault, match="SIGABRT"):
        agent.train(progress=False, run_dir=tmp_path / "run")
    assert agent.step % 32 == 0
    assert agent.step >= 64
    agent.close()
    resumed = clipper.resume(tmp_path / "run", trust_env=True, isolate=True)
    assert resumed.step == agent.step
    resumed.close()


def test_environments_do_not_see_each_others_observations() -> None:
    """A library that writes one of its numbers in resets alone leaves each environment its own."""
    name = walk("BOX", "FORGETS")
    source = env_source(name)
    sampler = local_sampler(source, range(3), 7, "auto")
    rollout = sampler.collect(policy_for(name), 12)
    sampler.close()
    for env in range(3):
        alone = local_sampler(source, range(env, env + 1), 7, "auto", 3)
        found = alone.collect(policy_for(name), 12)
        alone.close()
        assert torch.equal(found.obs[:, 0], rollout.obs[:, env])
    assert len({float(x) for x in rollout.obs[1, :, -1]}) == 3


def test_a_reason_in_any_encoding_is_told() -> None:
    """What a library says need not be UTF-8."""
    agent = clipper.PPO(walk("BOX", "FAIL_AT=5", "LATIN"), seed=1, **SMALL)
    with pytest.raises(EnvironmentFault, match="step 5"):
        agent.train(progress=False)
    agent.close()


def test_lives_are_refused_where_nobody_counts_them() -> None:
    """By name it is an error; left to itself, Gymnasium's loop asks the library for lives."""
    source = env_source(walk("BOX")).with_settings({"terminal_on_life_loss": True})
    with pytest.raises(ConfigError, match="terminal_on_life_loss must be false"):
        is_native(source, "native")
    assert not is_native(source, "auto")
