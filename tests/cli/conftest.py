"""The command line in this process and in another, and a run to look at."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

from clipper.cli.main import main
from commands import TINY, Clip, Said, run_apart


@pytest.fixture
def clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Clip:
    """Calls `clipper WORDS` in this process; an empty folder is the working directory.

    An error that is not ours leaves `main` and fails the test. `trained` and `shell` draw the curves
    of their runs.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", sys.path.copy())  # `module:EnvId` adds the folder to it

    def call(*words: str | Path) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Clip:
    """Runs the installed command in a process of its own, in the same empty folder."""
    return lambda *words: run_apart(*words, cwd=tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of CartPole-v1, seed 5, to be read and not written."""
    out = tmp_path_factory.mktemp("trained")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        words = ["train", "CartPole-v1", *TINY, "--seed=5", "--name=first", f"--out={out}"]
        assert main(words) == 0
    return out / "CartPole-v1" / "first-5"
