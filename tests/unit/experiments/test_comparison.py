"""What is compared with what, what is said of it, and what is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clipper
from clipper.checkpoint import parameters_sha256, read_tensors
from clipper.errors import ClipperError, ConfigError, FileError
from clipper.experiments.collection import collect
from clipper.experiments.comparison import Comparison, compare, read_ranges
from clipper.experiments.figures import draw_profiles
from clipper.experiments.page import page_of
from clipper.experiments.report import write_report
from clipper.experiments.results import ResultsFiles
from clipper.experiments.rows import CurvePoint, Row
from clipper.experiments.tables import number, pairs_csv, summary_csv, tables_of, time_text

Scores = Mapping[str, Mapping[str, Sequence[float]]]
NORMAL = np.random.default_rng(0).normal(size=(20, 10))


def write_sweep(folder: Path, scores: Scores, **changes: Any) -> Path:
    """Writes the results of a sweep with these scores by setting and task."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ResultsFiles(folder)
    for setting, by_env in scores.items():
        for env, values in by_env.items():
            for seed, score in enumerate(values):
                row = Row(
                    **{
                        "setting": setting,
                        "env": env,
                        "seed": seed,
                        "algo": "ppo",
                        "score": float(score),
                        "score_all": float(score) / 2,
                        "episodes": 500,
                        "eval_mean": math.nan,
                        "eval_episodes": 0,
                        "steps": 1000,
                        "wall_seconds": 60.0,
                        "cpu_seconds": 30.0,
                        "config_hash": f"{setting}{env}"[:12],
                        "parameters_sha256": "0",
                        "engine": "native avx2",
                        "exact": True,
                        "version": "0.1.0",
                        "commit": "abc",
                        **changes,
                    }
                )
                points = [
                    CurvePoint(
                        setting=setting,
                        env=env,
                        seed=seed,
                        step=100 * k,
                        wall_seconds=6.0 * k,
                        mean_return=float(score) * k / 10,
                    )
                    for k in range(1, 11)
                ]
                files.add(row, points)
    return folder


def compared(folder: Path, scores: Scores, **how: Any) -> Comparison:
    return compare(collect([write_sweep(folder, scores)]), **how)


def test_one_task_is_compared_in_returns(tmp_path: Path) -> None:
    """Two settings five standard deviations apart: better, by as much as their IQMs differ."""
    low, high = NORMAL[0], NORMAL[1] + 5
    found = compared(tmp_path, {"a": {"E-v0": low}, "b": {"E-v0": high}})
    (pair,) = found.pairs
    assert (pair.setting, pair.baseline, pair.verdict, pair.further) == ("b", "a", "better", 0)
    a, b = (found.summaries[s, "E-v0"] for s in "ab")
    assert pair.difference.value == pytest.approx(b.iqm.value - a.iqm.value)
    assert pair.improvement.value == pytest.approx(1.0)
    assert a.mean.value == pytest.approx(low.mean())
    assert a.median.value == pytest.approx(np.median(low))
    assert a.all == pytest.approx(low.mean() / 2)
    assert found.overall == []
    mirrored = compare(found.collection, baseline="b").pairs[0]
    assert (mirrored.setting, mirrored.verdict) == ("a", "worse")


def test_little_apart_is_said_with_a_number_of_seeds(tmp_path: Path) -> None:
    """A fifth of a standard deviation with ten seeds is not distinguishable, and it says for how long.

    About 2 (2.8 / 0.2)^2 = 392 seeds in all; the measured difference and spread vary around it.
    """
    found = compared(tmp_path, {"a": {"E-v0": NORMAL[2]}, "b": {"E-v0": NORMAL[2] + 0.2}})
    (pair,) = found.pairs
    assert 100 < pair.further < 1500
    assert "not distinguishable with these seeds, about" in pair.verdict
    assert "more would tell" in pair.verdict
    equal = compared(tmp_path / "x", {"a": {"E-v0": NORMAL[2]}, "b": {"E-v0": NORMAL[2]}})
    assert equal.pairs[0].verdict == "not distinguishable: the scores are equal"


def test_several_tasks_are_normalised_over_the_runs(tmp_path: Path) -> None:
    """0 is the lowest run of a task and 1 the highest; given ranges take their place."""
    scores = {"a": {"E-v0": [0, 10], "F-v0": [5, 5]}, "b": {"E-v0": [5, 20], "F-v0": [1, 9]}}
    found = compared(tmp_path, scores)
    assert found.ranges == {"E-v0": (0, 20), "F-v0": (1, 9)}
    assert [list(x) for x in found.normalised["a"]] == [[0, 0.5], [0.5, 0.5]]
    assert [o.mean.value for o in found.overall] == [0.375, 0.5625]
    given = compare(found.collection, ranges={"E-v0": (0, 100), "F-v0": (-1, 1)})
    assert [list(x) for x in given.normalised["a"]] == [[0, 0.1], [3, 3]]


def test_intervals_of_many_settings_are_wider(tmp_path: Path) -> None:
    """Bonferroni: with four settings against the baseline each has 1 - 0.05 / 4."""
    scores = {name: {"E-v0": NORMAL[i]} for i, name in enumerate("abcde")}
    found = compared(tmp_path, scores)
    assert found.confidence == pytest.approx(0.9875)
    assert {pair.difference.confidence for pair in found.pairs} == {0.9875}
    two = compared(tmp_path / "two", {name: scores[name] for name in "ab"})
    assert two.confidence == 0.95


def test_tasks_that_not_all_have_stay_out_of_the_whole(tmp_path: Path) -> None:
    """They have a table of their own and a note; the comparison is over the common ones."""
    scores = {
        "a": {"E-v0": NORMAL[0], "F-v0": NORMAL[1], "G-v0": NORMAL[2]},
        "b": {"E-v0": NORMAL[3], "F-v0": NORMAL[4]},
    }
    found = compared(tmp_path, scores)
    assert found.common == ["E-v0", "F-v0"]
    assert any("G-v0" in note for note in found.notes)
    assert [t.title for t in tables_of(found)] == ["all tasks", "E-v0", "F-v0", "G-v0", "against a"]


def test_settings_of_different_tasks_are_refused(tmp_path: Path) -> None:
    """Nothing in common, nothing to compare: the error lists who has what."""
    with pytest.raises(ConfigError, match="a has E-v0; b has F-v0"):
        compared(tmp_path, {"a": {"E-v0": [1, 2]}, "b": {"F-v0": [1, 2]}})


def test_settings_of_one_name_in_two_places_are_told_apart(tmp_path: Path) -> None:
    """They get the folder's name before theirs; others keep their names."""
    first = write_sweep(tmp_path / "one", {"a": {"E-v0": [1, 2]}, "b": {"E-v0": [1, 2]}})
    second = write_sweep(tmp_path / "two", {"a": {"E-v0": [3, 4]}})
    found = collect([first, second / "results.csv"])
    assert found.settings == ["one: a", "b", "two: a"]
    assert {p.setting for p in found.points} == {"one: a", "b", "two: a"}
    with pytest.raises(ConfigError, match="given twice"):
        collect([first, first / "../one"])


def test_seeds_of_one_setting_from_several_places_are_one(tmp_path: Path) -> None:
    """A study carried on elsewhere, its rows in another file: one setting, all its seeds.

    With a seed in common, or with other settings under the name, they are two.
    """
    first = write_sweep(tmp_path / "one", {"a": {"E-v0": [1, 2]}})
    second = write_sweep(tmp_path / "two", {"a": {"E-v0": [3, 4]}})
    file = second / "results.csv"
    text = file.read_text()
    file.write_text(text.replace("E-v0,0,", "E-v0,5,").replace("E-v0,1,", "E-v0,6,"))
    found = collect([tmp_path])  # a folder of sweeps is its sweeps
    assert found.settings == ["a"]
    assert [row.seed for row in found.rows] == [0, 1, 5, 6]
    others = file.read_text()
    file.write_text(text)
    assert collect([first, second]).settings == ["one: a", "two: a"]
    file.write_text(others.replace("aE-v0", "other"))
    assert collect([first, second]).settings == ["one: a", "two: a"]


def test_one_name_for_two_settings_is_refused(tmp_path: Path) -> None:
    """Rows of one setting and task must have one hash."""
    write_sweep(tmp_path, {"a": {"E-v0": [1, 2]}})
    text = (tmp_path / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(text[:2]) + text[2].replace("aE-v0", "other"))
    with pytest.raises(ConfigError, match="one and the same"):
        collect([tmp_path])


def test_runs_without_a_score_are_left_out_and_named(tmp_path: Path) -> None:
    """No episode ended: no score. One such run is noted; if there is no other, that is an error."""
    found = compared(tmp_path, {"a": {"E-v0": [1.0, math.nan, 3.0]}})
    assert list(found.summaries["a", "E-v0"].scores) == [1.0, 3.0]
    assert any("a, E-v0, seed 1" in note for note in found.notes)
    with pytest.raises(FileError, match="must have a score"):
        compare(found.collection, metric="eval")
    with pytest.raises(ConfigError, match="metric must be"):
        compare(found.collection, metric="lats")
    with pytest.raises(ConfigError, match="no 'q'"):
        compare(found.collection, baseline="q")


def test_runs_without_a_result_are_left_out_and_named(tmp_path: Path) -> None:
    """A setting whose runs fail looks as good as those of its runs that did not; that is said."""
    folder = write_sweep(tmp_path, {"lr=1": {"E-v0": [1.0, 2.0]}})
    assert collect([folder]).notes == []
    for name in ("lr-1-0", "lr-1-2", "lr-2-0", "lr-2-1", "lr-10-0"):
        log = folder / "logs" / "E-v0" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: a gear is broken.\n")
    assert collect([folder]).notes == []  # logs of whatever it be: it is no sweep's folder
    entries = [{"setting": "lr=1", "env": "E-v0", "config": {}}]
    (folder / "sweep.json").write_text(json.dumps({"format": 1, "settings": entries}))
    (note,) = collect([folder]).notes
    assert note in compare(collect([folder])).notes
    assert "4 runs that have no result, failed or not finished" in note
    assert note.endswith("E-v0/lr-1-2; E-v0/lr-2-0; E-v0/lr-2-1 and 1 more")


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    """One seed a setting: numbers, no intervals, and a verdict that says so."""
    found = compared(tmp_path, {"a": {"E-v0": [1.0]}, "b": {"E-v0": [9.0]}})
    assert found.pairs[0].verdict == "one seed tells nothing; run at least 5"
    assert any("1 seed of a task" in note for note in found.notes)
    assert "nan" not in "".join(str(table) for table in tables_of(found))


def test_seeds_that_agree_exactly_do_not_tell(tmp_path: Path) -> None:
    """[500, 500] against [499, 499]: the interval of the difference has no width, and shows nothing.

    Ranks tell it from 4 seeds each on, 1/70 being below 0.025; so says the verdict of 2 and 3. The
    same holds where one setting alone has no spread, as at the highest return there is.
    """
    for n, verdict in (
        (2, "not distinguishable with these seeds, about 2 more would tell"),
        (3, "not distinguishable with these seeds, about 1 more would tell"),
        (4, "better"),
    ):
        scores = {"low": {"E-v0": [499.0] * n}, "top": {"E-v0": [500.0] * n}}
        (pair,) = compared(tmp_path / f"both{n}", scores).pairs
        assert pair.verdict == verdict
        assert (pair.improvement.low > 0.5) == (verdict == "better")
        scores["low"]["E-v0"] = [480.0 + k for k in range(n)]
        assert compared(tmp_path / f"one{n}", scores).pairs[0].verdict == verdict
        (mirrored,) = compared(tmp_path / f"one{n}", {}, baseline="top").pairs
        assert mirrored.verdict == verdict.replace("better", "worse")
    spread = {"low": {"E-v0": [480.0, 481, 482]}, "top": {"E-v0": [499.0, 500, 500]}}
    assert compared(tmp_path / "spread", spread).pairs[0].verdict == "better"
    wins = {
        "a": {e: [1.0] * 3 for e in "EFG"},
        "b": {"E": [2.0] * 3, "F": [2.0] * 3, "G": [0.0] * 3},
    }
    assert "not disting" in compared(tmp_path / "mixed", wins).pairs[0].verdict


def test_few_seeds_of_many_tasks_are_noted(tmp_path: Path) -> None:
    """Tables of single tasks have three seeds each, however many tasks there are; five are enough."""
    tasks = [f"T{k}-v0" for k in range(4)]
    few = {"a": {task: NORMAL[k, :3] for k, task in enumerate(tasks)}}
    (note,) = compared(tmp_path / "few", few).notes
    assert note.startswith("3 seeds of a task: the intervals of each task by itself")
    (note,) = compared(tmp_path / "one", {"a": {"E-v0": NORMAL[0, :3]}}).notes
    assert note.startswith("3 seeds of a task: intervals of so few")
    enough = {"a": {task: NORMAL[k, :5] for k, task in enumerate(tasks)}}
    assert compared(tmp_path / "enough", enough).notes == []


def test_means_of_fewer_episodes_are_noted(tmp_path: Path) -> None:
    """What is called the last hundred episodes is all of them; not where all of them are asked for."""
    short = collect([write_sweep(tmp_path, {"a": {"E-v0": NORMAL[0, :5]}}, episodes=99)])
    (note,) = compare(short).notes
    assert note.startswith(
        "of fewer than 100 training episodes, so that the mean is of all: a, E-v0"
    )
    assert compare(short, metric="all").notes == []


def test_unequal_lengths_are_noted(tmp_path: Path) -> None:
    """Settings trained for different numbers of steps are compared with a warning."""
    first = write_sweep(tmp_path / "one", {"a": {"E-v0": [1, 2]}})
    second = write_sweep(tmp_path / "two", {"b": {"E-v0": [1, 2]}}, steps=5000)
    found = compare(collect([first, second]))
    (note,) = [note for note in found.notes if "equally long" in note]
    assert note == "runs on E-v0 are not equally long: 1,000 and 5,000 steps"
    nearly = write_sweep(tmp_path / "nearly", {"c": {"E-v0": [1, 2]}}, steps=1009)
    assert not [n for n in compare(collect([first, nearly])).notes if "equally long" in n]


def test_order_is_that_of_the_study(tmp_path: Path) -> None:
    """`sweep.json` has the order; without it numbers in names count as numbers."""
    scores = {name: {"E-v0": [1, 2]} for name in ("x=10", "x=9", "y")}
    write_sweep(tmp_path, scores)
    assert collect([tmp_path]).settings == ["x=9", "x=10", "y"]
    entries = [
        {"setting": n, "env": "E-v0", "config": {"gamma": 0.9}} for n in ("y", "x=10", "x=9")
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "settings": entries}))
    assert collect([tmp_path]).settings == ["y", "x=10", "x=9"]


SMALL: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 32,
    "minibatch_size": 64,
    "num_epochs": 1,
    "hidden_sizes": (8,),
    "eval_every": 0,
}


def test_run_folders_are_compared_too(tmp_path: Path) -> None:
    """Finished runs become rows by their names; stopped ones are left out and named."""
    for name, seed in (("x", 0), ("x", 1), ("y", 0)):
        agent = clipper.PPO("CartPole-v1", seed=seed, total_timesteps=256, **SMALL)
        agent.train(progress=False, run_dir=tmp_path / f"CartPole-v1/{name}-{seed}")
    agent = clipper.PPO("CartPole-v1", seed=1, total_timesteps=256, **SMALL)
    folder = tmp_path / "CartPole-v1/y-1"
    agent.train(progress=False, run_dir=folder)
    log = (folder / "log.txt").read_text().splitlines(keepends=True)
    (folder / "log.txt").write_text(
        "".join(log[:-1]) + "2026-01-01 00:00:00 ended at step 64: stopped by SIGINT\n"
    )
    found = collect([tmp_path])
    assert [row.key for row in found.rows] == [
        ("x", "CartPole-v1", 0),
        ("x", "CartPole-v1", 1),
        ("y", "CartPole-v1", 0),
    ]
    assert {row.steps for row in found.rows} == {256}
    assert len({row.config_hash for row in found.rows}) == 1
    assert any("y-1" in note for note in found.notes)
    assert found.points[-1].step == 256
    with pytest.raises(FileError, match="finished run"):
        collect([folder])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="run folder or hold some"):
        collect([tmp_path / "empty"])
    with pytest.raises(FileError, match="does not exist"):
        collect([tmp_path / "nowhere"])


def test_runs_that_are_not_exact_are_named(tmp_path: Path) -> None:
    """A run that was given more steps later is not the straight run: its row and a note say so."""
    run = tmp_path / "x-0"
    agent = clipper.PPO("CartPole-v1", seed=0, total_timesteps=256, **SMALL)
    agent.train(progress=False, run_dir=run)
    (row,) = collect([run]).rows
    assert row.exact
    agent = clipper.resume(run)
    agent.train(total_timesteps=512, progress=False)
    agent.close()
    (row,) = collect([run]).rows
    assert (row.exact, row.steps) == (False, 512)
    assert row.parameters_sha256 == parameters_sha256(read_tensors(run / "agent.safetensors")[0])
    (note,) = (note for note in compare(collect([run])).notes if "exact" in note)
    assert note == "not exact, so that training again gives other bits: x, CartPole-v1, seed 0"
    (run / "agent.safetensors").unlink()
    assert collect([run]).rows[0].parameters_sha256 == ""
    rows = compared(tmp_path / "s", {"a": {"E-v0": NORMAL[0]}}).notes
    assert not any("exact" in note for note in rows)


@pytest.mark.parametrize(
    "text", ["env,low\nE-v0,1\n", "env,low,high\nE-v0,1,x\n", "env,low,high\nE-v0,2,1\n"]
)
def test_wrong_ranges_are_refused(text: str, tmp_path: Path) -> None:
    """A column that is missing, what is no number, and a range upside down."""
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(FileError):
        read_ranges(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("env,low,high\nE-v0,1,2.5\n")
    assert read_ranges(tmp_path / "r.csv") == {"E-v0": (1, 2.5)}


def test_numbers_as_they_are_read() -> None:
    """Three or four digits that count, no minus before nothing, a dash for what is not known."""
    values = (1234567.8, 98.76, -9.876, 0.12345, -0.0001, math.nan)
    assert [number(v) for v in values] == ["1,234,568", "98.8", "-9.88", "0.123", "0.000", "-"]
    assert [time_text(s) for s in (3.14, 300, 7200, math.nan)] == ["3.1 s", "5.0 min", "2.0 h", "-"]


class Outside(HTMLParser):
    """Finds what a page takes from elsewhere, and tags that are not closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith("data:image/png;base64,"):
                self.outside.append(f"{tag} {name}={value}")
        self.images += tag == "img"
        if tag in ("script", "link", "iframe"):
            self.outside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    """Pictures are pictures, the page holds them all, and takes nothing from anywhere.

    A name that is HTML stands in it as text, and dollar signs in pictures are no formula.
    """
    name = "<script>alert('$x_$')</script>"
    scores = {
        name: {"E-v0": NORMAL[0], "F-v0": NORMAL[1]},
        "b": {"E-v0": NORMAL[2], "F-v0": NORMAL[3] + 1},
    }
    found = compared(tmp_path / "s", scores)
    paths = write_report(found, tmp_path / "report", "A & B")
    assert [path.name for path in paths] == [
        "report.html",
        "curves_steps.png",
        "curves_time.png",
        "improvement.png",
        "pairs.csv",
        "profiles.png",
        "scores.png",
        "summary.csv",
    ]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                assert min(image.size) > 100
    page = (tmp_path / "report/report.html").read_text()
    checker = Outside()
    checker.feed(page)
    assert checker.outside == []
    assert checker.open == []
    assert checker.images == 5
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert 'name="viewport"' in page
    assert "http" not in page.replace("arXiv", "")
    assert found.pairs[0].verdict in page
    assert summary_csv(found).count("\n") == 1 + 2 + 4
    assert pairs_csv(found).count("\n") == 2


def test_pictures_of_many_settings_have_room(tmp_path: Path) -> None:
    """A legend of thirty names makes a picture higher, and leaves the panel its height and labels."""
    few, many = (
        compared(
            tmp_path / str(count),
            {
                f"learning_rate=linear:0.001:0 {i}": {"E-v0": NORMAL[i % 4] + i}
                for i in range(count)
            },
        )
        for count in (3, 30)
    )
    heights = []
    for found in (few, many):
        figure = draw_profiles(found)
        assert figure is not None
        figure.draw_without_rendering()
        (axes,) = figure.axes
        heights.append(axes.get_window_extent().height)
        assert axes.yaxis.label.get_window_extent().height < heights[-1]
    assert heights[1] > 0.9 * heights[0]


def test_one_run_alone_has_no_profile(tmp_path: Path) -> None:
    """Its line would be a step of nothing to something, and is left out."""
    found = compared(tmp_path / "s", {"a": {"E-v0": NORMAL[0][:1]}})
    names = [path.name for path in write_report(found, tmp_path / "report", "one")]
    assert "scores.png" in names
    assert "profiles.png" not in names


def test_a_report_replaces_a_report_alone(tmp_path: Path) -> None:
    """An older report goes when the new one is there; a folder of something else is left alone."""
    found = compared(tmp_path / "s", {"a": {"E-v0": NORMAL[0]}})
    target = tmp_path / "report"
    write_report(found, target, "old")
    write_report(found, target, "new")
    assert "<h1>new</h1>" in (target / "report.html").read_text()
    assert not list(tmp_path.glob(".report*"))
    (target / "mine.txt").touch()
    with pytest.raises(FileError, match=r"holds mine\.txt"):
        write_report(found, target, "newer")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="is a file"):
        write_report(found, tmp_path / "file", "x")


def test_pictures_of_others_are_not_removed(tmp_path: Path) -> None:
    """A folder of pictures is no report, nor is one that has a picture of another name beside it."""
    found = compared(tmp_path / "s", {"a": {"E-v0": NORMAL[0]}})
    target = tmp_path / "figs"
    target.mkdir()
    for name in ("holiday.png", "scores.png"):
        mine = target / name
        mine.write_bytes(b"mine")
        with pytest.raises(FileError, match=f"holds {name}"):
            write_report(found, target, "x")
        assert mine.read_bytes() == b"mine"
        mine.unlink()
    write_report(found, target, "empty before")
    (target / "holiday.png").write_bytes(b"mine")
    with pytest.raises(FileError, match=r"holds holiday\.png"):
        write_report(found, target, "x")
    assert (target / "holiday.png").read_bytes() == b"mine"


def test_a_report_is_written_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out .`: the working directory stays the one it was, and gets the files; so does a link."""
    scores = {"a": {"E-v0": NORMAL[0]}, "b": {"E-v0": NORMAL[1]}}
    found = compared(tmp_path / "s", scores)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    paths = write_report(found, ".", "first")
    assert "report.html" in os.listdir()  # of the same directory: a new one is not seen from here
    assert (here / "improvement.png").exists()
    assert [path.is_absolute() for path in paths] == [False] * 8
    alone = compared(tmp_path / "t", {"a": {"E-v0": NORMAL[0]}})
    write_report(alone, Path(), "second")
    assert "<h1>second</h1>" in Path("report.html").read_text()
    assert sorted(os.listdir()) == sorted(path.name for path in write_report(alone, ".", "third"))
    assert not {"improvement.png", "pairs.csv"} & set(os.listdir())
    (tmp_path / "link").symlink_to("report", target_is_directory=True)
    for _ in range(2):
        write_report(found, tmp_path / "link", "linked")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "report/report.html").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_report_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it draws: nothing half-written. Killed between two names: put right later."""
    found = compared(tmp_path / "s", {"a": {"E-v0": NORMAL[0]}, "b": {"E-v0": NORMAL[1]}})
    target = tmp_path / "report"
    write_report(found, target, "old")
    with monkeypatch.context() as patch:
        patch.setattr("clipper.experiments.report.page_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(found, target, "new")
    assert "<h1>old</h1>" in (target / "report.html").read_text()
    assert not list(tmp_path.glob(".report*"))
    # what kill -9 can leave: the old folder renamed, the new one not yet in its place
    target.rename(tmp_path / ".report.old-123")
    (tmp_path / ".report.tmp-123").mkdir()
    (tmp_path / ".report.tmp-123/scores.png").touch()
    write_report(found, target, "newer")
    assert "<h1>newer</h1>" in (target / "report.html").read_text()
    assert not list(tmp_path.glob(".report*"))


def interrupted(*_: object) -> str:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_many_settings_and_tasks_are_drawn(tmp_path: Path) -> None:
    """Eleven settings on seven tasks, one of them unfinished on one: the size of a paper's table."""
    rng = np.random.default_rng(1)
    envs = [f"Task{i}-v5" for i in range(7)]
    scores = {
        f"setting {i} of a long name": {e: rng.normal(i, 2, 3) for e in envs} for i in range(11)
    }
    del scores["setting 3 of a long name"]["Task2-v5"]  # type: ignore[attr-defined]
    found = compared(tmp_path / "s", scores)
    assert len(found.common) == 6
    paths = write_report(found, tmp_path / "report", "large")
    assert len(paths) == 8
    assert len(page_of(found, {}, "x")) > 1000


def test_every_error_is_ours(tmp_path: Path) -> None:
    """A folder whose results file is a folder, or of bytes that are no text."""
    (tmp_path / "a/results.csv").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/results.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a", "b", "b/results.csv"):
        with pytest.raises(ClipperError):
            collect([tmp_path / name])
