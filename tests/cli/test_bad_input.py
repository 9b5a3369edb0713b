"""What cannot work: one error of ours with its code, before training where it can be known.

Nothing is left behind by what was known before; nothing is lost by what was not.
"""

from __future__ import annotations

import errno
import os
import shutil
import textwrap
from pathlib import Path

import pytest

from clipper.checkpoint import read_tensors
from commands import TINY, Clip, assert_refused, left_in, read_rows
from failing_disk import failing_disk, refusing

# an environment that is sound until `FAULT.txt` names what to do wrong, from step 33 of its own
# 64 steps are an iteration of two environments, so the first is sound and the second is not
ENV = textwrap.dedent(
    """
    from pathlib import Path

    import gymnasium
    import numpy as np

    HERE = Path(__file__).parent


    def fault():
        file = HERE / "FAULT.txt"
        return file.read_text() if file.exists() else ""


    class Faulty(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        total = 0

        def __init__(self, render_mode=None):
            if fault() == "init":
                raise RuntimeError("no hardware")
            if fault() == "image":
                self.observation_space = gymnasium.spaces.Box(0, 255, (2, 2, 2, 2, 2), np.uint8)
            if fault() == "text":
                self.observation_space = gymnasium.spaces.Text(5)
            if fault() == "graph":
                self.action_space = gymnasium.spaces.Graph(gymnasium.spaces.Discrete(2), None)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            if fault() == "reset":
                raise RuntimeError("cannot begin")
            self.count = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.count += 1
            self.total += 1
            late = self.total > 32
            obs, reward = np.zeros(2, np.float32), 1.0
            if late and fault() == "raise":
                raise RuntimeError("cable came off")
            if late and fault() == "exit":
                raise SystemExit
            if late and fault() == "nan reward":
                reward = float("nan")
            if late and fault() == "nan observation":
                obs[1] = np.nan
            if late and fault() == "shape":
                obs = np.zeros(3, np.float32)
            if late and fault() == "reward type":
                reward = "much"
            if late and fault() == "tuple":
                return obs, reward, False, {}
            return obs, reward, self.count == 8, False, {}
    """
)
INIT_LINE = f"line {ENV[: ENV.index('no hardware')].count(chr(10)) + 1}."
WORDS = [*TINY, "--quiet", "--eval-every=0"]


@pytest.fixture
def faulty(clip: Clip, request: pytest.FixtureRequest) -> str:
    """The name of the environment above; its module is this test's own, for Python keeps modules."""
    module = f"faulty_{abs(hash(request.node.nodeid))}"
    Path(f"{module}.py").write_text(ENV)
    return f"{module}:Faulty"


@pytest.mark.parametrize(
    ("fault", "code", "parts"),
    [
        ("image", 2, ["an image must have two to four axes", "--image-layout flat"]),
        ("text", 2, ["Text"]),
        ("graph", 2, ["Graph"]),
        ("init", 3, ["must be buildable", "RuntimeError: no hardware", INIT_LINE]),
    ],
)
def test_what_is_known_before_training_leaves_nothing(
    fault: str, code: int, parts: list[str], faulty: str, clip: Clip
) -> None:
    """An unsupported space or an environment that cannot be built is refused before a folder is made."""
    Path("FAULT.txt").write_text(fault)
    before = left_in(Path())
    said = clip("train", faulty, *WORDS)
    assert_refused(said, code, "\nhint: ", *parts)
    assert left_in(Path()) == before


@pytest.mark.parametrize(
    ("fault", "code", "parts"),
    [
        ("raise", 3, ["must not raise in step", "RuntimeError: cable came off", "step 1"]),
        ("exit", 3, ["must not raise in step", "it called sys.exit", "step 1"]),
        ("shape", 3, ["must keep Gymnasium's contract in step", "(2,)", "(3,)"]),
        ("reward type", 3, ["must give a number as the reward of every step"]),
        ("tuple", 3, ["must return (obs, reward, terminated, truncated, info)", "4 values"]),
        ("nan reward", 4, ["must be finite"]),
        ("nan observation", 4, ["must be finite"]),
    ],
)
def test_a_fault_in_training_loses_nothing(
    fault: str, code: int, parts: list[str], faulty: str, clip: Clip
) -> None:
    """A fault in the second iteration ends the run with the first one kept; it can be resumed.

    The error says where and what was kept; the resumed run has every row once.
    """
    Path("FAULT.txt").write_text(fault)
    said = clip("train", faulty, *WORDS, "--name=f")
    run = Path(f"runs/{faulty.replace(':', '-')}/f-0")
    note = f"note: everything up to step 64 is kept; `clipper resume {run}"
    assert_refused(said, code, faulty, note, *parts)
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64"]
    assert read_tensors(run / "agent.safetensors")[1]["step"] == 64
    # the command of the note, as it is, once the cable is back
    Path("FAULT.txt").unlink()
    command = said.err.split("`clipper ")[1].split("`")[0].split()
    done = clip(*command, "--quiet")
    assert done.code == 0, done.err
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64", "128"]
    # 128 steps are 64 of each environment, 8 episodes of 8 steps each
    rows = read_rows(run / "episodes.csv")
    assert sorted((row["env"], int(row["episode"])) for row in rows) == [
        (env, episode) for env in "01" for episode in range(8)
    ]


def test_a_first_reset_that_raises_leaves_the_name_free(faulty: str, clip: Clip) -> None:
    """A run that never began is none: mended, the same command trains under the same name."""
    Path("FAULT.txt").write_text("reset")
    words = ["train", faulty, *WORDS, "--name=f"]
    assert_refused(clip(*words), 3, "must not raise in reset", "cannot begin", "\nhint: ")
    Path("FAULT.txt").unlink()
    said = clip(*words)
    assert said.code == 0, said.err


def test_a_fault_in_evaluation_loses_nothing(faulty: str, clip: Clip) -> None:
    """An environment that fails while an agent is examined is code 3; the file stays as it was."""
    assert clip("train", faulty, *WORDS, "--name=f").code == 0
    run = Path(f"runs/{faulty.replace(':', '-')}/f-0")
    before = left_in(run)
    Path("FAULT.txt").write_text("raise")
    said = clip("evaluate", run, "--trust-env", "--episodes=300")
    assert_refused(said, 3, "cable came off", "hint: ")
    assert left_in(run) == before
    said = clip("render", run, "--trust-env", "--out=a.gif", "--episodes=9")
    assert said.code == 3
    assert not [name for name in left_in(Path()) if name.endswith(".gif") or "tmp-" in name]


def test_the_wrong_environment_for_an_agent(trained: Path, clip: Clip) -> None:
    """--env with other spaces than the agent's is refused with both."""
    said = clip("evaluate", trained, "--env=Acrobot-v1")
    assert_refused(said, 2, "observation space of Acrobot-v1", "4 numbers", "6 numbers")


def test_unknown_arguments_of_the_environment(clip: Clip) -> None:
    """A key that the environment does not take is the environment's error, before a folder is made."""
    said = clip("train", "CartPole-v1", *WORDS, "--env-kwargs", '{"gravty": 5}')
    assert_refused(said, 3, "CartPole-v1 must be buildable with", "gravty")
    assert left_in(Path()) == []


def test_a_file_where_the_folder_of_runs_should_be(clip: Clip) -> None:
    """--out that cannot be a folder is refused before training, and the file stays."""
    Path("runs").write_text("mine")
    for out in ("runs", "runs/below"):
        said = clip("train", "CartPole-v1", *WORDS, "--out", out)
        assert_refused(said, 5, "must be a folder that can be written", "hint: give another folder")
    assert left_in(Path()) == ["runs"]
    assert Path("runs").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_an_unwritable_folder(trained: Path, clip: Clip) -> None:
    """A folder without permission is refused before training or playing, by every verb that writes."""
    Path("locked").mkdir(mode=0o500)
    said = clip("train", "CartPole-v1", *WORDS, "--out=locked")
    assert_refused(said, 5, "must be a folder that can be written", "hint: give another folder")
    assert_refused(clip("render", trained, "--out=locked/a.gif"), 5, "locked")
    assert_refused(clip("plot", trained, "--out=locked/a.png"), 5, "locked")
    assert left_in(Path()) == ["locked"]


def test_a_full_disk_is_an_error_of_ours(trained: Path, clip: Clip) -> None:
    """A file that takes no more bytes is code 5 with its name; with room again the run goes on."""
    run = Path(shutil.copytree(trained, "run"))
    with failing_disk(refusing(errno.ENOSPC), first=1):
        said = clip("resume", run, "--total-timesteps=256", "--quiet")
    assert_refused(said, 5, f"{run} must be a folder that can be written, but No space left")
    assert clip("resume", run, "--total-timesteps=256", "--quiet").code == 0
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["64", "128", "192", "256"]


@pytest.mark.parametrize("words", [
    ["train", "CartPole-v1", *TINY, "--out", "r\udcff"],
    ["plot", "runs", "--title", "\udce9", "--out", "t.png"],
    ["report", "runs", "--title", "\udce9"],
])  # fmt: skip
def test_bytes_that_are_no_text_are_refused(words: list[str], clip: Clip) -> None:
    """As they come from a shell of another character set: before anything is made."""
    assert_refused(clip(*words), 2, "must be text", "UTF-8")
    assert left_in(Path()) == []


def test_a_run_without_an_ended_episode_is_not_to_be_plotted(clip: Clip) -> None:
    """No command is proposed that would fail; the one for its pictures names the environment."""
    said = clip(
        "train", "Pendulum-v1", *TINY, "--name=a", "--max-episode-steps=100000", "--eval-every=0"
    )
    assert said.code == 0, said.err
    assert "no training episode has ended" in said.out
    assert "clipper plot" not in said.out
    shutil.copytree("runs/Pendulum-v1/a-0", "elsewhere/moved")
    said = clip("resume", "elsewhere/moved", "--total-timesteps=256")
    assert "--out Pendulum-v1.gif" in said.out


def test_a_moved_run_is_plotted_alone(clip: Clip) -> None:
    """And not with all that lies beside the place where it is now."""
    assert clip("train", "CartPole-v1", *TINY, "--name=a").code == 0
    shutil.copytree("runs/CartPole-v1/a-0", "moved")
    said = clip("resume", "moved", "--total-timesteps=256")
    assert "clipper plot moved --out curves.png" in said.out
    assert "--out CartPole-v1.gif" in said.out
