"""Laws of run folders whose files were mixed up, edited, moved or damaged by their owner."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import clipper
from clipper.checkpoint import read_tensors, write_tensors
from clipper.cli.main import main
from clipper.errors import EnvironmentUnknown, FileError, FormatError
from clipper.tensor_files import TENSOR_FORMAT

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (4,),
    "total_timesteps": 64,
    "eval_every": 32,
    "eval_episodes": 1,
}


def trained(path: Path, env: Any = "CartPole-v1", **settings: Any) -> Path:
    """Returns the folder of a run."""
    agent = clipper.PPO(env, **{**SMALL, **settings})
    agent.train(progress=False, run_dir=path)
    agent.close()
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """Returns all that a folder holds."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("mixed") / "run")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "env", "settings"),
    [("env", "Acrobot-v1", {}), ("seed", "CartPole-v1", {"seed": 3})],
)
def test_a_checkpoint_of_another_run_is_refused(
    name: str, env: str, settings: dict[str, Any], copy: Path, tmp_path: Path
) -> None:
    """Put into this folder it would go on under this one's name; nothing is changed."""
    other = trained(tmp_path / "other", env, **settings)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    before = files_of(copy)
    with pytest.raises(FileError, match=f"must hold one run, but its config.json has the {name}"):
        clipper.resume(copy)
    assert files_of(copy) == before


def test_settings_that_were_edited_are_refused(copy: Path) -> None:
    """They are not what the checkpoint was learnt with: they were ignored without a word."""
    file = copy / "config.json"
    data = json.loads(file.read_text())
    data["config"]["gamma"] = 0.5
    file.write_text(json.dumps(data))
    before = files_of(copy)
    with pytest.raises(
        FileError, match=r"config.json has gamma 0.5 and its checkpoint 0.99"
    ) as told:
        clipper.resume(copy)
    assert "put 0.99 back" in str(told.value.hint)
    assert files_of(copy) == before


@pytest.mark.parametrize(
    ("name", "value"), [("env", "Nope-v1"), ("seed", 99), ("algorithm", "a2c"), ("zzz", 1)]
)
def test_a_config_that_was_edited_is_refused(name: str, value: Any, copy: Path) -> None:
    """Labels of comparisons and plots come from it: they must be the run's."""
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(FileError, match="copy"):
        clipper.resume(copy)


def test_a_run_may_go_on_in_another_environment_of_its_spaces(copy: Path) -> None:
    """Given by its user, it is no other run: it can be gone on with again."""

    class Heavy(CartPoleEnv):
        gravity = 12.0

    agent = clipper.resume(copy, env=lambda: gymnasium.wrappers.TimeLimit(Heavy(), 50))
    agent.train(total_timesteps=128, progress=False)
    agent.close()
    again = clipper.resume(copy)
    assert again.step == 128
    again.close()


@pytest.mark.parametrize("file", ["episodes.csv", "metrics.csv"])
@pytest.mark.parametrize(("old", "new"), [("step,", "step"), ("step", "stp")])
def test_rows_are_not_lost_by_a_damaged_header(file: str, old: str, new: str, copy: Path) -> None:
    """Resuming refuses and leaves the file as it was; comparing and drawing are told too."""
    text = (copy / file).read_text()
    damaged = text.replace(old, new, 1)
    (copy / file).write_text(damaged)
    with pytest.raises(FileError, match=f"{file} must have") as caught:
        clipper.resume(copy)
    assert "mend it, or move the file away" in str(caught.value.hint)
    assert (copy / file).read_text() == damaged
    assert main(["compare", str(copy)]) == 5
    assert main(["plot", str(copy), "--out", str(copy.parent / "x.png")]) == 5
    (copy / file).write_text(text)
    clipper.resume(copy).close()


def test_a_comma_lost_in_the_middle_of_a_header_is_found(copy: Path) -> None:
    """No row is as wide as the header then, and none is thrown away."""
    lines = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    names = lines[0].split(",")
    lines[0] = ",".join([*names[:3], names[3] + names[4], *names[5:]])
    (copy / "metrics.csv").write_text("".join(lines))
    with pytest.raises(FileError, match="as many columns as its rows have cells"):
        clipper.resume(copy)
    assert (copy / "metrics.csv").read_text() == "".join(lines)


def test_a_best_agent_of_a_newer_format_is_left_alone(copy: Path) -> None:
    """It is not damaged: neither renamed nor replaced by a worse one."""
    best = copy / "best.safetensors"
    arrays, meta = read_tensors(best)
    write_tensors(best, arrays, {**meta, "format": TENSOR_FORMAT + 1})
    newer = best.read_bytes()
    with pytest.raises(FormatError, match=f"has {TENSOR_FORMAT + 1}"):
        clipper.resume(copy)
    assert best.read_bytes() == newer


def test_an_environment_that_is_trusted_and_missing_is_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gave trust_env is not told to give it, but what could not be found."""
    (tmp_path / "mine.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\nclass Mine(CartPoleEnv): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = trained(tmp_path / "run", "mine:Mine", max_episode_steps=20)
    monkeypatch.undo()
    sys.modules.pop("mine")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(EnvironmentUnknown, match="mine"):
        clipper.resume(path, trust_env=True)
    with pytest.raises(EnvironmentUnknown, match="mine"):
        clipper.load(path, trust_env=True)
    clipper.load(path).close()


@pytest.mark.parametrize("how", ["moved", "removed", "taken"])
def test_a_folder_that_goes_away_is_told_at_once(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on, makes no second folder and says what is missing; put back, all is written."""
    path = tmp_path / "run"
    told_at = []

    def meddle(report: Any) -> None:
        if report.iteration == 2:
            path.rename(tmp_path / "away")
            if how == "removed":
                shutil.rmtree(tmp_path / "away")
            if how == "taken":
                path.mkdir()
                (path / "config.json").write_text("another's")
        if report.iteration == 4 and how == "moved":
            assert not path.exists()
            (tmp_path / "away").rename(path)
        if report.unwritten:
            told_at.append(report.iteration)

    agent = clipper.PPO("CartPole-v1", **{**SMALL, "total_timesteps": 6 * 32})
    if how == "moved":
        agent.train(progress=False, run_dir=path, callback=meddle, checkpoint_every=32)
        agent.close()
        resumed = clipper.resume(path)
        assert resumed.step == 6 * 32
        resumed.close()
        assert len((path / "metrics.csv").read_text().splitlines()) == 7
    else:
        with pytest.raises(FileError, match="must stay in its place"):
            agent.train(progress=False, run_dir=path, callback=meddle, checkpoint_every=32)
        agent.close()
        assert [p.name for p in path.rglob("*")] == (["config.json"] if how == "taken" else [])
    assert told_at[0] == 3
    assert "must stay in its place" in caplog.text


def test_a_picture_that_fails_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the memory to draw its curve a run has ended well all the same."""

    def fails(*_: Any) -> None:
        raise MemoryError("by design")

    monkeypatch.setattr("clipper.run_keeper.plot_run", fails)
    path = trained(tmp_path / "run")
    assert "curve.png could not be drawn" in caplog.text
    resumed = clipper.resume(path)
    assert resumed.step == 64
    resumed.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_for_what_is_printed_is_an_error_of_ours(run: Path) -> None:
    """Exit code 5 and a sentence, for output that is written at once or at the end."""
    code = "from clipper.cli.main import main; raise SystemExit(main())"
    for words in (["presets"], ["inspect", str(run)]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-c", code, *words],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 5, done.stderr
        assert "error: what is printed must be writable, but No space left" in done.stderr
        assert "Traceback" not in done.stderr
