"""`clipper reproduce`: a study of the paper run, stopped, gone on with, verified and refused."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from clipper.cli.main import main
from clipper.experiments import read_rows
from clipper.experiments.paper import FIGURE3, TABLE1
from commands import Clip, Said, assert_refused
from commands import read_rows as read_cells

SMOKE = ("reproduce", "table1", "--scale=smoke", "--quiet")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The smoke study of Table 1, to be read and not written, and what the command said."""
    folder = tmp_path_factory.mktemp("reproduce") / "table1"
    capture = pytest.MonkeyPatch()
    out, err = folder.with_name("out"), folder.with_name("err")
    with open(out, "w") as stdout, open(err, "w") as stderr:
        capture.setattr("sys.stdout", stdout)
        capture.setattr("sys.stderr", stderr)
        try:
            code = main([*SMOKE, "--with-raw", f"--out={folder}"])
        finally:
            capture.undo()
    return folder, Said(code, out.read_text(), err.read_text())


def test_table1_is_run_shown_and_kept(smoke: tuple[Path, Said]) -> None:
    """One command trains every setting on every task and shows the table beside the printed one."""
    folder, said = smoke
    assert said.code == 0, said.err
    settings = [*TABLE1, "clip 0.2, not normalised"]
    assert len(read_rows(folder / "results.csv")) == len(settings)
    table = read_cells(folder / "table.csv")
    assert [row["setting"] for row in table] == settings
    for row in table:
        line = next(
            line for line in said.out.splitlines() if line.strip().startswith(row["setting"])
        )
        assert f"{float(row['score']):.2f}" in line
    printed = {row["setting"]: row["printed"] for row in table}
    assert (printed["clip 0.2"], printed["no clipping or penalty"]) == ("0.82", "-0.39")
    assert printed["clip 0.2, not normalised"] == ""
    assert "not as in the paper:" in said.out
    assert "-v5" in said.out
    page = (folder / "report/report.html").read_text()
    assert page.index("Table 1") < page.index("Not as in the paper") < page.index("Performance")
    assert (folder / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_normalised_by_the_measured_random_policy(smoke: tuple[Path, Said]) -> None:
    """table.csv is (score - random) / (best - random) of the files beside it."""
    folder, _ = smoke
    rows = read_rows(folder / "results.csv")
    random = {row["env"]: float(row["mean"]) for row in read_cells(folder / "random.csv")}
    best = {e: max(r.score for r in rows if r.env == e and r.setting in TABLE1) for e in random}
    for row in read_cells(folder / "table.csv"):
        (mine,) = [r for r in rows if r.setting == row["setting"]]
        share = (mine.score - random[mine.env]) / (best[mine.env] - random[mine.env])
        assert float(row["score"]) == pytest.approx(share)
    # an untrained policy drops the pole at once
    assert 3 < random["InvertedPendulum-v5"] < 15


def test_a_second_call_trains_and_measures_nothing(
    smoke: tuple[Path, Said], clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the committed files alone the table comes out again; random.csv is not measured anew."""
    folder, _ = smoke
    for name in ("results.csv", "curves.csv", "random.csv"):
        shutil.copy(folder / name, tmp_path)
    change(tmp_path, "random.csv", "mujoco", "1.3.1")
    monkeypatch.setattr("clipper.experiments.random_policy.measure_random", lambda env: 1 / 0)
    said = clip(*SMOKE, "--with-raw", f"--out={tmp_path}")
    assert said.code == 0, said.err
    assert "12 of 12 runs have finished, 0 of them now" in said.out
    assert (tmp_path / "table.csv").read_bytes() == (folder / "table.csv").read_bytes()
    assert not (tmp_path / "runs").exists()
    assert "InvertedPendulum-v5 by MuJoCo 1.3.1" in said.err


def change(folder: Path, file: str, column: str, value: str) -> None:
    """Writes a value into a column of every row of a CSV file."""
    rows = read_cells(folder / file)
    with open(folder / file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, column: value} for row in rows)


@pytest.fixture
def copy(smoke: tuple[Path, Said], tmp_path: Path) -> Path:
    """What is committed of the smoke study, to be changed."""
    place = tmp_path / "copy"
    place.mkdir()
    for name in ("results.csv", "curves.csv", "random.csv", "libraries.csv"):
        shutil.copy(smoke[0] / name, place)
    return place


def test_verify_trains_rows_again_to_the_same_bits(copy: Path, clip: Clip) -> None:
    """Rows drawn with a seed are trained anew; the seed is printed and draws the same rows again."""
    said = clip(*SMOKE, "--with-raw", f"--out={copy}", "--verify=2")
    assert said.code == 0, said.err
    assert said.out.count("same: ") == 2
    assert "2 of 2 have the same parameters" in said.out
    seed = said.out.split("--verify-seed ")[1].split()[0]
    chosen = [line for line in said.out.splitlines() if line.startswith("  ")]
    again = clip(*SMOKE, "--with-raw", f"--out={copy}", "--verify=2", f"--verify-seed={seed}")
    assert [line for line in again.out.splitlines() if line.startswith("  ")] == chosen


def test_verify_catches_a_changed_row(copy: Path, clip: Clip) -> None:
    """A hash that the same machine does not reach again is a broken law: it is shown, exit code 6."""
    change(copy, "results.csv", "parameters_sha256", "ab" * 32)
    said = clip(*SMOKE, f"--out={copy}", "--verify=1", "--verify-seed=4")
    assert said.code == 6
    assert "DIFFERS: " in said.out
    assert "abababababab then" in said.out
    assert "0 of 1 have the same parameters" in said.out


def test_verify_says_what_else_differs(copy: Path, clip: Clip) -> None:
    """Where engine or libraries are others the bits may differ: it is said, and is no breach."""
    change(copy, "results.csv", "parameters_sha256", "ab" * 32)
    change(copy, "results.csv", "engine", "native neon")
    change(copy, "libraries.csv", "mujoco", "1.3.1")
    said = clip(*SMOKE, f"--out={copy}", "--verify=1", "--verify-seed=4")
    assert said.code == 0
    assert "differs: " in said.out
    assert "engine native neon then, native" in said.out
    assert "mujoco 1.3.1 then, " in said.out


def test_what_cannot_be_verified_is_refused(copy: Path, clip: Clip) -> None:
    """More rows than there are, rows of other settings, and a folder without rows are refused."""
    assert_refused(clip(*SMOKE, f"--out={copy}", "--verify=12"), 2, "--verify", "12 of 11")
    assert_refused(clip(*SMOKE, "--out=nothing", "--verify=1"), 5, "results.csv")
    assert_refused(clip(*SMOKE, f"--out={copy}", "--verify-seed=1"), 2, "--verify-seed")
    change(copy, "results.csv", "config_hash", "0" * 12)
    said = clip(*SMOKE, f"--out={copy}", "--verify=1", "--verify-seed=1")
    assert said.code == 2
    assert "made with others" in said.err


@pytest.mark.slow
def test_an_interrupted_study_goes_on(
    smoke: tuple[Path, Said], clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C after its first rows, the same command trains the others, to the same rows."""
    few = {name: TABLE1[name] for name in ("clip 0.1", "clip 0.2", "fixed KL 1", "fixed KL 3")}
    monkeypatch.setattr("clipper.experiments.paper.TABLE1", few)
    results = tmp_path / "study/results.csv"
    watcher = threading.Thread(target=interrupt_when, args=(results,))
    watcher.start()
    said = clip(*SMOKE, "--out=study", "--jobs=1")
    watcher.join()
    assert said.code == 130
    done = len(read_rows(results))
    assert 0 < done < 4
    assert f"next:\n  clipper {' '.join(SMOKE)} --out=study --jobs=1\n" in said.out
    said = clip(*SMOKE, "--out=study", "--jobs=2")
    assert said.code == 0, said.err
    assert f"4 of 4 runs have finished, {4 - done} of them now" in said.out
    whole = {row.key: row.parameters_sha256 for row in read_rows(smoke[0] / "results.csv")}
    for row in read_rows(results):
        assert row.parameters_sha256 == whole[row.key]


def interrupt_when(file: Path) -> None:
    """Sends this process a SIGINT when a file of results has a row."""
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 1):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_place_that_cannot_be_written_is_refused(clip: Clip, tmp_path: Path) -> None:
    """A file where the folder should be, and a damaged random.csv, end before anything is trained."""
    Path("taken").touch()
    assert_refused(clip(*SMOKE, "--out=taken"), 5, "taken")
    Path("study").mkdir()
    Path("study/random.csv").write_text("env,mean\nInvertedPendulum-v5,4\n")
    assert_refused(clip(*SMOKE, "--out=study"), 5, "random.csv", "std", "remove it")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["table2", "--games", "Pong,Pnog"], ["Pnog", "did you mean Pong?"]),
        (["table2", "--games", "Pong,Pong"], ["named once"]),
        (["table1", "--games", "Pong"], ["--games", "table2"]),
        (["table2", "--with-raw"], ["--with-raw"]),
        (["table4"], ["table4", "table1"]),
        ([], ["study"]),
        (["table1", "--scale", "huge"], ["huge", "smoke"]),
        (["table1", "--jobs", "none"], ["jobs must be"]),
        (["figure3", "--with-raw"], ["--with-raw"]),
    ],
)
def test_what_cannot_be_run_is_refused(
    clip: Clip, words: Sequence[str], parts: Sequence[str]
) -> None:
    """An unknown study, scale or game ends in one error that says what there is."""
    assert_refused(clip("reproduce", *words), 2, *parts)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_figure3_is_run_and_shown(clip: Clip) -> None:
    """One command trains the six algorithms, each by its own code, and draws their curves."""
    said = clip("reproduce", "figure3", "--scale=smoke", "--quiet", "--out=study")
    assert said.code == 0, said.err
    assert f"{len(FIGURE3)} of {len(FIGURE3)} runs have finished" in said.out
    runs = read_rows(Path("study/results.csv"))
    assert {run.setting: run.algo for run in runs} == {s: one.algo for s, one in FIGURE3.items()}
    assert all(run.steps >= 4096 and run.exact for run in runs)
    table = {row["setting"]: row for row in read_cells(Path("study/table.csv"))}
    assert list(table) == list(FIGURE3)
    for run in runs:
        assert float(table[run.setting]["score"]) == pytest.approx(run.score)
    assert table["TRPO"]["read"] == "1000"
    curves = {row["setting"] for row in read_cells(Path("study/curves.csv"))}
    assert curves == set(FIGURE3)
    assert "not as in the paper:" in said.out
    assert Path("study/figure3.png").read_bytes().startswith(b"\x89PNG")
    assert "Figure 3" in Path("study/report/report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_table2_is_run_and_shown(clip: Clip) -> None:
    """One command trains the three algorithms on a game and shows both metrics beside Table 6."""
    pytest.importorskip("ale_py", reason='needs pip install "clipper-rl[atari]"')
    words = ["reproduce", "table2", "--games=Breakout", "--steps=6000", "--quiet", "--out=study"]
    said = clip(*words)
    assert said.code == 0, said.err
    table = read_cells(Path("study/table.csv"))
    assert [(row["game"], row["algorithm"], row["printed"]) for row in table] == [
        ("Breakout", "A2C", "303.0"),
        ("Breakout", "ACER", "456.4"),
        ("Breakout", "PPO", "274.8"),
    ]
    assert all(float(row["score_all"]) >= 0 for row in table)
    assert "won by mean return over all of training" in said.out
    assert "repeat_action_probability" in said.out
    assert Path("study/table2.png").stat().st_size > 5000
