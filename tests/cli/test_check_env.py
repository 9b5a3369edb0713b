"""`clipper check-env`: what it prints, its exit codes, and that its page tells the truth."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from clipper.cli.main import main
from clipper.envs.check_findings import FINDINGS
from clipper.mailbox import mailbox
from commands import SCRIPT, Clip, assert_refused

PAGE = Path(__file__).parents[2] / "docs/tutorials/check-your-environment.md"
ENV = textwrap.dedent(
    """
    import time

    import gymnasium
    import numpy as np


    class Mine(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, fault=None, render_mode=None):
            self.fault = fault

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = self.np_random.uniform(-1, 1, 2).astype(np.float32)
            return self.at.copy(), {}

        def step(self, action):
            if self.fault == "hang":
                time.sleep(60)
            self.at = (self.at + self.np_random.normal(0, 0.3, 2)).clip(-9, 9).astype(np.float32)
            reward = float("nan") if self.fault == "nan" else float(self.at[int(action)])
            if self.fault == "huge and endless":
                return self.at.copy(), 1e5 * reward, False, False, {}
            return self.at.copy(), reward, bool(self.np_random.random() < 0.05), False, {}
    """
)


@pytest.fixture
def _mine(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ENV)


@pytest.mark.usefixtures("_mine")
def test_a_sound_environment(clip: Clip) -> None:
    """The report is the result, exit code 0, and the next command is told."""
    said = clip("check-env", "mine:Mine", "--steps=1000")
    assert said.code == 0
    assert said.out.startswith("mine:Mine: nothing is wrong with it\n\nlooked at ")
    assert "next: clipper train mine:Mine\n" in said.err
    said = clip("check-env", "mine:Mine", "--steps=1000", "--max-episode-steps=9")
    assert "next: clipper train mine:Mine --max-episode-steps=9\n" in said.err
    kwargs = '{"fault": "huge and endless"}'
    said = clip("check-env", "mine:Mine", f"--env-kwargs={kwargs}", "--steps=1000")
    assert said.code == 0
    assert (
        f"next: clipper train mine:Mine '--env-kwargs={kwargs}' --max-episode-steps=1000 "
        "--normalize-reward\n" in said.err
    )


@pytest.mark.usefixtures("_mine")
def test_an_error_is_exit_code_3(clip: Clip) -> None:
    """The finding with its mend and its program, made with the arguments that were given."""
    said = clip("check-env", "mine:Mine", "--env-kwargs", '{"fault": "nan"}', "--steps=100")
    assert said.code == 3
    assert said.out.startswith("mine:Mine: 1 error\n\nerror    reward_not_finite: a reward must be")
    assert "env = mine.Mine(fault='nan')" in said.out
    assert "next:" not in said.err


@pytest.mark.usefixtures("_mine")
def test_json_is_one_object(clip: Clip) -> None:
    """Counts, findings with evidence, what was looked at; stderr apart."""
    words = ["check-env", "mine:Mine", "--env-kwargs", '{"fault": "nan"}', "--steps=100", "--json"]
    found = json.loads(clip(*words).out)
    assert set(found) == {"env", "errors", "warnings", "notes", "findings", "looked_at"}
    assert (found["env"], found["errors"]) == ("mine:Mine", 1)
    (finding,) = found["findings"]
    assert finding["name"] == "reward_not_finite"
    assert finding["evidence"]["step"] == 1
    assert found["looked_at"]["steps"] > 50


@pytest.mark.usefixtures("_mine")
def test_limit_budget_and_seed_are_those_given(clip: Clip) -> None:
    """Episodes of at most 7 steps, five of them; another seed is another episode."""

    def looked_at(*words: str) -> dict[str, int]:
        found = json.loads(clip("check-env", "mine:Mine", "--json", *words).out)
        return dict(found["looked_at"])

    words = ("--max-episode-steps=7", "--episodes=5", "--steps=100")
    assert looked_at(*words)["steps"] < 600
    faulty = ("--env-kwargs", '{"fault": "nan"}', "--json", "--steps=10")
    seeds = {
        json.loads(clip("check-env", "mine:Mine", *faulty, f"--seed={seed}").out)["findings"][0][
            "evidence"
        ]["seed"]
        for seed in (0, 1, 2)
    }
    assert len(seeds) == 3


def test_the_process_is_silent_if_nobody_asks_it_any_more() -> None:
    """Ctrl-C may come while the process starts: it then reads the end of a closed pipe."""
    questions, there = mailbox()
    answers, back = os.pipe()
    with tempfile.TemporaryFile() as notes:
        notes.truncate(1024)
        words = [there.file, there.pipe, back, notes.fileno()]
        code = f"from clipper.envs.check_apart import main; main({words})"
        questions.close()
        said = subprocess.run(
            [sys.executable, "-c", code], pass_fds=words, capture_output=True, timeout=60
        )
    for descriptor in (there.file, there.pipe, answers, back):
        os.close(descriptor)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


@pytest.mark.usefixtures("_mine")
def test_ctrl_c_ends_it_with_what_it_has_started(tmp_path: Path) -> None:
    """A check of an environment that hangs is stopped at once, its process too."""
    words = ["check-env", "mine:Mine", "--env-kwargs", '{"fault": "hang"}']
    process = subprocess.Popen(
        [SCRIPT, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not tell a process's children")
    until = time.monotonic() + 60
    while not (found := children.read_text().split()) and time.monotonic() < until:
        time.sleep(0.05)
    (child,) = found
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "stopped." in err
    assert "Traceback" not in err
    until = time.monotonic() + 10
    while _is_running(int(child)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_running(int(child))


def _is_running(pid: int) -> bool:
    """Returns whether a process is there, and not merely waits for its exit code to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("CartPol-v1",), 2, ("must name an environment", "did you mean CartPole-v1?")),
        (("gone:Env",), 2, ("'gone' cannot be found",)),
        (("./libgone.so",), 2, ("no such file",)),
        (("CartPole-v1", "--steps=0"), 2, ("must be a whole number above 0",)),
        (("CartPole-v1", "--step=9"), 2, ("has no flag --step", "--steps")),
        ((), 2, ("required: ENV",)),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    clip: Clip, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    """One error, no report."""
    assert_refused(clip("check-env", *words), code, *parts)


def test_the_example_of_the_page(clip: Clip, tmp_path: Path) -> None:
    """The environment of the tutorial has the findings of its table, and no others."""
    text = PAGE.read_text()
    found = re.search(r"```python\n(import gymnasium\n.*?)```", text, re.DOTALL)
    assert found
    (tmp_path / "slider.py").write_text(found[1])
    said = clip("check-env", "slider:Slider", "--json")
    assert said.code == 3
    findings = [(one["severity"], one["name"]) for one in json.loads(said.out)["findings"]]
    table = re.findall(r"^\| (error|warning|note) `(\w+)` \|", text, re.MULTILINE)
    assert findings == table


def test_the_page_has_every_finding() -> None:
    """Its last table is the list in the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(name, severity, text) for name, (severity, text) in FINDINGS.items()]


def test_torch_is_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither here nor in the other process: a check starts in well under a second."""
    (tmp_path / "mine.py").write_text(ENV + "\nimport sys\nassert 'torch' not in sys.modules\n")
    done = subprocess.run(
        [SCRIPT, "check-env", "mine:Mine", "--steps=50"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert main(["check-env", "--help"]) == 0
