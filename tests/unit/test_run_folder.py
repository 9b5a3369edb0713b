"""Laws of a run's folder: how it is named, what its files say, and how it is cut back and guarded."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clipper
from clipper.errors import ConfigError, FileError
from clipper.metrics import Episode
from clipper.provenance import provenance, versions
from clipper.run_folder import (
    EPISODE_COLUMNS,
    RunFolder,
    check_name,
    folder_name,
    new_run_path,
    read_config,
)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def episode(step: int, value: float = 1.5) -> Episode:
    return Episode(
        env=1, index=step, episode_return=value, episode_length=9, truncated=True, step=step
    )


def test_a_folder_that_could_not_be_opened_is_free(tmp_path: Path) -> None:
    """A table that is damaged or cannot be written is an error, which does not keep the lock."""
    RunFolder(tmp_path / "run").close()
    (tmp_path / "run/metrics.csv").write_bytes(b"x" * (2 << 20))
    with pytest.raises(FileError, match=r"metrics\.csv") as caught:
        RunFolder(tmp_path / "run")
    (tmp_path / "run/metrics.csv").unlink()
    RunFolder(tmp_path / "run").close()
    assert caught.value.__traceback__ is not None, "the error is still there, and what it refers to"


def write(folder: RunFolder, *steps: int, **metrics: float) -> None:
    """Writes an iteration of one episode for every step."""
    for step in steps:
        folder.write_iteration(step, {"loss/a": step / 3, **metrics}, [episode(step)], 0.25)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    found = RunFolder(tmp_path / "run")
    yield found
    found.close()


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE-Pong-v5"),
        ("mine:Env-v0", "mine-Env-v0"),
        ("../../etc", "etc"),
        ("a b\tc", "a-b-c"),
        ("test.<locals>.<lambda>", "test.-locals-.-lambda"),
        ("ä", "env-33e6d7"),
        ("", "env"),
        ("..", "env"),
    ],
)
def test_an_environments_folder(name: str, expected: str) -> None:
    """Whatever an environment is called, its folder is a plain name of one level."""
    assert folder_name(name) == expected


@given(name=st.text())
def test_a_folders_name_is_always_safe(name: str) -> None:
    """It has no separator, is never empty, hidden, `.` or `..`, and naming it again keeps it."""
    found = folder_name(name)
    assert found
    assert not set(found) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not found.startswith(".")
    assert folder_name(found) == found


@pytest.mark.parametrize("name", ["lander", "a.b_c-9", "A", "x" * 100])
def test_a_good_name_is_kept(name: str) -> None:
    """Letters, digits, dot, underscore and dash make a name."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", "run"),
        ("a/b", "a-b"),
        ("../x", "x"),
        ("..", "run"),
        ("my run", "my-run"),
        ("x" * 101, "x" * 100),
        ("name\n", "name"),
    ],
)
def test_a_bad_name_is_refused_with_a_good_one(name: str, hint: str) -> None:
    """A name that cannot stand in a path is an error whose hint is one that can."""
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert caught.value.hint == f"use {hint}."
    assert check_name(hint) == hint


def test_runs_without_a_name_are_numbered(tmp_path: Path) -> None:
    """run1, run2, ...: the number goes on from the largest there is, whatever the seed."""
    made = [new_run_path(tmp_path, "CartPole-v1", None, seed) for seed in (7, 7, 8)]
    assert [p.name for p in made] == ["run1-7", "run2-7", "run3-8"]
    assert {p.parent for p in made} == {tmp_path / "CartPole-v1"}
    (tmp_path / "CartPole-v1" / "run12-0").mkdir()
    (tmp_path / "CartPole-v1" / "mine-99").mkdir()
    (tmp_path / "CartPole-v1" / "runner50-1").mkdir()
    made[1].rmdir()
    assert new_run_path(tmp_path, "CartPole-v1", None, 7).name == "run13-7"
    assert new_run_path(tmp_path, "Other-v0", None, 7).name == "run1-7"


def test_a_named_run_has_its_seed_behind(tmp_path: Path) -> None:
    """One name may have many seeds; the same pair a second time is refused, with how to go on."""
    assert new_run_path(tmp_path, "E", "lander", 1) == tmp_path / "E" / "lander-1"
    assert new_run_path(tmp_path, "E", "lander", 2).is_dir()
    # stopped before a word was written: the name is still free
    (tmp_path / "E" / "lander-1" / "lock").write_text("")
    assert new_run_path(tmp_path, "E", "lander", 1) == tmp_path / "E" / "lander-1"
    (tmp_path / "E" / "lander-1" / "config.json").write_text("{}")
    # stopped before its first checkpoint: nothing to go on from
    with pytest.raises(FileError, match="must not exist yet") as caught:
        new_run_path(tmp_path, "E", "lander", 1)
    assert "it has no checkpoint to go on from: remove it" in str(caught.value.hint)
    (tmp_path / "E" / "lander-1" / "checkpoints" / "step-000000000008").mkdir(parents=True)
    with pytest.raises(FileError, match="must not exist yet") as caught:
        new_run_path(tmp_path, "E", "lander", 1)
    assert f"clipper resume {tmp_path / 'E' / 'lander-1'}" in str(caught.value.hint)
    with pytest.raises(ConfigError):
        new_run_path(tmp_path, "E", "../lander", 1)


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    """A file in the place of the output folder is one sentence with the flag that helps."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="must be a folder") as caught:
        new_run_path(tmp_path / "file", "E", None, 1)
    assert "--out" in str(caught.value.hint)
    with pytest.raises(FileError, match="must be a folder"):
        RunFolder(tmp_path / "file" / "below")


def _take(args: tuple[Path, int]) -> str:
    return new_run_path(args[0], "E", None, args[1]).name


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    """Two shells that start runs at the same moment do not share a number."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names = pool.map(_take, [(tmp_path, 5)] * 24, chunksize=1)
    assert sorted(names) == sorted(f"run{i}-5" for i in range(1, 25))


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_say_what_happened(folder: RunFolder) -> None:
    """A row per iteration and one per episode; numbers are written so that they read back exactly."""
    value = 0.1 + 0.2
    folder.write_iteration(
        64, {"loss/policy": value, "x": 1e-30}, [episode(60, value), episode(64)], 1.23456
    )
    (metrics,) = rows(folder.path / "metrics.csv")
    assert metrics["step"] == "64"
    assert float(metrics["loss/policy"]) == value
    assert float(metrics["x"]) == 1e-30
    first, second = rows(folder.path / "episodes.csv")
    assert tuple(first) == EPISODE_COLUMNS
    assert float(first["episode_return"]) == value
    assert (first["step"], first["env"], first["episode"]) == ("60", "1", "60")
    assert (first["episode_length"], first["truncated"]) == ("9", "1")
    assert float(second["episode_return"]) == 1.5
    assert float(first["wall_seconds"]) == pytest.approx(1.23456, abs=1e-3)
    assert folder.rows() == {"metrics": 1, "episodes": 2}


def test_rows_are_there_at_once(folder: RunFolder) -> None:
    """Whoever watches the file, or finds it after a kill, sees every finished iteration."""
    for step in range(1, 4):
        write(folder, step)
        assert len(rows(folder.path / "metrics.csv")) == step
        assert len(rows(folder.path / "episodes.csv")) == step


def test_a_new_number_is_a_new_column(folder: RunFolder) -> None:
    """A metric that appears late has its column; rows before it have an empty cell there."""
    write(folder, 1, 2)
    folder.write_iteration(3, {"eval/x": 5.0, "loss/a": 1.0}, [], 0.0)
    folder.write_iteration(4, {"eval/x": 6.0}, [], 0.0)
    found = rows(folder.path / "metrics.csv")
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    assert [row["eval/x"] for row in found] == ["", "", "5.0", "6.0"]
    assert [row["loss/a"] for row in found] == [repr(1 / 3), repr(2 / 3), "1.0", ""]


@given(
    table=st.lists(
        st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1),
            st.floats(),
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    cut=st.integers(0, 6),
)
def test_any_numbers_under_any_names_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, float]], cut: int
) -> None:
    """Names with commas, quotes or spaces and numbers like NaN survive, also a cut and reopening."""
    table = [{k: v for k, v in row.items() if k != "step"} for row in table]
    path = tmp_path_factory.mktemp("run")
    folder = RunFolder(path)
    for step, row in enumerate(table):
        folder.write_iteration(step, row, [], 0.0)
    folder.close()
    folder = RunFolder(path)
    folder.cut_back({"metrics": cut, "episodes": 0})
    kept = table[:cut]
    assert folder.rows()["metrics"] == len(kept)
    folder.write_iteration(99, {}, [], 0.0)
    folder.close()
    found = rows(path / "metrics.csv")
    assert [row["step"] for row in found] == [*(str(i) for i in range(len(kept))), "99"]
    for row, wanted in zip(found, kept, strict=False):
        values = {k: v for k, v in row.items() if k != "step" and v != ""}
        assert values == {k: repr(v) for k, v in wanted.items()}


# ---- cutting back --------------------------------------------------------------------------------


def reopened(folder: RunFolder) -> RunFolder:
    folder.close()
    return RunFolder(folder.path)


def test_rows_after_the_checkpoint_are_cut(folder: RunFolder) -> None:
    """A resumed run writes on from the checkpoint's rows; what came after is written anew."""
    write(folder, 1, 2)
    kept = folder.rows()
    before = {name: (folder.path / name).read_bytes() for name in ("metrics.csv", "episodes.csv")}
    write(folder, 3, 4, extra=7.0)
    again = reopened(folder)
    assert again.rows() == {"metrics": 4, "episodes": 4}
    again.cut_back(kept)
    assert again.rows() == kept
    assert [row["step"] for row in rows(folder.path / "metrics.csv")] == ["1", "2"]
    assert (folder.path / "episodes.csv").read_bytes() == before["episodes.csv"]
    write(again, 3, 4)
    again.close()
    assert [row["step"] for row in rows(folder.path / "metrics.csv")] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows(folder.path / "episodes.csv")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("lost", range(1, 60))
def test_a_last_line_cut_off_by_a_kill_is_dropped(tmp_path: Path, lost: int) -> None:
    """Wherever in the last rows the kill came, the rows of the checkpoint stay, and none is mixed.

    `lost` bytes of both files are gone; a row is about 20 bytes, and the checkpoint has two.
    """
    folder = RunFolder(tmp_path)
    write(folder, 1, 2)
    kept = folder.rows()
    whole = {name: (tmp_path / name).read_bytes() for name in ("metrics.csv", "episodes.csv")}
    write(folder, 3, 4, 5, 6)
    folder.close()
    for name, content in whole.items():
        path = tmp_path / name
        data = path.read_bytes()
        path.write_bytes(data[: max(len(data) - lost, len(content))])
    again = RunFolder(tmp_path)
    again.cut_back(kept)
    for name, content in whole.items():
        assert (tmp_path / name).read_bytes() == content
    write(again, 3)
    again.close()
    for name in whole:
        assert [row["step"] for row in rows(tmp_path / name)] == ["1", "2", "3"]
        assert all(None not in row and None not in row.values() for row in rows(tmp_path / name))


def test_a_half_line_without_a_cut_does_not_run_into_the_next(folder: RunFolder) -> None:
    """Even where nothing is cut back the next row begins on a line of its own."""
    write(folder, 1, 2)
    folder.close()
    path = folder.path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-6])
    again = RunFolder(folder.path)
    write(again, 3)
    again.close()
    steps = [row["step"] for row in rows(path)]
    assert steps in (["1", "3"], ["1", "2", "3"])


def test_garbage_at_the_end_is_dropped(folder: RunFolder) -> None:
    """A power cut can leave bytes that are no text after the last whole row."""
    write(folder, 1, 2)
    kept = folder.rows()
    folder.close()
    for name in ("metrics.csv", "episodes.csv"):
        with open(folder.path / name, "ab") as file:
            file.write(b"\0\0\xff\xfe\0")
    again = RunFolder(folder.path)
    again.cut_back(kept)
    write(again, 3)
    again.close()
    for name in ("metrics.csv", "episodes.csv"):
        assert [row["step"] for row in rows(folder.path / name)] == ["1", "2", "3"]


def test_cutting_back_to_nothing_keeps_the_header(folder: RunFolder) -> None:
    """A checkpoint before the first row is possible: an environment failed in the first rollout."""
    write(folder, 1)
    folder.cut_back({"metrics": 0, "episodes": 0})
    assert folder.rows() == {"metrics": 0, "episodes": 0}
    assert (folder.path / "episodes.csv").read_text().strip() == ",".join(EPISODE_COLUMNS)
    write(folder, 5)
    assert [row["step"] for row in rows(folder.path / "metrics.csv")] == ["5"]


def test_rows_that_are_gone_are_told(folder: RunFolder) -> None:
    """A file with fewer rows than the checkpoint counts is not passed over in silence."""
    write(folder, 1, 2, 3)
    kept = folder.rows()
    assert folder.cut_back(kept) is None
    for name in ("metrics.csv", "episodes.csv"):
        lines = (folder.path / name).read_bytes().splitlines(keepends=True)
        (folder.path / name).write_bytes(b"".join(lines[: 2 + (name == "metrics.csv")]))
    again = reopened(folder)
    said = "metrics.csv held 2 of the run's 3 rows, episodes.csv held 1 of the run's 3 rows"
    assert again.cut_back(kept) == said
    again.close()


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes: a write that would is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 10, 30])
@pytest.mark.parametrize(
    ("name", "num_metrics", "num_episodes", "new"),
    [("metrics.csv", 40, 1, {}), ("metrics.csv", 40, 1, {"new": 1.0}), ("episodes.csv", 1, 40, {})],
)
def test_rows_that_find_no_room_wait_for_it(
    name: str,
    num_metrics: int,
    num_episodes: int,
    new: dict[str, float],
    room: int,
    folder: RunFolder,
) -> None:
    """A write that fails leaves the file as it was, and the rows are written when there is room.

    The kernel takes `room` bytes of the new rows and refuses the rest, as a full disk does. A row
    of either file is longer than that, and the other file is the shorter one.
    """
    metrics = {f"m{i}": i / 3 for i in range(num_metrics)}
    folder.write_iteration(1, metrics, [episode(1)] * num_episodes, 0.25)
    file = folder.path / name
    before = file.read_bytes()
    with file_size_limit(len(before) + room), pytest.raises(FileError, match=f"{name}.*too large"):
        folder.write_iteration(2, {**metrics, **new}, [episode(2)] * 2, 0.25)
    assert file.read_bytes() == before
    assert folder.rows() == {"metrics": 2, "episodes": num_episodes + 2}
    assert [row["step"] for row in rows(folder.path / "metrics.csv")] == ["1", "2"]
    steps = [row["step"] for row in rows(folder.path / "episodes.csv")]
    assert steps == ["1"] * num_episodes + ["2"] * 2


def test_an_opened_folder_without_rows_stays_readable(tmp_path: Path) -> None:
    """Opening twice writes one header."""
    for _ in range(3):
        RunFolder(tmp_path).close()
    assert (tmp_path / "episodes.csv").read_text().splitlines() == [",".join(EPISODE_COLUMNS)]


# ---- lock ----------------------------------------------------------------------------------------

_OPENS = """
import os, pathlib, sys
from clipper.run_folder import RunFolder
found = RunFolder(pathlib.Path(sys.argv[1]))
os._exit(9)
"""


def test_one_process_writes_a_folder_at_a_time(folder: RunFolder) -> None:
    """A second writer is refused, in this process or another, until the first has closed."""
    with pytest.raises(FileError, match="must not be in use"):
        RunFolder(folder.path)
    command = [sys.executable, "-c", _OPENS, str(folder.path)]
    other = subprocess.run(command, capture_output=True, text=True)
    assert other.returncode == 1
    assert "must not be in use" in other.stderr
    folder.close()
    assert "lock" not in os.listdir(folder.path)
    assert subprocess.run(command).returncode == 9


def test_a_lock_of_a_dead_process_holds_nobody_up(tmp_path: Path) -> None:
    """The lock is the system's and ends with its process, however that ends."""
    assert subprocess.run([sys.executable, "-c", _OPENS, str(tmp_path)]).returncode == 9
    assert (tmp_path / "lock").exists()
    RunFolder(tmp_path).close()


def _open_and_close(path: Path) -> int:
    """Opens the folder many times; returns how often somebody else was in it as well."""
    met = 0
    for _ in range(100):
        try:
            folder = RunFolder(path)
        except FileError:
            continue
        marker = path / "inside"
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            met += 1
        else:
            marker.unlink()
        folder.close()
    return met


def test_two_writers_never_meet(tmp_path: Path) -> None:
    """The lock holds also while others open and close the folder all the time."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sum(pool.map(_open_and_close, [tmp_path] * 4, chunksize=1)) == 0


# ---- what ran ------------------------------------------------------------------------------------


NEEDED = {
    "algorithm": "ppo",
    "config": {},
    "engine": "native",
    "env": "E-v0",
    "env_is_named": True,
    "env_kwargs": {},
    "max_episode_steps": None,
    "module": None,
    "name": "first",
    "preset": None,
    "seed": 1,
    "transforms": [],
}


def test_config_says_what_ran(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings come back as they were, beside versions, platform, git state and command line."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/clipper", "train", "CartPole-v1"])
    settings = {**NEEDED, "seed": 2**62, "config": {"gamma": 0.1 + 0.2, "sizes": [1, 2]}}
    folder.write_config({**settings, **provenance()})
    found = read_config(folder.path)
    assert found["seed"] == 2**62
    assert found["config"] == {"gamma": 0.1 + 0.2, "sizes": [1, 2]}
    assert found["command"] == ["clipper", "train", "CartPole-v1"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["clipper-rl"] == clipper.__version__
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["versions"] == versions()
    assert found["platform"]
    assert found["started"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zzz": 1}, "must hold what Clipper writes there, but has 'zzz'"),
        ({"seed": "x"}, "seed must be a whole number, but is 'x'"),
        ({"seed": True}, "seed must be a whole number, but is True"),
        (
            {"max_episode_steps": 0.5},
            "max_episode_steps must be a whole number or null, but is 0.5",
        ),
        ({"env": None}, "env must be text, but is None"),
    ],
)
def test_a_config_with_other_parts_is_refused(
    folder: RunFolder, change: dict[str, Any], said: str
) -> None:
    """Unknown names and other types are no config of ours; a part that is missing neither."""
    whole = {**NEEDED, **provenance()}
    folder.write_config({**whole, **change})
    with pytest.raises(FileError, match=re.escape(said)):
        read_config(folder.path)
    for name in NEEDED:
        folder.write_config({k: v for k, v in whole.items() if k != name})
        with pytest.raises(FileError, match=f"must have '{name}', but has not"):
            read_config(folder.path)


def test_the_git_state_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commit and whether anything was changed since; None outside a repository or without git."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    assert provenance()["git"] is None
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    (tmp_path / "a.txt").write_text("1")
    for words in (["init", "-q"], ["add", "a.txt"], [*identity, "commit", "-qm", "One"]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert provenance()["git"] == {"commit": head.strip(), "dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert provenance()["git"] == {"commit": head.strip(), "dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance()["git"] is None


def test_a_folder_without_a_run_names_those_near_it(tmp_path: Path) -> None:
    """A mistyped folder is told which runs there are around it."""
    run = tmp_path / "CartPole-v1" / "run1-0"
    folder = RunFolder(run)
    folder.write_config({})
    folder.close()
    for wrong in (tmp_path / "CartPole-v1" / "run9-0", tmp_path / "CartPole-v1", tmp_path):
        with pytest.raises(FileError, match="must be a run folder") as caught:
            read_config(wrong)
        assert str(run) in str(caught.value.hint)
    (run / "config.json").unlink()
    with pytest.raises(FileError, match=r"config\.json"):
        read_config(run)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"format": 1, "format": 1}',
        '{"format": 1, "a": NaN}',
        "[]",
        "{}",
        '{"format": 2}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_config_is_our_error(tmp_path: Path, text: str | bytes) -> None:
    """Strict JSON of a known format, or one typed error that names the file."""
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(FileError, match=r"config\.json"):
        read_config(tmp_path)


def test_the_log_has_a_line_with_the_time_for_everything(folder: RunFolder) -> None:
    """Lines are appended, in order, also after the folder was opened again."""
    folder.log("first")
    again = reopened(folder)
    again.log("second: ä")
    again.close()
    lines = (folder.path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["first", "second: ä"]
    for line in lines:
        time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")


def test_a_folder_that_vanishes_is_our_error(folder: RunFolder, tmp_path: Path) -> None:
    """Someone removes the folder of a running run: a typed error, no traceback."""
    shutil.rmtree(folder.path)
    with pytest.raises(FileError, match="must be writable"):
        folder.log("anything")
    folder.close()


@pytest.mark.curve
def test_a_whole_run_fills_the_folder(tmp_path: Path) -> None:
    """Everything that the documentation names is there after a short run, and the lock is not."""
    path = tmp_path / "CartPole-v1" / "mine-3"
    agent = clipper.PPO(
        "CartPole-v1",
        seed=3,
        preset="none",
        num_envs=2,
        num_steps=32,
        minibatch_size=32,
        hidden_sizes=(8,),
        total_timesteps=256,
        eval_every=128,
        eval_episodes=1,
    )
    agent.train(run_dir=path, progress=False)
    assert {p.name for p in path.iterdir()} == {
        "config.json",
        "metrics.csv",
        "episodes.csv",
        "checkpoints",
        "agent.safetensors",
        "best.safetensors",
        "curve.png",
        "log.txt",
    }
    assert [int(row["step"]) for row in rows(path / "metrics.csv")] == [64, 128, 192, 256]
    config = read_config(path)
    wanted: dict[str, Any] = {"env": "CartPole-v1", "seed": 3, "name": "mine", "preset": "none"}
    assert {key: config[key] for key in wanted} == wanted
    assert clipper.PPOConfig.from_json(config["config"]) == agent.config
    json.dumps(config, allow_nan=False)
