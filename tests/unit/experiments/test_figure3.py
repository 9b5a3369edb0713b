"""Figure 3 of the PPO paper from rows: scores beside the readings, curves, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from clipper.configs import CONFIGS
from clipper.errors import ConfigError, FileError
from clipper.experiments import paper
from clipper.experiments.collection import Collection
from clipper.experiments.deviations import FIGURE3_DEVIATIONS
from clipper.experiments.figure3 import readings, reproduce_figure3
from clipper.experiments.paper import FIGURE3, Contender, figure3_runs
from clipper.experiments.rows import CurvePoint
from clipper.presets import MUJOCO_TASKS, PRESETS, Preset
from made_rows import collection, row

TASKS = ("HalfCheetah-v5", "Reacher-v5")


def study(steps: int) -> Collection:
    """Returns runs on two tasks: the i-th algorithm scores 100 i + seed, its curve rises to it."""
    rows = [
        dataclasses.replace(row(setting, env, seed, 100.0 * i + seed), steps=steps)
        for i, setting in enumerate(FIGURE3)
        for env in TASKS
        for seed in range(3)
    ]
    points = [
        CurvePoint(
            setting=r.setting,
            env=r.env,
            seed=r.seed,
            step=steps * k // 4,
            wall_seconds=float(k),
            mean_return=r.score * k / 4,
        )
        for r in rows
        for k in range(1, 5)
    ]
    return dataclasses.replace(collection(*rows), points=points)


def test_scores_stand_beside_the_readings() -> None:
    """Each line has our mean over seeds, and what others read off the printed figure, if they did."""
    found = reproduce_figure3(study(1_000_000), 3)
    lines = list(csv.DictReader(io.StringIO(found.csv)))
    assert len(lines) == len(found.table.rows) == 12
    by_key = {(line["env"], line["setting"]): line for line in lines}
    for i, setting in enumerate(FIGURE3):
        for env in TASKS:
            assert float(by_key[env, setting]["score"]) == pytest.approx(100 * i + 1)
    # two have read PPO on HalfCheetah, one TRPO on Reacher, nobody CEM
    assert by_key["HalfCheetah-v5", "PPO (clip 0.2)"]["read"] == "1800;1750"
    assert by_key["Reacher-v5", "TRPO"]["read"] == "-115"
    assert by_key["Reacher-v5", "CEM"]["read"] == ""
    text = str(found.table)
    assert "1,800 or 1,750" in text
    assert found.lines == ["tasks with the highest mean: TRPO 2"]


def test_the_picture_has_a_panel_a_task_with_the_readings_at_a_million() -> None:
    """Crosses stand at a million steps, in runs that are as long; shorter runs have none."""
    crosses = {}
    for steps in (1_000_000, 4096):
        axes = reproduce_figure3(study(steps), 3).figure.axes
        assert [a.get_title(loc="left") for a in axes] == list(TASKS)
        marks = [line for a in axes for line in a.lines if line.get_marker() == "x"]
        crosses[steps] = {(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in marks}
    expected = {v for name in FIGURE3 for env in TASKS for v in readings(name, env)}
    assert crosses == {1_000_000: {(1e6, v) for v in expected}, 4096: set()}
    without = dataclasses.replace(study(4096), points=[])
    with pytest.raises(FileError, match=r"curves\.csv"):
        reproduce_figure3(without, 3)


def test_what_is_not_registered_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """An algorithm or a preset that this version lacks is named before anything is trained."""
    ppo = FIGURE3["PPO (clip 0.2)"]
    monkeypatch.setattr(paper, "FIGURE3", {"P": ppo, "A3C": Contender("a3c", "a3c", {})})
    with pytest.raises(ConfigError, match="has no a3c"):
        figure3_runs()
    monkeypatch.setattr(paper, "FIGURE3", {"P": ppo, "other": Contender("ppo", "tuned", {})})
    with pytest.raises(ConfigError, match=r"no tuned/HalfCheetah-v5 \(and 6 more\)"):
        figure3_runs()
    monkeypatch.setattr(paper, "FIGURE3", {"P": ppo})
    runs = figure3_runs()
    assert [run.settings["total_timesteps"] for run in runs] == [1_000_000] * 21


def test_the_settings_of_every_algorithm_are_its_own() -> None:
    """What is given beside a preset are settings of the algorithm, and gamma is then 0.99 for all."""
    registered = {name: one for name, one in FIGURE3.items() if one.algo in CONFIGS}
    assert {"PPO (clip 0.2)", "A2C", "A2C + trust region"} <= set(registered)
    for one in registered.values():
        for task in MUJOCO_TASKS:
            preset = PRESETS.get(f"{one.family}/{task}", Preset("none", {}, "", one.algo))
            config = preset.config(**one.settings)
            assert config.to_json().get("gamma", 0.99) == 0.99


def test_those_who_normalise_observations_are_listed() -> None:
    """The remark of what the paper does not speak of names every algorithm whose presets do it."""
    (remark,) = (r for r in FIGURE3_DEVIATIONS if "normalise observations" in r)
    names = {"a2c": "A2C", "cem": "CEM", "ppo": "PPO", "trpo": "TRPO", "vpg": "vanilla gradient"}
    doing = {
        names[one.algo]
        for one in FIGURE3.values()
        for task in MUJOCO_TASKS
        if PRESETS[f"{one.family}/{task}"].config(**one.settings).to_json()["normalize_obs"]
    }
    assert doing == {name for name in names.values() if name in remark}
