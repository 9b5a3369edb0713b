"""The page of promises: each names tests that exist, and its numbers are those that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import facts
from reliability import NUMBERS, PAGE, PROMISES, ROOT, Promise, failures, is_measured, render, row


@pytest.mark.parametrize("name", sorted({name for p in PROMISES for name in p.tests}))
def test_what_keeps_a_promise_exists(name: str) -> None:
    """The file, and the test in it."""
    file, _, test = name.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert not test or f"\ndef {test}(" in text


def test_the_page_is_what_was_measured() -> None:
    """Nobody wrote a number by hand: rendering the kept numbers gives the page."""
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert failures(numbers) == []
    assert PAGE.read_text(encoding="utf-8") == render(numbers)


def test_records_of_several_processes_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are added up, of `most_` the largest is taken, outcomes are counted by test."""
    monkeypatch.setenv(facts.VARIABLE, str(tmp_path))
    for process, kills, seconds in ((1, 2, 0.5), (2, 3, 7.5), (2, 4, 1.0)):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        facts.note("kills", kills=kills, most_seconds=seconds)
        facts.note_outcome("tests/a.py::test_b", "passed" if kills < 4 else "failed")
    found, outcomes = facts.read(tmp_path)
    assert found == {"kills": {"records": 3, "kills": 9, "most_seconds": 7.5}}
    assert outcomes == {"tests/a.py::test_b": {"passed": 2, "failed": 1, "skipped": 0}}


def test_nothing_is_kept_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary test run leaves no file."""
    monkeypatch.delenv(facts.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    facts.note("kills", kills=1)
    assert list(tmp_path.iterdir()) == []


def test_what_did_not_pass_is_not_said_to_hold() -> None:
    """A test that failed is named; without a test or a number the promise is unmeasured."""
    promise = PROMISES[0]
    test, (fact,) = f"tests/{promise.tests[0]}", promise.facts
    counts = {"passed": 3, "failed": 0, "skipped": 1}
    numbers = {"facts": {fact: {"records": 3, "kills": 6}}, "outcomes": {test: counts}}
    assert is_measured(promise, numbers)
    assert "6 times" in row(promise, numbers)
    assert failures(numbers) == []
    failed = {**numbers, "outcomes": {test: {**counts, "failed": 1}}}
    assert failures(failed) == [test]
    for spoilt in (
        {**numbers, "outcomes": {}},
        {**numbers, "outcomes": {test: {**counts, "passed": 0}}},
        {**numbers, "facts": {}},
    ):
        assert not is_measured(promise, spoilt)
        assert row(promise, spoilt).endswith("| not measured yet |")


def test_a_row_worked_out() -> None:
    """Promise, links to the tests, and the numbers with the cases of all its tests."""
    promise = Promise("It holds", ("unit/test_a.py::test_b", "test_c.py"), "{x[kills]:.0f} kills")
    numbers = {
        "facts": {"x": {"records": 1, "kills": 6.0}},
        "outcomes": {
            "tests/unit/test_a.py::test_b": {"passed": 2, "failed": 0, "skipped": 0},
            "tests/unit/test_a.py::test_b2": {"passed": 9, "failed": 0, "skipped": 0},
            "tests/test_c.py::test_d": {"passed": 1, "failed": 0, "skipped": 4},
        },
    }
    assert row(promise, numbers) == (
        "| It holds | [`test_b`](../tests/unit/test_a.py)<br>[`test_c.py`](../tests/test_c.py) "
        "| 6 kills; 3 cases pass |"
    )
