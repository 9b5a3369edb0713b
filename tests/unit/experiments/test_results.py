"""Rows and curves on the disk: what is written is read, and what a kill cut is cut off."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from clipper.curves import Curve
from clipper.errors import FileError
from clipper.experiments import RunSpec, run_sweep
from clipper.experiments.results import (
    ResultsFiles,
    described_settings,
    read_curve_points,
    read_result,
    read_rows,
    write_result,
)
from clipper.experiments.rows import CurvePoint, Row, curve_points


def row(seed: int = 0, setting: str = 'a, "b"', env: str = "CartPole-v1", **changes: object) -> Row:
    """Returns a row with a name that CSV has to quote, and numbers of many digits."""
    values = {
        "algo": "ppo",
        "score": 0.1 + seed,
        "score_all": 1 / 3,
        "episodes": 7,
        "eval_mean": math.nan,
        "eval_episodes": 0,
        "steps": 100,
        "wall_seconds": 1.5,
        "cpu_seconds": 1.25,
        "config_hash": "0e1234567890",
        "parameters_sha256": "f" * 64,
        "engine": "native avx2",
        "exact": True,
        "version": "0.1.0",
        "commit": "abc+",
    }
    return Row(**{"setting": setting, "env": env, "seed": seed, **values, **changes})  # type: ignore[arg-type]


def points(of: Row) -> list[CurvePoint]:
    return [
        CurvePoint(
            setting=of.setting,
            env=of.env,
            seed=of.seed,
            step=s,
            wall_seconds=s / 7,
            mean_return=s / 3,
        )
        for s in (10, 20)
    ]


def same(first: Row, second: Row) -> bool:
    """Equal in every field, NaN being NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(
        dataclasses.astuple(first), dataclasses.astuple(second), strict=True
    ))  # fmt: skip


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    """Every field of a row and every point of a curve is read as it was written."""
    files = ResultsFiles(tmp_path)
    rows = [row(0), row(1, exact=False), row(0, env="Acrobot-v1", score=math.nan)]
    for one in rows:
        files.add(one, points(one))
    assert all(map(same, read_rows(tmp_path / "results.csv"), rows))
    assert read_curve_points(tmp_path / "curves.csv") == [p for one in rows for p in points(one)]
    write_result(tmp_path, rows[2], points(rows[2]))
    found = read_result(tmp_path)
    assert found is not None
    assert same(found[0], rows[2])
    assert found[1] == points(rows[2])
    assert read_result(tmp_path / "nowhere") is None


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_by_a_kill_is_cut_off(cut: int, tmp_path: Path) -> None:
    """Whatever is left of the last row, the others are read, and the next one is whole."""
    files = ResultsFiles(tmp_path)
    files.add(row(0), points(row(0)))
    files.add(row(1), points(row(1)))
    for name in ("results.csv", "curves.csv"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:-cut])
    assert [one.seed for one in read_rows(tmp_path / "results.csv")] == [0]
    again = ResultsFiles(tmp_path)
    assert [key[2] for key in again.rows] == [0]
    again.add(row(1), points(row(1)))
    assert [one.seed for one in read_rows(tmp_path / "results.csv")] == [0, 1]
    assert read_curve_points(tmp_path / "curves.csv") == points(row(0)) + points(row(1))


def test_a_curve_without_a_row_is_dropped(tmp_path: Path) -> None:
    """The curve is written first: after a kill between the two it would stand there twice."""
    files = ResultsFiles(tmp_path)
    files.add(row(0), points(row(0)))
    before = (tmp_path / "results.csv").read_bytes()
    files.add(row(1), points(row(1)))
    (tmp_path / "results.csv").write_bytes(before)
    ResultsFiles(tmp_path).add(row(1), points(row(1)))
    assert read_curve_points(tmp_path / "curves.csv") == points(row(0)) + points(row(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("score_all", "scores"), "no column score_all"),
        (lambda text: text.replace("native avx2,true", "native avx2,perhaps"), "line 2"),
        (lambda text: text.replace(",7,", ",seven,"), "line 2"),
        (lambda text: text + text.splitlines(keepends=True)[1], "a second time"),
        (lambda text: text + "a,b\n", "line 3"),
    ],
)
def test_damaged_results_are_refused(change: object, said: str, tmp_path: Path) -> None:
    """The line and what is wrong with it are named; nothing is guessed."""
    ResultsFiles(tmp_path).add(row(0), points(row(0)))
    file = tmp_path / "results.csv"
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    with pytest.raises(FileError, match=said):
        read_rows(file)


def test_curve_points_are_means_of_the_last_hundred() -> None:
    """At every hundredth of the run: the mean return of the last 100 episodes that had ended there.

    Episode i ends at step 10 (i + 1) with return i; of 300 episodes and 3000 steps the point at
    step 30 k has seen episodes 0 .. 3k - 1.
    """
    ends = 10.0 * (np.arange(300) + 1)
    curve = Curve(
        env="A-v0",
        name="x",
        seed=4,
        steps=ends,
        wall_seconds=ends / 100,
        returns=np.arange(300.0),
        metrics={},
    )
    found = curve_points(("s", "B-v0", 5), curve, 3000)
    assert [p.step for p in found] == [30 * k for k in range(1, 101)]
    assert {p.key for p in found} == {("s", "B-v0", 5)}
    for k, point in enumerate(found, start=1):
        seen = list(range(3 * k))[-100:]
        assert point.mean_return == pytest.approx(sum(seen) / len(seen), rel=1e-5)
        assert point.wall_seconds == pytest.approx(0.3 * k)


def test_short_runs_have_fewer_points() -> None:
    """A run of 40 steps has no 100 different steps to show, and none before its first episode."""
    curve = Curve(
        env="A-v0",
        name="x",
        seed=0,
        steps=np.array([25.0, 40.0]),
        wall_seconds=np.array([1.0, 2.0]),
        returns=np.array([3.0, 5.0]),
        metrics={},
    )
    found = curve_points(("s", "A-v0", 0), curve, 40)
    assert [p.step for p in found] == list(range(25, 41))
    assert [p.mean_return for p in found] == [3.0] * 15 + [4.0]


@pytest.mark.parametrize(
    "text",
    ['{"format":1}', '{"format":1,"settings":{}}', '{"format":1,"settings":[{}]}', "[]", "{", "\xff",
     '{"format":1,"settings":[{"setting":"a","env":"E","config":1}]}',
     '{"format":1,"settings":[{"setting":["a"],"env":"E","config":{}}]}',
     '{"format":true,"settings":[]}', '{"format":1,"settings":[],"settings":[]}'],
)  # fmt: skip
def test_settings_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    """One error of ours with the file's name, for the sweep that goes on and for all that look."""
    file = tmp_path / "sweep.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(FileError, match=re.escape(str(file))):
        described_settings(file)
    with pytest.raises(FileError, match=re.escape(str(file))):
        run_sweep([RunSpec(setting="a", env="CartPole-v1", seed=0)], tmp_path, jobs=1)
    assert file.read_bytes() == text.encode("latin-1"), "what cannot be read is not written over"
