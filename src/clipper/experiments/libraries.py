"""Run folders of a study in, a file of the library versions of every run out, kept with its rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipper.checkpoint import write_atomically
from clipper.errors import FileError
from clipper.experiments.runs import RunSpec
from clipper.run_folder import read_config

FILE = "libraries.csv"
LIBRARIES = ("python", "clipper-rl", "torch", "numpy", "gymnasium", "mujoco")
_KEY = ("setting", "env", "seed")
Key = tuple[str, str, int]


def keep_libraries(specs: Sequence[RunSpec], folder: Path) -> None:
    """Writes the versions that the run folders of a study name beside those that are kept already.

    Args:
        specs: The runs.
        folder: The study's.

    Raises:
        FileError: A file is damaged or cannot be written.
    """
    known = read_libraries(folder)
    for spec in specs:
        place = folder / "runs" / spec.folder
        if (place / "config.json").exists():
            known[spec.key] = read_config(place).get("versions", {})
    if known:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([*_KEY, *LIBRARIES])
        for key, versions in known.items():
            writer.writerow([*key, *(versions.get(name, "") for name in LIBRARIES)])
        write_atomically(folder / FILE, buffer.getvalue().encode())


def read_libraries(folder: Path) -> dict[Key, Mapping[str, str]]:
    """Returns the versions of every run that a study's `libraries.csv` has; {} without the file.

    Raises:
        FileError: It is something else.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {
            (row["setting"], row["env"], int(row["seed"])): {k: row[k] for k in LIBRARIES}
            for row in rows
        }
    except OSError as error:
        raise FileError(f"{file} must be readable, but {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{file} must have the columns {', '.join([*_KEY, *LIBRARIES])}, but {error!r}.",
            hint="remove it; it is written anew from the run folders.",
        ) from None
