"""Laws of the loop: whatever stops a run, what was learnt is kept, and it goes on exactly or says so."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

import clipper
from clipper.checkpoint import checkpoints_in, read_checkpoint, write_checkpoint
from clipper.errors import ConfigError, EnvironmentFault, FileError
from clipper.training_report import Report
from clipper.training_run import TrainingRun
from helpers import DictEnv
from run_folders import differences, rows_without_times

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 32,
    "num_epochs": 1,
    "minibatch_size": 64,
    "hidden_sizes": (4,),
    "total_timesteps": 8 * 64,
    "eval_every": 2 * 64,
    "eval_episodes": 1,
}


def agent(env: Any = "CartPole-v1", **changes: Any) -> clipper.PPO:
    return clipper.PPO(env, **{**SMALL, "seed": 5, **changes})


def parameters(found: clipper.PPO) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in found.policy.parameters()])


def saved_steps(run: Path) -> list[int]:
    return [int(p.name[5:]) for p in checkpoints_in(run / "checkpoints")]


@pytest.fixture(scope="module")
def straight() -> torch.Tensor:
    """Parameters of the run that nothing stopped."""
    whole = agent()
    whole.train(progress=False)
    return parameters(whole)


def test_a_run_killed_in_its_first_seconds_goes_on(tmp_path: Path, straight: torch.Tensor) -> None:
    """There is a checkpoint before the first step, so a kill at once loses nothing but time."""
    program = (
        "import os, sys\n"
        "import clipper\n"
        "run = clipper.PPO('CartPole-v1', seed=5, **eval(sys.argv[1]))\n"
        "run.train(progress=False, run_dir=sys.argv[2], callback=lambda r: os.kill(os.getpid(), 9))\n"
    )
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", program, repr(SMALL), str(run)])
    assert done.returncode == -signal.SIGKILL
    assert saved_steps(run) == [0]
    resumed = clipper.resume(run)
    assert resumed.step == 0
    resumed.train(progress=False)
    assert resumed.inexact is None
    assert torch.equal(parameters(resumed), straight)


def test_an_interrupt_that_nobody_sent_is_no_success(tmp_path: Path) -> None:
    """A KeyboardInterrupt that the environment raises itself ends the run as an error; it is saved."""

    class Interrupts(CartPoleEnv):
        count = 0

        def step(self, action: Any) -> Any:
            self.count += 1
            if self.count == 70:
                raise KeyboardInterrupt
            return super().step(action)

    trained = agent(Interrupts)
    with pytest.raises(KeyboardInterrupt):
        trained.train(progress=False, run_dir=tmp_path / "run")
    assert 0 < trained.step == saved_steps(tmp_path / "run")[-1] < SMALL["total_timesteps"]


def test_a_callback_that_raises_loses_nothing(tmp_path: Path) -> None:
    """The iteration that it was shown is saved before its error is passed on, with its rows."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    agent().train(progress=False, run_dir=whole)

    def fail(report: Report) -> None:
        if report.iteration == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        agent().train(progress=False, run_dir=stopped, callback=fail)
    assert saved_steps(stopped)[-1] == 3 * 64
    assert len(rows_without_times(stopped / "metrics.csv")) == 3
    clipper.resume(stopped).train(progress=False)
    assert differences(stopped, whole) == []


@pytest.mark.parametrize("kept", [True, False])
def test_stopped_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: torch.Tensor, kept: bool
) -> None:
    """The iteration whose evaluation was cut is done again: no evaluation is missing afterwards."""
    run, real, calls = agent(), TrainingRun._selection_scores, []

    def interrupted(self: TrainingRun) -> dict[str, float]:
        calls.append(self.state.step)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(TrainingRun, "_selection_scores", interrupted)
    outcome = run.train(progress=False, run_dir=tmp_path if kept else None)
    assert outcome.signal == signal.SIGINT
    assert run.step == 3 * 64  # the second evaluation belongs to the fourth iteration
    if kept:
        run = clipper.resume(tmp_path)
    run.train(progress=False)
    assert run.inexact is None
    assert calls == [2 * 64, 4 * 64, 4 * 64, 6 * 64, 8 * 64]
    assert torch.equal(parameters(run), straight)


def test_an_environment_that_fails_in_an_evaluation(tmp_path: Path) -> None:
    """The iteration before it counts; what failed is passed on after saving."""

    class Fragile(DictEnv):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            type(self).made += 1
            self.number = type(self).made

        def reset(self, **kwargs: Any) -> Any:
            if self.number > 6:
                raise OSError("the cable is out")
            return super().reset(**kwargs)

    with pytest.raises(EnvironmentFault, match="the cable is out"):
        agent(Fragile).train(progress=False, run_dir=tmp_path)
    step = saved_steps(tmp_path)[-1]
    assert step > 0
    resumed = clipper.resume(tmp_path, env=DictEnv)
    resumed.train(progress=False)
    assert resumed.step == 8 * 64


def test_a_resumed_run_writes_its_own_folder(tmp_path: Path) -> None:
    """It cannot be led into another run's folder."""
    for name in ("a", "b"):
        agent().train(progress=False, run_dir=tmp_path / name, callback=lambda r: r.iteration < 2)
    before = (tmp_path / "b" / "config.json").read_text()
    resumed = clipper.resume(tmp_path / "a")
    with pytest.raises(ConfigError, match="run_dir must not be given"):
        resumed.train(progress=False, run_dir=tmp_path / "b")
    resumed.close()
    assert (tmp_path / "b" / "config.json").read_text() == before
    with pytest.raises(FileError, match="must not hold a run yet"):
        agent().train(progress=False, run_dir=tmp_path / "b")


@pytest.mark.parametrize("named", [False, True])
def test_a_second_call_goes_on_in_the_folder(named: bool, tmp_path: Path) -> None:
    """Two calls, as after Ctrl-C in a notebook, leave the rows and checkpoint of one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    agent().train(progress=False, run_dir=whole)
    ours = agent()
    ours.train(progress=False, run_dir=parts, callback=lambda r: r.iteration < 3)
    ours.train(progress=False, run_dir=parts if named else None)
    assert differences(whole, parts) == []
    assert saved_steps(parts)[-1] == saved_steps(whole)[-1]
    assert not (parts / "lock").exists()
    resumed = json.loads((parts / "config.json").read_text())["resumed"]
    assert [part["step"] for part in resumed] == [3 * 64]


def test_a_second_call_leaves_what_others_wrote(tmp_path: Path) -> None:
    """A folder that was resumed elsewhere, or is gone, is not written; another can be given."""
    ours = agent()
    ours.train(progress=False, run_dir=tmp_path / "run", callback=lambda r: r.iteration < 3)
    clipper.resume(tmp_path / "run").train(progress=False)
    before = (tmp_path / "run/metrics.csv").read_text()
    with pytest.raises(FileError, match="as this run left it, but another process went on with it"):
        ours.train(progress=False)
    assert (tmp_path / "run/metrics.csv").read_text() == before
    assert not (tmp_path / "run/lock").exists()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileError, match="must still be the folder of this run"):
        ours.train(progress=False)
    assert not (tmp_path / "run").exists()
    ours.train(progress=False, run_dir=tmp_path / "other")
    assert ours.step == 8 * 64


@pytest.mark.parametrize("callback", [3, "note", ["note"], {print: 1}, [None]])
def test_a_callback_that_is_none_is_refused(callback: Any, tmp_path: Path) -> None:
    """Before anything is written; None is the same as no callback."""
    ours = agent()
    with pytest.raises(ConfigError, match="callback must be a function"):
        ours.train(progress=False, run_dir=tmp_path / "run", callback=callback)
    assert not (tmp_path / "run").exists()
    assert ours.train(progress=False, callback=None).step > 0


def test_a_callback_cannot_take_the_environment_away() -> None:
    """It is stepped by the training that called back; who asks is told, and the agent goes on after."""
    env = gymnasium.make("CartPole-v1")
    ours = agent(env, num_envs=1, minibatch_size=32)
    for ask in (ours.evaluate, ours.close, ours.train):
        with pytest.raises(ConfigError, match="must not be called while the agent is trained"):
            ours.train(progress=False, callback=lambda _, ask=ask: ask())
    assert ours.evaluate(2).episodes == 2
    ours.train(progress=False)
    assert ours.step == 8 * 64

    scores = []
    with_own = agent("CartPole-v1")
    with_own.train(progress=False, callback=lambda _: scores.append(with_own.evaluate(1).mean))
    assert len(scores) == 8


def test_steps_that_are_done_cannot_be_undone(tmp_path: Path) -> None:
    """A total that is already passed is refused, and the run's own stays."""
    agent().train(progress=False, run_dir=tmp_path, callback=lambda r: r.iteration < 4)
    resumed = clipper.resume(tmp_path)
    with pytest.raises(ConfigError, match="must be above the 256 steps that are done"):
        resumed.train(256, progress=False)
    resumed.train(progress=False)
    assert resumed.step == 8 * 64


def test_where_a_run_came_from_is_kept_on_resume(tmp_path: Path, monkeypatch: Any) -> None:
    """The first command stays in `config.json`; every resume adds its own."""
    monkeypatch.setattr(sys, "argv", ["clipper", "train"])
    agent().train(progress=False, run_dir=tmp_path, callback=lambda r: r.iteration < 2)
    monkeypatch.setattr(sys, "argv", ["clipper", "resume"])
    clipper.resume(tmp_path).train(progress=False, callback=lambda r: r.iteration < 4)
    clipper.resume(tmp_path).train(10 * 64, progress=False)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["command"] == ["clipper", "train"]
    assert [(r["step"], r["command"]) for r in config["resumed"]] == [
        (2 * 64, ["clipper", "resume"]),
        (4 * 64, ["clipper", "resume"]),
    ]
    assert config["config"]["total_timesteps"] == 10 * 64


def test_training_on_from_a_file_is_not_exact(tmp_path: Path) -> None:
    """A file without optimiser state is exact until it is trained on; then it says why not."""
    first = agent()
    first.train(progress=False, callback=lambda r: r.iteration < 4)
    first.save(tmp_path / "a.safetensors")
    loaded = clipper.load(tmp_path / "a.safetensors")
    assert loaded.inexact is None
    loaded.train(progress=False)
    assert "no optimiser state" in str(loaded.inexact)
    loaded.save(tmp_path / "b.safetensors")
    again = clipper.load(tmp_path / "b.safetensors")
    assert "not exact" in str(again.inexact)


def test_other_versions_or_devices_are_not_exact(tmp_path: Path) -> None:
    """A checkpoint written with another torch or on another device goes on, and says so."""
    agent().train(progress=False, run_dir=tmp_path, callback=lambda r: r.iteration < 2)
    checkpoint, _ = read_checkpoint(tmp_path / "checkpoints")
    versions = {**checkpoint.agent_meta["versions"], "torch": "0.1"}
    checkpoint.agent_meta["versions"] = versions  # type: ignore[index]
    checkpoint.state["device"] = "cuda:0"  # type: ignore[index]
    write_checkpoint(tmp_path / "checkpoints", checkpoint)
    resumed = clipper.resume(tmp_path)
    assert "torch 0.1 ->" in str(resumed.inexact)
    assert "device cuda:0 -> cpu" in str(resumed.inexact)
    resumed.close()


def test_a_step_limit_on_an_instance_is_kept(tmp_path: Path) -> None:
    """An instance given anew is cut where the first one was."""
    lengths: list[int] = []
    settings = {"max_episode_steps": 5, "num_envs": 1, "num_steps": 64}
    agent(gymnasium.make("CartPole-v1"), **settings).train(
        progress=False, run_dir=tmp_path, callback=lambda r: r.iteration < 2
    )
    resumed = clipper.resume(tmp_path, env=gymnasium.make("CartPole-v1"))
    resumed.train(
        progress=False, callback=lambda r: lengths.extend(e.episode_length for e in r.episodes)
    )
    assert resumed.inexact is None
    assert lengths
    assert max(lengths) == 5


class Sized(DictEnv):
    """Remembers what it was made with."""

    sizes: list[int] = []  # noqa: RUF012

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.sizes.append(size)


def test_arguments_of_a_callable_are_kept(tmp_path: Path) -> None:
    """A callable given anew is called with the arguments of the first run."""
    agent(Sized, env_kwargs={"size": 3}).train(
        progress=False, run_dir=tmp_path, callback=lambda r: r.iteration < 2
    )
    Sized.sizes.clear()
    resumed = clipper.resume(tmp_path, env=Sized)
    resumed.train(progress=False)
    assert set(Sized.sizes) == {3}


def test_an_agent_acts_where_its_environment_is_unknown(tmp_path: Path) -> None:
    """On a machine that has the file alone it acts; to evaluate, it asks for the environment."""
    gymnasium.register("Passing-v0", entry_point=DictEnv)
    try:
        first = agent("Passing-v0")
    finally:
        del gymnasium.registry["Passing-v0"]
    first.save(tmp_path / "a.safetensors")
    loaded = clipper.load(tmp_path / "a.safetensors")
    obs = loaded.policy.obs_layout.space.sample()
    assert loaded.act(obs) == first.act(obs)
    with pytest.raises(ConfigError, match="Passing-v0"):
        loaded.evaluate(1)


def test_time_alone_ends_a_run_with_a_budget() -> None:
    """The preset's steps do not count beside a budget of time; steps that were given do."""
    by_time = clipper.PPO("CartPole-v1", seed=1, eval_every=0)
    by_time._run.rebudget(1_024)
    seen: list[float] = []
    outcome = by_time.train(
        budget=1.0, progress=False, callback=lambda r: seen.append(r.progress) is None
    )
    assert outcome.step > 1_024
    assert "budget" in outcome.reason
    assert seen == sorted(seen)
    by_steps = agent(total_timesteps=128).train(budget=1_000.0, progress=False)
    assert by_steps.step == 128
