"""Rows of a finished study in, some of them run again and compared out: do the bits still hold?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipper.errors import ConfigError, FileError
from clipper.experiments.libraries import LIBRARIES, read_libraries
from clipper.experiments.results import RESULTS, read_rows
from clipper.experiments.rows import Row
from clipper.experiments.runs import RunSpec
from clipper.experiments.states import Observer, SweepOutcome
from clipper.experiments.sweep import run_sweep
from clipper.provenance import versions

# what of the libraries may change bits; the rest of Clipper's own code must not
_BEYOND_US = tuple(name for name in LIBRARIES if name != "clipper-rl")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A row and the same run again.

    Attributes:
        row: As it was kept.
        again: As it is now.
        differences: What of the machine and the libraries is not as it was; bits may then differ.
    """

    row: Row
    again: Row
    differences: Sequence[str]

    @property
    def is_same(self) -> bool:
        """True if the last policy has the same parameters, bit for bit."""
        return self.row.parameters_sha256 == self.again.parameters_sha256

    @property
    def is_broken(self) -> bool:
        """True if the parameters differ, and nothing is known that explains it."""
        return not self.is_same and not self.differences


def choose_rows(
    specs: Sequence[RunSpec], folder: Path, number: int, seed: int
) -> list[tuple[RunSpec, Row]]:
    """Returns finished runs of a study, drawn at random, in the order of the study.

    Args:
        specs: The study's runs.
        folder: Where its rows are.
        number: How many, from 1.
        seed: Of the draw.

    Raises:
        FileError: The folder has no rows.
        ConfigError: It has fewer than are asked for.
    """
    if not (folder / RESULTS).is_file():
        raise FileError(
            f"{folder} must hold {RESULTS} to be verified, but does not.",
            hint="run the study first: the same command without --verify.",
        )
    rows = {row.key: row for row in read_rows(folder / RESULTS)}
    finished = [spec for spec in specs if spec.key in rows]
    if number > len(finished):
        raise ConfigError(
            f"--verify must ask for at most as many runs as have finished, but asks for {number} of "
            f"{len(finished)}.",
            hint="the --scale must be that of the study." if not finished else None,
        )
    chosen = np.random.default_rng(seed).choice(len(finished), size=number, replace=False)
    return [(finished[i], rows[finished[i].key]) for i in sorted(chosen)]


def run_again(
    chosen: Sequence[tuple[RunSpec, Row]],
    folder: Path,
    *,
    jobs: int | str,
    observer: Observer | None = None,
) -> tuple[SweepOutcome, list[Verdict]]:
    """Trains runs anew in a temporary folder and returns how that ended and what came out.

    Args:
        chosen: The runs and what was kept of them.
        folder: The study's.
        jobs: Runs at a time, or `auto`.
        observer: Called with all runs a few times a second.

    Raises:
        ConfigError: A row was made with other settings than the study has now.
    """
    libraries = read_libraries(folder)
    with tempfile.TemporaryDirectory(prefix="clipper-verify-") as temporary:
        outcome = run_sweep(
            [spec for spec, _ in chosen], Path(temporary) / "again", jobs=jobs, observer=observer
        )
    again = {row.key: row for row in outcome.rows}
    for run, (spec, row) in zip(outcome.runs, chosen, strict=True):
        if run.config_hash != row.config_hash:
            raise ConfigError(
                f"a row must have the settings of the study to be verified, but {spec} was made with "
                f"others (hash {row.config_hash}, not {run.config_hash})."
            )
    return outcome, [
        Verdict(
            row=row,
            again=again[row.key],
            differences=_differences(row, again[row.key], libraries.get(row.key, {})),
        )
        for _, row in chosen
        if row.key in again
    ]


def _differences(row: Row, again: Row, then: Mapping[str, str]) -> list[str]:
    """Returns what is known to differ between two runs of the same settings, for which bits may."""
    found = []
    if row.engine != again.engine:
        found.append(f"engine {row.engine} then, {again.engine} now")
    if not row.exact:
        found.append("the row's run was resumed in a way that changes bits")
    now = versions()
    for name in _BEYOND_US:
        before = then.get(name, "")
        if before and before != now.get(name, ""):
            found.append(f"{name} {before} then, {now.get(name) or 'none'} now")
    return found
