"""The record and the tables of `benchmarks/speed`: what is kept, what is compared with what."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
NAMES = ("works", "store", "report", "pages", "run", "solve", "solver")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, ModuleType]:
    """The modules of the benchmark, with a record of their own."""
    monkeypatch.syspath_prepend(str(SPEED))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(modules["store"], "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(modules["solve"], "RESULTS", tmp_path / "solve.json")
    return modules


def entry(*values: float, void: bool = False, run: str = "one") -> dict[str, Any]:
    """Returns what is kept of measurements."""
    about = {"machine": {"cpu": "any", "cores": 2}, "commit": "c", "date": "2026-01-01T00:00:00"}
    return {
        "values": list(values), "void": void, "run": run, "memory_mb": 250.0, "unit": "steps/s",
        "versions": {"numpy": "2"}, **about,
    }  # fmt: skip


def test_partial_run_keeps_the_rest_of_the_record(bench: dict[str, ModuleType]) -> None:
    """Law: an update replaces the libraries and rows it is of, and leaves all others as they were."""
    store = bench["store"]
    both = {"alone": entry(100), "clipper": entry(50)}
    store.update({"CartPole-v1": both, "gae": {"clipper": entry(7)}}, "first", "one")
    store.update({"CartPole-v1": {"clipper": entry(80)}}, "second", "two")
    record = store.read()
    assert record["CartPole-v1"]["alone"]["values"] == [100]
    assert record["CartPole-v1"]["clipper"]["values"] == [80]
    assert record["gae"]["clipper"]["command"] == "first"
    assert record["CartPole-v1"]["clipper"]["command"] == "second"
    assert record["CartPole-v1"]["clipper"]["machine"]["cores"]


def test_void_figures_do_not_enter_the_record(bench: dict[str, ModuleType]) -> None:
    """Law: a figure that others disturbed replaces nothing."""
    store = bench["store"]
    store.update({"gae": {"clipper": entry(7)}}, "first", "one")
    store.update({"gae": {"clipper": entry(70, void=True)}}, "second", "two")
    assert store.read()["gae"]["clipper"]["values"] == [7]


def test_ratios_are_of_medians_and_of_the_fastest_peer(bench: dict[str, ModuleType]) -> None:
    """Law: 60 beside 100 alone is 0.6 (goal 0.65 missed); beside peers of 5 and 6 it is 10 times."""
    row = bench["works"].ROWS["CartPole-v1"]
    entries = {
        "alone": entry(90, 100, 500), "clipper": entry(60), "sb3": entry(5), "sbx": entry(6, 6, 1),
    }  # fmt: skip
    alone, peer = bench["report"].checks(row, entries)
    assert (alone.value, alone.is_met) == (pytest.approx(0.6), False)
    assert (peer.value, peer.is_met) == (pytest.approx(10), True)
    assert peer.text == "10 x sbx"


def test_less_is_better_in_microseconds(bench: dict[str, ModuleType]) -> None:
    """Law: of peers with 1000 and 2000 us the first is the fastest, 20 times Clipper's 50 us."""
    row = bench["works"].ROWS["update-64"]
    entries = {"clipper": entry(50), "sb3": entry(1000), "sbx": entry(2000)}
    peer, most = bench["report"].checks(row, entries)
    assert (peer.value, peer.text) == (pytest.approx(20), "20 x SB3")
    assert most.is_met


def test_ratio_of_two_runs_says_so(bench: dict[str, ModuleType]) -> None:
    """Law: figures that were not measured in the same minutes are marked where they are divided."""
    row = bench["works"].ROWS["CartPole-v1"]
    entries = {"alone": entry(100, run="yesterday"), "clipper": entry(70)}
    (alone,) = bench["report"].checks(row, entries)
    assert alone.text == "0.70 of env alone (two runs)"


def test_table_stands_between_its_marks_alone(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    """Law: what stands before and after the marks, other marks included, is not touched."""
    page = tmp_path / "README.md"
    other = "<!-- results: how -->\nkept\n<!-- end of results -->\n"
    page.write_text(f"{other}<!-- speed: how -->\nold\n<!-- end of speed -->\nafter\n")
    bench["pages"].put_between(page, "new")
    assert page.read_text() == f"{other}<!-- speed: how -->\nnew\n<!-- end of speed -->\nafter\n"
    with pytest.raises(SystemExit, match="no marks"):
        bench["pages"].put_between(page, "new", "solve")


def test_own_pages_have_their_marks_and_every_row_its_runner(bench: dict[str, ModuleType]) -> None:
    """Law: the READMEs can be written to, and each library of each row and task can be run."""
    for page in (bench["pages"].TOP_README, SPEED / "README.md"):
        text = page.read_text(encoding="utf-8")
        for name in ("speed", "solve"):
            assert text.count(f"<!-- {name}:") == text.count(f"<!-- end of {name} -->") == 1
    for row in bench["works"].ROWS.values():
        assert all((SPEED / bench["run"].RUNNERS[library]).exists() for library in row.libraries)
        size, minibatch = row.settings.rollout_size, row.settings.minibatch_size
        assert size % minibatch == 0
    for task, libraries in bench["solve"].LIBRARIES.items():
        assert task in bench["solve"].TASKS
        assert all(name.partition("-")[0] in bench["solve"].SOLVERS for name in libraries)


@pytest.mark.parametrize(
    "row",
    ["gae", *(pytest.param(row, marks=pytest.mark.slow)
              for row in ("CartPole-v1", "update-64", "module-256", "act-8"))],
)  # fmt: skip
def test_own_runner_measures_every_kind_of_row(row: str) -> None:
    """Law: a row of each kind that one process measures yields a finite figure by Clipper's runner."""
    job = {"row": row, "library": "clipper", "steps": 100, "options": {"engine": "auto"}}
    words = [sys.executable, str(SPEED / "runner_clipper.py"), json.dumps(job)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["value"] < math.inf
    assert found["memory_mb"] > 0


def test_two_cores_that_do_not_scale_void_their_row(
    bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: where two independent loops do 1.5 times the work of one, no figure of the row counts."""
    run = bench["run"]
    values = {"loops": 1.5, "clipper": 10.0, "workers": 20.0}

    def measure(name: str, library: str, *_: object) -> dict[str, Any]:
        return {
            "value": values[library], "core_share": 1.0, "memory_mb": 1.0, "versions": {},
            "is_pinned": True,
        }  # fmt: skip

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "allowed_cores", lambda: [0, 1])
    arguments = type("Arguments", (), {"only": "", "repeat": 2, "steps": 5000})()
    found = run.measure_row("CartPole-v1-cores", arguments)
    assert all(found[library]["void"] for library in values)
    values["loops"] = 1.95
    found = run.measure_row("CartPole-v1-cores", arguments)
    assert not any(found[library]["void"] for library in values)


def test_disturbed_figures_are_void(bench: dict[str, ModuleType]) -> None:
    """Law: less than 95 % of the core (85 % where a start counts), or another core, is void."""
    why_void = bench["run"].why_void

    def found(share: float, is_pinned: bool = True) -> dict[str, Any]:
        return {"core_share": share, "is_pinned": is_pinned, "value": 1.0}

    assert not why_void("training", "sb3", found(0.96))
    assert "others had 10% of the core" in why_void("training", "sb3", found(0.90))
    assert not why_void("start", "sb3", found(0.90))
    assert "moved" in why_void("training", "sb3", found(1.0, is_pinned=False))


def test_unequal_work_is_refused(bench: dict[str, ModuleType]) -> None:
    """Law: libraries that took different numbers of updates are not compared."""
    taken = {"clipper": [{"updates": 16}], "sb3": [{"updates": 20}]}
    with pytest.raises(SystemExit, match="updates must be equal"):
        bench["run"].check_equal("CartPole-v1", taken)


def test_examiner_stops_the_clock_at_the_first_exam_passed(bench: dict[str, ModuleType]) -> None:
    """Law: looks are an interval apart and need a training mean; a glance alone solves nothing."""
    played: list[int] = []
    means = iter([400.0, 480.0, 470.0, 480.0, 480.0])

    def play(episodes: int, seed: int) -> float:
        played.append(episodes)
        return next(means)

    examiner = bench["solver"].Examiner(bench["solve"].TASKS["CartPole-v1"], play)
    looks = [(4_999, 200), (5_000, 10), (6_000, float("nan")), (7_000, 200), (11_999, 200)]
    assert not any(examiner.look(step, mean) for step, mean in looks)
    assert played == [10]  # at 7,000; the next look is due at 12,000
    assert not examiner.look(12_000, 200)
    assert played == [10, 10, 100]
    assert examiner.look(17_000, 200)
    assert examiner.found["is_solved"]
    assert (examiner.found["steps"], examiner.found["mean"]) == (17_000, 480.0)


def test_solved_runs_enter_the_record_unless_disturbed(bench: dict[str, ModuleType]) -> None:
    """Law: a library's runs replace its former ones only if each had its core to itself."""
    solve = bench["solve"]
    quiet = {"is_solved": True, "steps": 9, "wall": 2.0, "cpu": 1.98, "looks": 1, "mean": 480.0}
    solve.keep("CartPole-v1", {"clipper": [quiet]})
    solve.keep("CartPole-v1", {"clipper": [{**quiet, "wall": 4.0}], "sb3": [quiet]})
    record = json.loads(solve.RESULTS.read_text())["CartPole-v1"]
    assert record["clipper"]["runs"] == [quiet]
    assert "met" in solve.goal(solve.TASKS["CartPole-v1"], "clipper", record["clipper"])
    assert "| 1 of 1 |" in solve.markdown(solve.read())
