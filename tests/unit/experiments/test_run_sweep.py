"""The runner of a sweep: one row per run, the same as a run alone, whatever was done before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import clipper
from clipper.checkpoint import parameters_sha256, prefixed
from clipper.curves import read_curve
from clipper.errors import ConfigError, EnvironmentFault, EnvironmentUnknown, FileError
from clipper.experiments import RunSpec, read_rows, run_sweep
from clipper.experiments.one_run import train_run
from clipper.experiments.results import read_curve_points
from run_folders import differences

SMALL: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 32,
    "minibatch_size": 64,
    "num_epochs": 1,
    "hidden_sizes": (8,),
    "eval_every": 0,
}


def small_run(seed: int = 0, setting: str = "a", **changes: Any) -> RunSpec:
    """Returns a run of four iterations."""
    settings = {**SMALL, "total_timesteps": 256, **changes}
    return RunSpec(setting=setting, env="CartPole-v1", seed=seed, settings=settings, evaluate=2)


def test_a_row_is_what_the_run_alone_gives(tmp_path: Path) -> None:
    """A run in a sweep has the parameters, scores and evaluation of the same run in this process."""
    specs = [small_run(seed, name, clip_range=c) for seed in (0, 1) for name, c in AB]
    outcome = run_sweep(specs, tmp_path / "sweep", jobs=2)
    assert outcome.exit_code == 0
    assert [row.key for row in outcome.rows] == [spec.key for spec in specs]
    assert sorted(read_rows(tmp_path / "sweep/results.csv"), key=lambda row: row.key) == sorted(
        outcome.rows, key=lambda row: row.key
    )
    for spec, row in zip(specs, outcome.rows, strict=True):
        agent = clipper.PPO("CartPole-v1", seed=spec.seed, **spec.settings)
        run_dir = tmp_path / f"{spec.setting}-{spec.seed}"
        agent.train(progress=False, run_dir=run_dir)
        state = {k: v.numpy() for k, v in agent.policy.state_dict().items()}
        returns = read_curve(run_dir).returns
        assert row.parameters_sha256 == parameters_sha256(prefixed("policy", state))
        assert row.score == pytest.approx(returns[-100:].mean(), rel=1e-12)
        assert row.score_all == pytest.approx(returns.mean(), rel=1e-12)
        assert row.episodes == len(returns)
        assert row.eval_mean == agent.evaluate(2, seed=0).mean
        assert (row.steps, row.eval_episodes, row.exact) == (256, 2, True)
        assert row.engine == agent.engine


AB = (("a", 0.1), ("b", 0.3))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_run_whose_sweep_is_gone_loses_no_row(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipe breaks where it tells how far it is; gone on with, it has every row and episode.

    The last iteration of all (number 4) can be the one too.
    """
    monkeypatch.setattr("clipper.experiments.one_run._PROGRESS_SECONDS", 0.0)
    spec, told = small_run(), []

    def notify(event: dict[str, Any]) -> None:
        told.append(event["step"])
        if len(told) == number:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        train_run(spec, tmp_path / "broken", notify)
    assert told == [64 * (i + 1) for i in range(number)]
    found = train_run(spec, tmp_path / "broken", lambda event: None)
    expected = train_run(spec, tmp_path / "whole", lambda event: None)
    assert found is not None
    assert expected is not None
    for name in ("score", "score_all", "episodes", "eval_mean", "parameters_sha256", "exact"):
        assert getattr(found[0], name) == getattr(expected[0], name), name
    assert differences(tmp_path / "broken", tmp_path / "whole") == []


def test_rows_alone_are_enough_to_go_on(tmp_path: Path) -> None:
    """In a folder with nothing but the two CSV files finished runs are not run again."""
    first = run_sweep([small_run(0), small_run(1)], tmp_path / "one", jobs=2)
    (tmp_path / "two").mkdir()
    for name in ("results.csv", "curves.csv"):
        (tmp_path / "two" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    second = run_sweep([small_run(s) for s in range(3)], tmp_path / "two", jobs=2)
    assert [run.is_old for run in second.runs] == [True, True, False]
    assert second.rows[:2] == first.rows
    assert len(read_rows(tmp_path / "two/results.csv")) == 3
    assert [p.name for p in (tmp_path / "two/runs/CartPole-v1").iterdir()] == ["a-2"]
    points = read_curve_points(tmp_path / "two/curves.csv")
    assert {point.seed for point in points} == {0, 1, 2}


def test_a_result_without_a_row_becomes_one(tmp_path: Path) -> None:
    """A sweep killed between a run's end and its row makes the row later, without running again."""
    first = run_sweep([small_run(0)], tmp_path, jobs=1)
    (tmp_path / "results.csv").unlink()  # the curve is written first, and stays
    before = (tmp_path / "curves.csv").read_bytes()
    stamp = (tmp_path / "runs/CartPole-v1/a-0/metrics.csv").stat().st_mtime_ns
    second = run_sweep([small_run(0)], tmp_path, jobs=1)
    assert second.rows == first.rows
    assert (tmp_path / "curves.csv").read_bytes() == before
    assert (tmp_path / "runs/CartPole-v1/a-0/metrics.csv").stat().st_mtime_ns == stamp


def test_a_failure_is_kept_and_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails has a log and an exit code, others finish, and it is tried again."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "brittle.py").write_text(
        "import os\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Brittle(CartPoleEnv):\n"
        "    def step(self, action):\n"
        f"        if os.path.exists({str(tmp_path / 'break')!r}):\n"
        "            raise RuntimeError('a gear is broken')\n"
        "        return super().step(action)\n"
    )
    (tmp_path / "break").touch()
    bad = RunSpec(setting="a", env="brittle:Brittle", seed=0, settings=small_run().settings)
    outcome = run_sweep([bad, small_run(0)], tmp_path / "sweep", jobs=1)
    assert [run.status for run in outcome.runs] == ["failed", "finished"]
    assert outcome.exit_code == EnvironmentFault.exit_code
    assert "a gear is broken" in outcome.failed[0].message
    log = tmp_path / "sweep/logs" / f"{bad.folder}.log"
    assert "a gear is broken" in log.read_text()
    (tmp_path / "break").unlink()
    again = run_sweep([bad, small_run(0)], tmp_path / "sweep", jobs=1)
    assert [run.status for run in again.runs] == ["finished", "finished"]
    assert again.exit_code == 0


def test_other_settings_under_an_old_name_are_refused(tmp_path: Path) -> None:
    """A name that has rows means what it meant; nothing is run or written under another meaning."""
    run_sweep([small_run(0)], tmp_path, jobs=1)
    before = (tmp_path / "results.csv").read_bytes(), (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(ConfigError, match="made with others"):
        run_sweep([small_run(0, gamma=0.5), small_run(1, gamma=0.5)], tmp_path, jobs=1)
    assert (
        (tmp_path / "results.csv").read_bytes(),
        (tmp_path / "sweep.json").read_bytes(),
    ) == before
    assert not (tmp_path / "runs/CartPole-v1/a-1").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"settings": {**SMALL, "gamma": 0.5, "total_timesteps": 256}}, "gamma is 0.98 in place of 0.5"),
     ({"max_episode_steps": 7}, "its max_episode_steps is None in place of 7")],
)  # fmt: skip
def test_an_unfinished_run_of_other_settings_is_not_gone_on_with(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """A folder left by a sweep that was cut short must be that of the run that is asked for now."""
    folder = tmp_path / "runs/CartPole-v1/a-0"
    agent = clipper.PPO("CartPole-v1", **small_run().settings)
    agent.train(progress=False, run_dir=folder, callback=lambda report: report.step < 128)
    wanted = dataclasses.replace(small_run(), **changes)
    outcome = run_sweep([wanted], tmp_path, jobs=1)
    assert said in outcome.failed[0].message
    assert outcome.exit_code == FileError.exit_code
    assert run_sweep([small_run()], tmp_path, jobs=1).exit_code == 0
    assert "resumed at step 128" in (folder / "log.txt").read_text()


def test_a_wrong_environment_is_found_before_anything_runs(tmp_path: Path) -> None:
    """The error is that of `clipper.PPO`, with its hint, though another process found it."""
    wrong = RunSpec(setting="a", env="CartPol-v1", seed=0)
    with pytest.raises(EnvironmentUnknown) as caught:
        run_sweep([small_run(0), wrong], tmp_path, jobs=1)
    assert "CartPole-v1" in str(caught.value.hint)
    assert not (tmp_path / "runs").exists()


def test_the_folder_says_what_every_setting_is(tmp_path: Path) -> None:
    """`sweep.json` has all settings in full, those of an earlier call with the same folder too."""
    run_sweep([small_run(0)], tmp_path, jobs=1)
    run_sweep([small_run(0, "b", gamma=0.5)], tmp_path, jobs=1)
    entries = json.loads((tmp_path / "sweep.json").read_text())["settings"]
    assert [(e["setting"], e["config"]["gamma"]) for e in entries] == [("a", 0.98), ("b", 0.5)]
