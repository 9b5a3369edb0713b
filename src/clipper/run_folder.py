"""What happens in a run in, its folder of plain files out; and the folder read back.

`config.json` says what ran, `metrics.csv` has a row per iteration, `episodes.csv` one per training
episode, `checkpoints/` what it takes to go on, `agent.safetensors` and `best.safetensors` the
agents, `log.txt` what was said. One process writes a folder at a time.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from clipper.checkpoint import FORMAT, check_format, dump_json, write_atomically
from clipper.errors import ClipperError, ConfigError, FileError, FolderTaken
from clipper.files import file_error, read_json, read_plain, refuse_links, write_all
from clipper.metrics import Episode, Metrics

try:
    import fcntl
except ImportError:  # Windows has no such locks; the folder is then not guarded
    fcntl = None  # type: ignore[assignment]

EPISODE_COLUMNS = (
    "step",
    "env",
    "episode",
    "episode_return",
    "episode_length",
    "truncated",
    "wall_seconds",
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LONGEST = 100


def folder_name(name: str) -> str:
    """Returns an environment's name with every character but `A-Za-z0-9._-` replaced by `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST].strip("-.") or "env"


def check_name(name: str) -> str:
    """Returns a run's name if it can stand in a path.

    Raises:
        ConfigError: It has other characters than letters, digits, `.`, `_` and `-`.
    """
    if not _NAME.fullmatch(name) or name.strip(".") == "":
        shown = repr(name) if len(name) <= _LONGEST else f"{len(name):,} characters long"
        raise ConfigError(
            f"name must be 1 to 100 of the characters A-Za-z0-9._-, but is {shown}.",
            hint=f"use {re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')[:100] or 'run'}.",
        )
    return name


def new_run_path(out: Path, env_folder: str, name: str | None, seed: int) -> Path:
    """Returns a folder `out/env/name-seed` made for a new run; numbered without a name.

    Raises:
        FileError: The name is taken (the hint resumes it), leads elsewhere by a link, or the folder
            cannot be made.
    """
    parent = out / env_folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _refuse_link(parent)
        if name is not None:
            path = parent / f"{check_name(name)}-{seed}"
            _check_new(path)
            path.mkdir(exist_ok=True)
            return path
        number = 1 + max((_number(p.name) for p in parent.iterdir()), default=0)
        while True:
            path = parent / f"run{number}-{seed}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        if isinstance(error, ClipperError):
            raise
        raise FileError(
            f"{parent} must be a folder that can be written, "
            f"but {getattr(error, 'strerror', None) or error}.",
            hint="give another folder with --out.",
        ) from error


def check_name_free(out: Path, env_folder: str, name: str, seed: int) -> None:
    """Raises what `new_run_path` would for a name, and if another process is about to take it.

    Raises:
        ConfigError: The name has characters that cannot stand in a path.
        FileError: It is taken.
    """
    path = out / env_folder / f"{check_name(name)}-{seed}"
    if os.path.lexists(path):
        _check_new(path)
        check_free(path)


def _check_new(path: Path) -> None:
    """Raises unless a run can begin in a folder: one that was stopped before it wrote is as good as new.

    Raises:
        FileError: It cannot.
    """
    _refuse_link(path)
    if path.exists() and any(p.name != "lock" for p in path.iterdir()):
        raise FileError(
            f"{path} must not exist yet, but does.",
            hint=f"`clipper resume {shlex.quote(str(path))}` goes on with it; "
            "or choose another --name.",
        )


def _refuse_link(path: Path) -> None:
    """Raises if a folder below --out is a link, which may lead anywhere; --out itself may be one."""
    if path.is_symlink():
        raise FileError(
            f"{path} must be a folder, but is a link.",
            hint="give the folder it leads to with --out.",
        )


def _number(name: str) -> int:
    found = re.fullmatch(r"run([0-9]{1,18})-[0-9]+", name)
    return int(found[1]) if found else 0


class RunFolder:
    """The files of one run, open for writing by this process alone.

    Args:
        path: The folder; it is made if there is none.

    Raises:
        FileError: Another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            refuse_links(path)
            self._lock = open(path / "lock", "a")  # noqa: SIM115 - held as long as the run
        except (OSError, ValueError) as error:  # ValueError: NUL in the path
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"{path} must be a folder that can be written, "
                f"but {getattr(error, 'strerror', None) or error}."
            ) from error
        if not self._is_ours():
            self._lock.close()
            raise _taken(path)
        self._sign()
        for leftover in path.glob(".*.tmp-*"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        self._unlogged: list[str] = []
        self._metrics = _GrowingCsv(path / "metrics.csv")
        self._episodes = _GrowingCsv(path / "episodes.csv", EPISODE_COLUMNS)

    def _is_ours(self) -> bool:
        """Takes the lock; False if another process has it, or removed the file just now."""
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / "lock"))
        except OSError:
            return False

    def _sign(self) -> None:
        """Writes into the lock whose it is, for messages alone; the lock is the system's."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock.fileno(), 0)
            write_all(self._lock.fileno(), f"{os.getpid()}\n".encode())

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def agent_file(self) -> Path:
        """The last agent."""
        return self.path / "agent.safetensors"

    @property
    def best_file(self) -> Path:
        """The agent that did best in the periodic evaluations."""
        return self.path / "best.safetensors"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes `config.json`."""
        data = {"format": FORMAT, **config}
        write_atomically(self.path / "config.json", (dump_json(data) + "\n").encode())

    def write_iteration(
        self, step: int, metrics: Metrics, episodes: Iterable[Episode], wall_seconds: float
    ) -> None:
        """Appends a row of metrics and a row for every episode."""
        for e in episodes:
            self._episodes.append(
                {
                    "step": e.step,
                    "env": e.env,
                    "episode": e.index,
                    "episode_return": repr(e.episode_return),
                    "episode_length": e.episode_length,
                    "truncated": int(e.truncated),
                    "wall_seconds": f"{wall_seconds:.3f}",
                }
            )
        self._metrics.append({"step": step, **{k: repr(v) for k, v in metrics.items()}})
        self._episodes.flush()
        self._metrics.flush()

    def rows(self) -> dict[str, int]:
        """Returns how many rows each CSV file has on the disk, for the checkpoint."""
        self._metrics.sync()
        self._episodes.sync()
        return {"metrics": self._metrics.num_rows, "episodes": self._episodes.num_rows}

    def cut_back(self, rows: Mapping[str, int]) -> str | None:
        """Drops rows that were written after a checkpoint; returns which are missing, or None."""
        files = (self._metrics, rows["metrics"]), (self._episodes, rows["episodes"])
        missing = [found for file, count in files if (found := file.cut_back(count))]
        return ", ".join(missing) or None

    def log(self, line: str) -> None:
        """Appends a line with the time to `log.txt`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._unlogged.append(f"{stamp} {line}\n")
        try:
            with open(self.path / "log.txt", "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    write_all(file.fileno(), "".join(self._unlogged).encode())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:  # the line is written with the next one
            raise FileError(file_error(self.path / "log.txt", error)) from error
        self._unlogged.clear()

    def close(self) -> None:
        """Closes the files and lets go of the lock."""
        self._metrics.close()
        self._episodes.close()
        if not self._lock.closed:
            # removed while it is held: nobody can hold another file of that name
            with contextlib.suppress(OSError):
                (self.path / "lock").unlink()
            self._lock.close()


class _GrowingCsv:
    """A CSV file whose columns may grow: a new name makes it be written anew with that column.

    Rows wait in memory until `flush`, which writes all of them or, if it fails, none.
    """

    def __init__(self, path: Path, columns: Sequence[str] = ()) -> None:
        self._path = path
        self._columns = list(columns)
        self._waiting: list[Mapping[str, Any]] = []
        self._num_written = 0
        if path.exists():
            rows = self._read()
            self._columns = list(rows[0]) if rows else self._columns
            self._num_written = max(len(rows) - 1, 0)
            if rows and not self._ends_whole(rows):
                write_atomically(path, _csv_text(rows))
        self._open()
        if not self._num_written and self._columns and path.stat().st_size == 0:
            self._write(_csv_text([self._columns]))

    @property
    def num_rows(self) -> int:
        """Rows below the header, those that wait included."""
        return self._num_written + len(self._waiting)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which `flush` writes."""
        self._waiting.append(row)

    def cut_back(self, num_rows: int) -> str | None:
        """Drops all rows but the first so many; returns what is wrong if there are fewer."""
        self.flush()
        if num_rows < self._num_written:
            self._replace(self._columns, self._read()[1 : num_rows + 1])
        if num_rows > self._num_written:
            return f"{self._path.name} held {self._num_written} of the run's {num_rows} rows"
        return None

    def flush(self) -> None:
        """Writes the rows that wait.

        Raises:
            FileError: The file cannot be written; the rows go on waiting and it is as it was.
        """
        names = dict.fromkeys([*self._columns, *(name for row in self._waiting for name in row)])
        columns = list(names)
        rows = [[row.get(name, "") for name in columns] for row in self._waiting]
        if columns != self._columns:
            width = len(columns) - len(self._columns)
            old = [row + [""] * width for row in self._read()[1:]]
            self._replace(columns, [*old, *rows])
        elif rows:
            self._write(_csv_text(rows))
            self._num_written += len(rows)
            self._waiting.clear()

    def sync(self) -> None:
        """Waits until every row is on the disk."""
        self.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _open(self) -> None:
        self._torn_at: int | None = None
        try:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def _write(self, content: bytes) -> None:
        """Appends to the file; what was written of it before a failure is cut off again."""
        file = self._file.fileno()
        try:
            if self._torn_at is not None:
                os.ftruncate(file, self._torn_at)
            self._torn_at = os.fstat(file).st_size
            try:
                write_all(file, content)
            except OSError:
                os.ftruncate(file, self._torn_at)  # if it is refused too, the next write does it
                self._torn_at = None
                raise
            self._torn_at = None
        except OSError as error:
            raise FileError(file_error(self._path, error)) from error

    def _read(self) -> list[list[str]]:
        if not self._path.exists():
            return []
        # a power cut can leave bytes at the end that are no text
        try:
            with open(self._path, newline="", encoding="utf-8", errors="replace") as file:
                rows = list(csv.reader(file))
        except (OSError, csv.Error) as error:
            raise FileError(f"{self._path} must be a CSV file, but {error}.") from error
        # a line cut off by a kill has too few cells, and the checkpoint does not count it
        return [row for row in rows if len(row) == len(rows[0])]

    def _ends_whole(self, rows: list[list[str]]) -> bool:
        """True unless a kill cut the last line, which would run into the next row."""
        text = self._path.read_text(encoding="utf-8", errors="replace")
        return text.endswith("\n") and text.count("\n") == len(rows)

    def _replace(self, columns: list[str], body: Sequence[Sequence[Any]]) -> None:
        """Writes the file anew; all rows that wait must be among these."""
        write_atomically(self._path, _csv_text([columns, *body]))
        self.close()
        self._columns = columns
        self._num_written = len(body)
        self._waiting.clear()
        self._open()


def _csv_text(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def check_free(path: Path) -> None:
    """Raises if another process is writing a run folder; a lock of a dead one does not count.

    Raises:
        FolderTaken: It is.
    """
    try:
        lock = open(path / "lock", "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    with lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise _taken(path) from None


def _taken(path: Path) -> FolderTaken:
    """Returns the error of a folder that another process writes, which its lock names."""
    whose = ""
    with contextlib.suppress(FileError):
        text = read_plain(path / "lock", 20, start=20).strip()
        whose = f" (its number is {text.decode()})" if text.isdigit() else ""
    return FolderTaken(
        f"{path} must not be in use, but another process is writing it{whose}.",
        hint="wait until it has ended, or stop it.",
    )


def read_config(path: Path) -> dict[str, Any]:
    """Returns the `config.json` of a run folder.

    Raises:
        FileError: There is no run in that folder, or the file is damaged.
    """
    file = path / "config.json"
    if not os.path.exists(path):
        raise FileError(f"{path} must be a run folder, but does not exist.", hint=_runs_near(path))
    if os.path.isdir(path):
        refuse_links(path)
    if not file.is_file():
        raise FileError(
            f"{path} must be a run folder with a config.json, but has none.", hint=_runs_near(path)
        )
    data = read_json(file)
    check_format(data, str(file))
    return data


def _runs_near(path: Path) -> str | None:
    folder = path
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    found = [folder] if (folder / "config.json").is_file() else []
    found += sorted(p.parent for p in folder.glob("*/config.json"))
    found += sorted(p.parent for p in folder.glob("*/*/config.json"))
    if not found or folder == Path("/"):
        return None
    return "runs near it: " + ", ".join(str(p) for p in found[:4])


def provenance() -> dict[str, Any]:
    """Returns versions, platform, git state of the working directory and the command line."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "git": _git_state(),
        "command": [os.path.basename(sys.argv[0]) if sys.argv else "", *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Clipper, Python and the libraries results depend on."""
    found = {"python": platform.python_version()}
    for name in ("clipper-rl", "torch", "numpy", "gymnasium", "mujoco"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        result = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=5, check=True
        )
        return result.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
