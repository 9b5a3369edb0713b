"""`sweep`, `compare` and `report` as a user calls them: what is printed, written and refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from clipper.cli.arguments import Parser
from clipper.cli.train import add_arguments as add_train_arguments
from clipper.experiments.collection import collect
from commands import SCRIPT, TINY, Clip, Said, assert_refused, left_in, read_rows

QUICK = [*TINY, "--total-timesteps=256", "--eval-every=0"]
GRID = ["sweep", "CartPole-v1", "--grid", "clip_range=0.1,0.3", *QUICK]
STUDY = """
envs = ["CartPole-v1"]
seeds = "0-1"
evaluate = 2

[settings]
total_timesteps = 256
num_envs = 2
num_steps = 32
minibatch_size = 64
num_epochs = 1
hidden_sizes = [8]

[[setting]]
name = "plain"

[[setting]]
name = "blind"
gamma = 0.0
"""


def test_from_a_file_to_a_page(clip: Clip) -> None:
    """The whole way: dry run, sweep, the same again, more seeds, compare, report.

    One row per run and no more; what is printed names what is next and where things are.
    """
    Path("s.toml").write_text(STUDY)
    dry = clip("sweep", "s.toml", "--dry-run")
    assert dry.code == 0, dry.err
    assert len(dry.out.splitlines()) == 4
    assert re.search(r"^plain +CartPole-v1 +seed 0 +256 steps$", dry.out, re.MULTILINE)
    assert re.search(r"4 runs, 4 to go, into sweeps/s\nabout \d+ s with", dry.err)
    assert left_in(Path()) == ["s.toml"]

    first = clip("sweep", "s.toml", "--jobs", "2")
    assert first.code == 0, first.err
    assert first.out.startswith("4 of 4 runs have finished, 4 of them now")
    assert len(re.findall("^finished: ", first.err, re.MULTILINE)) == 4
    rows = read_rows(Path("sweeps/s/results.csv"))
    assert sorted((r["setting"], r["seed"], r["steps"], r["eval_episodes"]) for r in rows) == [
        (name, seed, "256", "2") for name in ("blind", "plain") for seed in "01"
    ]
    assert not Path("sweeps/s/logs").exists()  # nothing was printed

    again = clip("sweep", "s.toml", "--seeds", "0-2", "--quiet")
    assert again.code == 0
    assert again.err == ""
    assert again.out.startswith("6 of 6 runs have finished, 2 of them now")
    later = read_rows(Path("sweeps/s/results.csv"))
    assert later[:4] == rows
    assert len(later) == 6
    assert {row["setting"] for row in read_rows(Path("sweeps/s/curves.csv"))} == {"blind", "plain"}

    compared = clip("compare", "sweeps/s", "--metric", "eval")
    assert compared.code == 0
    assert re.search(r"^  plain +3 ", compared.out, re.MULTILINE)
    assert "against plain:" in compared.out
    assert "note: 3 seeds of a task" in compared.err

    report = clip("report", "sweeps/s")
    assert report.code == 0
    for path in report.out.split("\n\n")[-1].split():
        assert Path(path).stat().st_size > 0
    assert "gamma" in Path("sweeps/s/report/report.html").read_text()  # what differs

    folders = clip("compare", *sorted(Path("sweeps/s/runs/CartPole-v1").iterdir()))
    assert folders.code == 0
    assert re.search(r"^  plain +3 ", folders.out, re.MULTILINE)  # seeds of one setting, as before
    for column in ("config_hash", "parameters_sha256", "exact"):
        before, after = (
            {row.key: getattr(row, column) for row in collect([folder]).rows}
            for folder in ("sweeps/s", "sweeps/s/runs")
        )
        assert after == before, column


def test_flags_are_a_study_too(clip: Clip) -> None:
    """A grid over settings, environments and presets, without a file."""
    said = clip(*GRID, "--grid", "preset=none,CartPole-v1", "--seeds", "4", "--dry-run", "--name=g")
    assert said.code == 0, said.err
    assert [line.split("  ")[0] for line in said.out.splitlines()] == [
        f"clip_range={c} preset={p}" for c in ("0.1", "0.3") for p in ("none", "CartPole-v1")
    ]
    assert "into sweeps/g" in said.err
    over_envs = clip("sweep", "--grid", "env=CartPole-v1,Acrobot-v1", *QUICK, "--dry-run")
    assert [line.split()[1] for line in over_envs.out.splitlines()] == ["CartPole-v1", "Acrobot-v1"]


@pytest.mark.slow
def test_a_tmuxp_session_trains_the_same_runs(clip: Clip, tmp_path: Path) -> None:
    """Its commands are understood by a shell, and the sweep makes rows of what they trained.

    The row is the same, parameters and hash among it, as that of a sweep that trained by itself.
    """
    said = clip(*GRID, "--jobs=1", "--tmuxp", "s.yaml", "--learning-rate=linear:0.1234567:0")
    assert said.code == 0, said.err
    text = Path("s.yaml").read_text()
    assert 'session_name: "CartPole-v1"' in text
    commands = [json.loads(line[8:]) for line in text.splitlines() if line.startswith("      - ")]
    assert len(commands) == 2
    done = subprocess.run(
        ["sh", "-c", commands[0]],
        env={**os.environ, "PATH": f"{SCRIPT.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    gathered = clip(*shlex.split(text.splitlines()[0].split("`")[3])[1:], "--quiet")
    assert gathered.code == 0, gathered.err
    alone = clip(*GRID, "--learning-rate=linear:0.1234567:0", "--out=alone", "--quiet")
    assert alone.code == 0, alone.err
    for column in ("parameters_sha256", "config_hash", "score", "score_all"):
        found = [
            {row["setting"]: row[column] for row in read_rows(Path(folder) / "results.csv")}
            for folder in ("sweeps/CartPole-v1", "alone")
        ]
        assert found[0] == found[1], column


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sweep"], ["a sweep needs a file", "--grid"]),
        (["sweep", "CartPole-v1", "--grid", "env=A-v0"], ["two of them"]),
        (["sweep", "CartPole-v1", "--grid", "seed=1,2"], ["no setting 'seed'", "--seeds 0-9"]),
        (
            ["sweep", "CartPole-v1", "--grid", "env_kwargs=3,4"],
            ["env_kwargs must be a table, but is 3", "as JSON"],
        ),
        (
            ["sweep", "CartPole-v1", "--grid", 'env_kwargs={"a":1'],
            ["env_kwargs must be a table, but is '{\"a\":1'", "as JSON"],
        ),
        (["sweep", "CartPole-v1", "--grid", "evaluate=3"], ["no setting 'evaluate'", "--evaluate"]),
        (["sweep", "CartPole-v1", "--grid", "gama=1"], ["no setting 'gama'", "did you mean gamma"]),
        (["sweep", "CartPole-v1", "--grid", "gamma=2"], ["gamma must be"]),
        (["sweep", "CartPole-v1", "--grid", "gamma=1", "--gamma=1"], ["gamma must be given once"]),
        (["sweep", "CartPole-v1", "--grid", "gamma"], ["--grid must be KEY=A,B,C"]),
        (["sweep", "CartPole-v1", "--seeds", "3-1"], ["seeds must rise", "write 1-3"]),
        (["sweep", "CartPole-v1", "--jobs", "0"], ["jobs must be auto"]),
        (["sweep", "CartPole-v1", "--jobs", "many"], ["jobs must be auto"]),
        (["sweep", "CartPole-v1", "--evaluate", "-1"], ["evaluate must be"]),
        (["sweep", "CartPole-v1", "--sedes", "1"], ["--sedes", "--seeds"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_at_once(words: list[str], parts: list[str], clip: Clip) -> None:
    """Exit code 2, one sentence and a hint; nothing is started or written."""
    assert_refused(clip(*words), 2, *parts)
    assert left_in(Path()) == []


def test_what_only_the_environment_knows_is_said_before_a_run(clip: Clip) -> None:
    """An unknown environment and settings that do not go together: nothing is left behind."""
    assert_refused(clip("sweep", "CartPol-v1", *QUICK), 2, "CartPol-v1", "CartPole-v1")
    said = clip("sweep", "CartPole-v1", "--grid", "minibatch_size=64,63", *QUICK[:2], *QUICK[3:])
    assert_refused(said, 2, "minibatch_size=63 on CartPole-v1: minibatch_size must divide")
    said = clip("sweep", "CartPole-v1", *QUICK, "--tmuxp", "x.yaml", "--minibatch-size=63")
    assert_refused(said, 2, "minibatch_size must divide")
    assert left_in(Path()) == []


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_name_that_no_folder_can_have(verb: str, clip: Clip) -> None:
    """What the file system does not take is an error of ours."""
    found = clip(verb, "n" * 5000)
    assert found.code in (2, 5)
    assert found.err.startswith("error: ")


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_what_cannot_be_compared(verb: str, clip: Clip) -> None:
    """Missing and empty folders, files of something else: exit code 5 and what is meant."""
    Path("empty").mkdir()
    Path("other.csv").write_text("a,b\n1,2\n")
    assert_refused(clip(verb, "nowhere"), 5, "does not exist")
    assert_refused(clip(verb, "empty"), 5, "run folder")
    assert_refused(clip(verb, "other.csv"), 5, "no column setting")
    assert left_in(Path()) == ["empty", "other.csv"]


def test_a_failed_run_shows_in_the_exit_code(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are run; the summary names the failure, its log, and the command that goes on."""
    Path("broken.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Broken(CartPoleEnv):\n"
        "    def step(self, action):\n"
        "        raise RuntimeError('a gear is broken')\n"
    )
    said = clip("sweep", "--grid", "env=broken:Broken,CartPole-v1", *QUICK, "--preset=none")
    assert said.code == 3
    assert "1 of 2 runs have finished" in said.out
    assert re.search(r"^failed: .*a gear is broken", said.out, re.MULTILINE)
    log = re.search(r"^  (\S+\.log)$", said.out, re.MULTILINE)
    assert log
    assert "a gear is broken" in Path(log[1]).read_text()
    assert "clipper sweep --grid env=broken:Broken,CartPole-v1" in said.out


def test_settings_are_the_flags_of_train(clip: Clip) -> None:
    """Every setting that `train` takes, `sweep` takes under the same name."""
    help_text = clip("sweep", "--help").out
    train = Parser(prog="train")
    add_train_arguments(train)
    groups = [g for g in train._action_groups if (g.title or "").startswith("settings")]
    flags = [flag for g in groups for a in g._group_actions for flag in a.option_strings]
    assert len(flags) > 20
    missing = [f for f in flags if not f.startswith("--no-") and f not in help_text]
    assert missing == []


def test_pipes_get_results_alone(shell: Clip, tmp_path: Path) -> None:
    """In a process of its own: results on stdout, plain lines on stderr, no control characters."""
    said: Said = shell(*GRID, "--seeds=0")
    assert said.code == 0, said.err
    assert said.out.startswith("2 of 2 runs have finished")
    assert said.err.splitlines()[0].startswith("2 runs, ")
    assert "\x1b" not in said.out + said.err
