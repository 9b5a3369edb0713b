"""What happens in a run in, its folder of plain files out; and the folder read back.

`config.json` says what ran, `metrics.csv` has a row per iteration, `episodes.csv` one per training
episode, `checkpoints/` what it takes to go on, `agent.safetensors` and `best.safetensors` the
agents, `log.txt` what was said. One process writes a folder at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clipper.checkpoint import FORMAT, check_format, checkpoints_in, dump_json, write_atomically
from clipper.errors import ClipperError, ConfigError, FileError, FolderTaken
from clipper.files import file_error, read_json, refuse_links, write_all
from clipper.folder_lock import UNLOCKED, lock_file, sign, taken
from clipper.folder_lock import check_free as check_free
from clipper.growing_csv import GrowingCsv
from clipper.metrics import Episode, Metrics
from clipper.run_config import check_config

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
_LOG = logging.getLogger("clipper")


def folder_name(name: str) -> str:
    """Returns an environment's name with every character but `A-Za-z0-9._-` replaced by `-`.

    Names that differ in letters of other alphabets alone, or far behind, have folders of their own.
    """
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "env"
    if name.isascii() and len(found) <= _LONGEST:
        return found
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{found[:_LONGEST].strip('-.')}-{mark}"


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


def writable_path(place: str | Path) -> Path:
    """Returns the path of a folder that a run may write, which stands in lines of logs and commands.

    Raises:
        FileError: It is empty, or has control characters.
    """
    if not str(place) or re.search(r"[\x00-\x1f\x7f]", str(place)):
        raise FileError(
            f"a folder must have a name without line ends and other control characters, "
            f"but is {str(place)[:_LONGEST]!r}.",
            hint="`.` is the working directory.",
        )
    return Path(place)


def new_run_path(out: Path, env_folder: str, name: str | None, seed: int) -> Path:
    """Returns a folder `out/env/name-seed` made for a new run; numbered without a name.

    Raises:
        FileError: The name is taken (the hint resumes it), leads elsewhere by a link, or the folder
            cannot be made.
    """
    parent = writable_path(out) / env_folder
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
        way = f"`clipper resume {shlex.quote(str(path))}` goes on with it"
        if not checkpoints_in(path / "checkpoints"):
            way = "it has no checkpoint to go on from: remove it"
        raise FileError(
            f"{path} must not exist yet, but does.", hint=f"{way}; or choose another --name."
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
        FileError: Another process writes it, or it cannot be written or locked.
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
        self._unlogged: list[str] = []
        try:
            is_ours = self._is_ours()
        except FileError:
            self._lock.close()
            raise
        if not is_ours:
            self._lock.close()
            raise taken(path)
        sign(self._lock.fileno())
        for leftover in path.glob(".*.tmp-*"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        with contextlib.ExitStack() as opened:
            opened.callback(
                self._lock.close
            )  # whoever holds an error would hold the folder with it
            self._identity = os.stat(path)
            self._metrics = GrowingCsv(path / "metrics.csv", needed=("step",))
            opened.callback(self._metrics.close)
            self._episodes = GrowingCsv(
                path / "episodes.csv", EPISODE_COLUMNS, needed=EPISODE_COLUMNS
            )
            opened.pop_all()

    def _is_ours(self) -> bool:
        """Takes the lock; False if another process has it, or removed the file just now.

        Raises:
            FileError: It cannot be locked.
        """
        is_taken = lock_file(self._lock.fileno(), self.path)
        if is_taken is None:
            self._note(UNLOCKED)
            _LOG.warning("%s: %s", self.path, UNLOCKED)
        if is_taken is False:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / "lock"))
        except OSError:
            return False

    def check_in_place(self) -> None:
        """Raises if the folder was moved, removed or taken by another process since it was opened.

        What was opened in it would be written where nobody looks, and what is not would make another.

        Raises:
            FileError: It was.
        """
        try:
            is_there = os.path.samestat(os.stat(self.path), self._identity)
            if is_there and (self.path / "lock").exists():
                held = os.fstat(self._lock.fileno())
                is_there = os.path.samestat(os.stat(self.path / "lock"), held)
        except FileNotFoundError:
            is_there = False
        except OSError:
            return  # the disk, which what is written next tells of
        if not is_there:
            raise FileError(
                f"{self.path} must stay in its place while a run writes it, but was moved or removed.",
                hint="put it back, and what could not be written is written then.",
            )

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
        """Appends a row of metrics and a row for every episode.

        Raises:
            FileError: They cannot be written; they wait for the next time.
        """
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
        self.check_in_place()
        self._episodes.flush()
        self._metrics.flush()

    def rows(self) -> dict[str, int]:
        """Returns how many rows each CSV file has on the disk, for the checkpoint."""
        self._metrics.sync()
        self._episodes.sync()
        return self.num_rows

    @property
    def num_rows(self) -> dict[str, int]:
        """How many rows each CSV file has, those that wait to be written included."""
        return {"metrics": self._metrics.num_rows, "episodes": self._episodes.num_rows}

    def cut_back(self, rows: Mapping[str, int]) -> str | None:
        """Drops rows that were written after a checkpoint; returns which are missing, or None."""
        files = (self._metrics, rows["metrics"]), (self._episodes, rows["episodes"])
        missing = [found for file, count in files if (found := file.cut_back(count))]
        return ", ".join(missing) or None

    def log(self, line: str) -> None:
        """Appends a line with the time to `log.txt`."""
        self._note(line)
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

    def _note(self, line: str) -> None:
        """Has a line written to `log.txt` with the next one that is."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._unlogged.append(f"{stamp} {line}\n")

    def close(self) -> None:
        """Closes the files and lets go of the lock."""
        self._metrics.close()
        self._episodes.close()
        if not self._lock.closed:
            # removed while it is held: nobody can hold another file of that name
            with contextlib.suppress(OSError):
                (self.path / "lock").unlink()
            self._lock.close()


def opened_again(path: Path, rows: Mapping[str, int]) -> tuple[RunFolder, str | None]:
    """Returns the folder of a run that goes on, and which of its rows are missing, or None.

    Args:
        path: The folder that the run wrote before.
        rows: How many each CSV file had then.

    Raises:
        FileError: It is no longer there, or another process wrote it since or writes it now.
    """
    if not (path / "config.json").is_file():
        raise FileError(
            f"{path} must still be the folder of this run, but has no config.json.",
            hint="put it back, or give another folder as run_dir.",
        )
    folder = RunFolder(path)
    if any(count > rows[name] for name, count in folder.num_rows.items()):
        folder.close()
        raise FolderTaken(
            f"{path} must be as this run left it, but another process went on with it.",
            hint=f"`clipper.resume({str(path)!r})` goes on from there.",
        )
    return folder, folder.cut_back(rows)


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
    check_config(data, str(file))
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
