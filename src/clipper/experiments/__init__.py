"""Many runs of named settings over environments and seeds: trained, compared and reported.

`run_sweep` trains a list of `RunSpec` and keeps one row per finished run; the rows are all that
comparing and reporting need. The names are imported when they are first used, as in `clipper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper.experiments.collection import collect
    from clipper.experiments.comparison import compare
    from clipper.experiments.report import write_report
    from clipper.experiments.results import read_rows
    from clipper.experiments.rows import Row
    from clipper.experiments.runs import RunSpec
    from clipper.experiments.states import SweepOutcome
    from clipper.experiments.sweep import run_sweep

__all__ = [
    "Row",
    "RunSpec",
    "SweepOutcome",
    "collect",
    "compare",
    "read_rows",
    "run_sweep",
    "write_report",
]

_HOMES = {
    "Row": "rows",
    "RunSpec": "runs",
    "SweepOutcome": "states",
    "collect": "collection",
    "compare": "comparison",
    "read_rows": "results",
    "run_sweep": "sweep",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipper.experiments' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"clipper.experiments.{_HOMES[name]}"), name)
