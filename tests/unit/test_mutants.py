"""The list of bugs that `make mutants` tries: each still is one of the sources as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from try_mutants import mutated

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


def test_names_tell_them_apart() -> None:
    """At least thirty, five of them in C++, each with a name of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
    assert sum(mutant.is_native for mutant in MUTANTS) >= 5


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_bug_can_be_put_in(mutant: Mutant) -> None:
    """Its text stands once in the file, another comes out, which compiles, and its tests exist."""
    before = (ROOT / "src" / "clipper" / mutant.file).read_text(encoding="utf-8")
    after = mutated(before, mutant)
    assert after != before
    if not mutant.is_native:
        compile(after, mutant.file, "exec")
    file, _, name = mutant.tests.partition("::")
    tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"def {name}(" in tests or not name


def test_a_text_that_is_gone_is_told() -> None:
    """Sources move on: a bug that fits no more is an error, not a bug that was found."""
    mutant = Mutant("old", "losses.py", "unit/test_ppo.py", (("no such text", ""),))
    with pytest.raises(ValueError, match="holds it 0 times"):
        mutated("some text", mutant)
