"""The verbs that look at a run or go on with it: evaluate, render, resume, plot, inspect, presets."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from clipper.checkpoint import read_tensors
from clipper.config_ppo import PPOConfig
from clipper.presets import PRESETS
from commands import TINY, Clip, assert_refused, left_in, read_rows

# as a simulator that takes a port
ONLY_ONE = """
from gymnasium.envs.classic_control import CartPoleEnv


class OnlyOne(CartPoleEnv):
    taken = False

    def __init__(self):
        super().__init__()
        if OnlyOne.taken:
            raise OSError("there is a port already")
        OnlyOne.taken = True

    def close(self):
        OnlyOne.taken = False
"""
# takes no render_mode, and lists none
CHATTY = """
import ctypes
import os

import gymnasium
import numpy as np


class Chatty(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        print("Python says hello")
        os.write(1, b"the system says hello\\n")
        ctypes.CDLL(None).puts(b"C says hello")
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, 1.0, self.count == 5, False, {}
"""


def test_evaluate_json_has_exactly_these_keys(trained: Path, clip: Clip) -> None:
    """One JSON object on stdout; an interval around the mean; nothing else is said."""
    said = clip("evaluate", trained, "--episodes=12", "--seed=3", "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    keys = {"mean", "std", "low", "high", "episodes", "seed", "deterministic", "env"}
    assert set(found) == keys
    assert (found["episodes"], found["seed"], found["env"]) == (12, 3, "CartPole-v1")
    assert found["deterministic"] is True
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["std"] >= 0


def test_an_environment_that_prints_leaves_json_alone(shell: Clip, tmp_path: Path) -> None:
    """Whether Python, the operating system or C prints: it goes to standard error."""
    (tmp_path / "chatty.py").write_text(CHATTY)
    run = tmp_path / "runs/chatty-Chatty/c-0"
    assert shell("train", "chatty:Chatty", *TINY, "--name=c", "--quiet").code == 0
    said = shell("evaluate", run, "--env=chatty:Chatty", "--episodes=2", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["episodes"] == 2
    for who in ("Python", "the system", "C"):
        assert f"{who} says" in said.err


def test_evaluate_is_a_function_of_its_seed_and_mode(trained: Path, clip: Clip) -> None:
    """The same words give the same numbers; another seed or sampling gives others."""

    def found(*words: str) -> dict[str, object]:
        return dict(json.loads(clip("evaluate", trained, "--episodes=8", "--json", *words).out))

    first = found()
    assert found("--seed=0") == first
    assert found("--seed=1")["mean"] != first["mean"]
    sampled = found("--stochastic")
    assert sampled["deterministic"] is False
    assert sampled["mean"] != first["mean"]


def test_evaluate_makes_no_more_environments_than_asked(clip: Clip) -> None:
    """A simulator of which a process can hold one is evaluated with --num-envs 1."""
    (Path.cwd() / "onlyone.py").write_text(ONLY_ONE)
    flags = [*TINY, "--num-envs=1", "--minibatch-size=32", "--eval-every=0", "--seed=1"]
    said = clip("train", "onlyone:OnlyOne", *flags, "--name=one")
    assert said.code == 0, said.err
    run = next(Path("runs").glob("*/one-1"))
    said = clip("evaluate", run, "--trust-env", "--episodes=4")
    assert (said.code, said.err.count("there is a port already")) == (3, 1)
    said = clip("evaluate", run, "--trust-env", "--episodes=4", "--num-envs=1")
    assert said.code == 0, said.err
    assert "4 episodes" in said.out
    said = clip("evaluate", run, "--trust-env", "--num-envs=17")
    assert said.code == 2
    assert "num_envs must be from 1 to 16, but is 17" in said.err


def test_evaluate_in_words_has_the_same_numbers(trained: Path, clip: Clip) -> None:
    """Without --json one line says mean, deviation, interval, episodes and seed."""
    words = ["evaluate", trained / "agent.safetensors", "--episodes=5"]
    found = json.loads(clip(*words, "--json").out)
    line = clip(*words).out
    assert len(line.splitlines()) == 1
    for part in (
        f"mean {found['mean']:.1f}",
        f"sd {found['std']:.1f}",
        f"{found['low']:.1f} to {found['high']:.1f}",
        "5 episodes",
        "seed 0",
        "deterministic",
    ):
        assert part in line


def test_a_run_folder_stands_for_its_last_agent_unless_best(trained: Path, clip: Clip) -> None:
    """RUN is agent.safetensors, RUN --best is best.safetensors, for each verb that takes one."""
    run = Path(shutil.copytree(trained, "run"))
    # make them tell apart: the best is another run's agent
    assert clip("train", "CartPole-v1", *TINY, "--seed=8", "--name=o", "--quiet").code == 0
    shutil.copy("runs/CartPole-v1/o-8/agent.safetensors", run / "best.safetensors")
    for verb in ("evaluate", "inspect"):
        last, best = clip(verb, run, "--json"), clip(verb, run, "--best", "--json")
        assert last.out == clip(verb, run / "agent.safetensors", "--json").out
        assert best.out == clip(verb, run / "best.safetensors", "--json").out
        assert best.out != last.out
    assert_refused(clip("evaluate", run / "agent.safetensors", "--best"), 2, "needs a run folder")
    (run / "best.safetensors").unlink()
    assert_refused(clip("evaluate", run, "--best"), 5, "hint: ", "leave out --best")


@pytest.mark.parametrize("verb", ["evaluate", "inspect", "resume", "render"])
def test_the_wrong_path_names_runs_near_it(verb: str, trained: Path, clip: Clip) -> None:
    """A folder above runs, or nothing at all, is code 5, and runs near by are named."""
    run = Path(shutil.copytree(trained, "runs/CartPole-v1/first-5"))
    more = ["--out", "a.gif"] if verb == "render" else []
    before = left_in(Path())
    for path in ("runs", "runs/CartPole-v1", "runs/CartPole-v1/frist-5"):
        said = clip(verb, path, *more)
        assert_refused(said, 5, f"{path} must be a run folder", f"hint: runs near it: {run}")
    assert left_in(Path()) == before


def test_a_file_where_a_run_is_meant(trained: Path, clip: Clip) -> None:
    """resume needs the folder; given a file inside it, the folder is named."""
    said = clip("resume", trained / "agent.safetensors")
    assert_refused(said, 5, "must be a run folder", f"hint: runs near it: {trained}")


def test_a_folder_where_a_file_is_meant(trained: Path, clip: Clip) -> None:
    """A picture or film cannot be written where a folder stands."""
    for name in ("a.gif", "a.mp4", "a.png"):
        Path(name).mkdir()
    for words in (["render", trained, "--out=a.gif"], ["render", trained, "--out=a.mp4"]):
        assert_refused(clip(*words), 5, "must be a file, but is a folder")
    assert_refused(clip("plot", trained, "--out=a.png"), 5, "a.png")
    assert left_in(Path()) == ["a.gif", "a.mp4", "a.png"]


def test_what_is_not_an_agent_is_refused(trained: Path, clip: Clip) -> None:
    """Another file, a damaged one and a missing one are code 5 and one sentence."""
    whole = (trained / "agent.safetensors").read_bytes()
    for name, data in {"text": b"hello", "empty": b"", "cut": whole[:-100]}.items():
        Path(f"{name}.safetensors").write_bytes(data)
    for name in ("text", "empty", "cut", "missing"):
        for verb in ("evaluate", "inspect"):
            assert_refused(clip(verb, f"{name}.safetensors"), 5, f"{name}.safetensors")


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_render_writes_a_film(suffix: str, trained: Path, clip: Clip) -> None:
    """A film has a picture of the environment for its steps, and says its episode's own return.

    The episode is the evaluation's of that seed. The top left corner has the caption, so it differs
    from the plain white that CartPole draws there.
    """
    if suffix == "mp4":
        pytest.importorskip("av")
    target = Path("films") / f"a.{suffix}"  # the folder is made
    said = clip("render", trained, "--out", target, "--seed=2")
    assert said.code == 0, said.err
    found = json.loads(clip("evaluate", trained, "--episodes=1", "--seed=2", "--json").out)
    assert said.out == f"{target}: 1 episode, return {found['mean']:.1f}\n"
    assert left_in(Path("films")) == [target.name]
    if suffix == "gif":
        with Image.open(target) as film:
            size, frames = film.size, film.n_frames
            corner = np.asarray(film.convert("RGB"))[:12, :40]
    else:
        import av

        with av.open(str(target)) as film:
            pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        size, frames = pictures[0].shape[1::-1], len(pictures)
        corner = pictures[0][:12, :40]
    assert size == (600, 400)
    # the picture before the first step and one after each: an MP4 shows all of CartPole's 50 a
    # second, a GIF every second one, and the last
    steps = int(found["mean"])
    assert frames == (steps + 1 if suffix == "mp4" else steps // 2 + 1 + steps % 2)
    assert corner.min() < 150 < corner.max()


def test_render_several_sampled_episodes(trained: Path, clip: Clip) -> None:
    """--episodes and --stochastic are evaluate's."""
    said = clip("render", trained, "--out=a.gif", "--episodes=2", "--stochastic")
    found = json.loads(clip("evaluate", trained, "--episodes=2", "--stochastic", "--json").out)
    first, second = (float(word) for word in said.out.split("return ")[1].split(", "))
    assert said.out.startswith("a.gif: 2 episodes, return ")
    assert (first + second) / 2 == found["mean"]


@pytest.mark.parametrize("name", ["a.avi", "a", "gif"])
def test_render_knows_its_formats(name: str, trained: Path, clip: Clip) -> None:
    """Another suffix is refused before anything is played, and a name that works is proposed."""
    said = clip("render", trained, f"--out={name}")
    assert_refused(said, 2, "must end in .gif or .mp4", f"hint: write {Path(name).stem}.gif.")
    assert left_in(Path()) == []


def test_resume_goes_on_in_the_folder(trained: Path, clip: Clip) -> None:
    """With a larger budget rows are appended where the run ended, and the new budget is kept."""
    run = Path(shutil.copytree(trained, "run"))
    before = read_rows(run / "metrics.csv"), read_rows(run / "episodes.csv")
    said = clip("resume", run, "--total-timesteps=256")
    assert said.code == 0, said.err
    assert "resuming at step 128" in said.err
    assert said.out.startswith("total_timesteps 256 reached")
    metrics, episodes = read_rows(run / "metrics.csv"), read_rows(run / "episodes.csv")
    assert [row["step"] for row in metrics] == ["64", "128", "192", "256"]
    assert (metrics[:2], episodes[: len(before[1])]) == before
    # the 256 steps are 128 of each environment, whose unfinished episode went on
    for env in ("0", "1"):
        numbers = [int(row["episode"]) for row in episodes if row["env"] == env]
        assert numbers == list(range(len(numbers)))
    assert json.loads((run / "config.json").read_text())["config"]["total_timesteps"] == 256
    assert read_tensors(run / "agent.safetensors")[1]["step"] == 256
    log = (run / "log.txt").read_text()
    assert log.index("ended at step 128") < log.index("resumed at step 128")
    assert not (run / "lock").exists()


def test_a_refused_resume_leaves_a_finished_run_finished(trained: Path, clip: Clip) -> None:
    """Nothing is written, and a comparison counts it as before."""
    run = Path(shutil.copytree(trained, "runs/CartPole-v1/first-5"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert_refused(clip("resume", run, "--total-timesteps=64"), 2, "must be above the 128 steps")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    said = clip("compare", "runs")
    assert said.code == 0
    assert "not finished" not in said.err


def test_resume_with_other_rules_of_the_run(trained: Path, clip: Clip) -> None:
    """When to evaluate, and what NaN does, may change: they change nothing that is learnt."""
    run = Path(shutil.copytree(trained, "run"))
    flags = ["--eval-every=192", "--on-nonfinite=drop-episode", "--total-timesteps=320"]
    assert clip("resume", run, *flags).code == 0
    rows = read_rows(run / "metrics.csv")
    assert [bool(row["eval/return_deterministic"]) for row in rows[2:]] == [True, False, True]
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["eval_every"], config["on_nonfinite"]) == (192, "drop-episode")
    log = (run / "log.txt").read_text()
    assert "eval_every is now 192" in log
    assert "on_nonfinite is now drop-episode" in log
    assert clip("resume", run, "--total-timesteps=448", "--eval-every=0").code == 0
    rows = read_rows(run / "metrics.csv")
    assert [bool(row["eval/return_deterministic"]) for row in rows[5:]] == [False] * 2
    other = Path(shutil.copytree(trained, "other"))
    for total in (320, 448):
        assert clip("resume", other, f"--total-timesteps={total}").code == 0
    mine, theirs = (read_tensors(each / "agent.safetensors")[0] for each in (run, other))
    for name, values in theirs.items():
        np.testing.assert_array_equal(mine[name], values, err_msg=name)
    assert_refused(clip("resume", run, "--eval-every=-1"), 2, "eval_every must be at least 0")


def test_commands_after_a_resumption_name_the_environment_that_was_given(clip: Clip) -> None:
    """Each can be typed as it is: the run's own name leads nowhere."""
    Path("old_place.py").write_text(CHATTY)
    assert clip("train", "old_place:Chatty", *TINY, "--name=c", "--quiet").code == 0
    run = Path("runs/old_place-Chatty/c-0")
    Path("old_place.py").rename("new_place.py")
    sys.modules.pop("old_place")
    said = clip("resume", run, "--env=new_place:Chatty", "--total-timesteps=256")
    assert said.code == 0, said.err
    commands = said.out.split("next:\n")[1].splitlines()
    assert [line.endswith(" --env new_place:Chatty") for line in commands] == [True, False, True]
    assert clip(*commands[0].split()[1:], "--episodes=1").code == 0


def test_resume_of_a_finished_run_changes_nothing(trained: Path, clip: Clip) -> None:
    """Without a new budget there is nothing to do, and the agent stays as it is."""
    run = Path(shutil.copytree(trained, "run"))
    files = ["agent.safetensors", "best.safetensors", "metrics.csv", "episodes.csv"]
    before = [(run / name).read_bytes() for name in files]
    said = clip("resume", run, "--quiet")
    assert said.code == 0
    assert said.out.startswith("nothing to do: total_timesteps 128 reached")
    assert [(run / name).read_bytes() for name in files] == before


def test_resume_is_refused_while_the_run_is_written(trained: Path, clip: Clip) -> None:
    """One process writes a folder at a time."""
    fcntl = pytest.importorskip("fcntl")
    run = Path(shutil.copytree(trained, "run"))
    with open(run / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = left_in(run)
        said = clip("resume", run, "--total-timesteps=256")
        assert_refused(said, 5, "another process is writing it", "hint: wait")
        assert left_in(run) == before
    assert clip("resume", run, "--total-timesteps=256", "--quiet").code == 0


def test_a_folder_that_another_process_writes_is_left_alone(clip: Clip) -> None:
    """The second of two that begin under one name at once is refused, and removes nothing."""
    fcntl = pytest.importorskip("fcntl")
    run = Path("runs/CartPole-v1/twin-0")
    run.mkdir(parents=True)
    with open(run / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = clip("train", "CartPole-v1", "--total-timesteps=64", "--name=twin")
        assert_refused(said, 5, "another process is writing it", "hint: wait")
        assert left_in(run) == ["lock"]


@pytest.mark.parametrize("x", ["steps", "wall"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_of_several_runs(x: str, suffix: str, trained: Path, clip: Clip) -> None:
    """Runs, and folders of runs, each counted once; the axis is what --x says."""
    Path("all").mkdir()
    shutil.copytree(trained, "all/first-5")
    for name, seed in (("first", 6), ("other", 5)):
        copy = Path(shutil.copytree(trained, f"all/{name}-{seed}"))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "name": name, "seed": seed}))
    out = f"new/curves.{suffix}"
    said = clip("plot", "all", "all/first-5", "--x", x, "--out", out, "--title", "Three of them")
    assert (said.code, said.out) == (0, f"{out}: 3 runs\n"), said.err
    if suffix == "png":
        with Image.open(out) as picture:
            assert picture.convert("L").getextrema()[0] < 200
    else:
        svg = Path(out).read_text()
        assert "Three of them" in svg
        for label in ("first", "other"):  # two lines, the seeds of one name together
            assert label in svg
        assert ("training time" in svg.lower()) == (x == "wall")


def test_plot_without_runs(clip: Clip) -> None:
    """A folder without runs and a suffix that cannot be drawn are refused, and nothing is written."""
    Path("empty").mkdir()
    assert_refused(clip("plot", "empty", "--out=a.png"), 5, "has none at or below it", "hint: ")
    assert_refused(clip("plot", "nowhere", "--out=a.png"), 5, "is no folder", "hint: ")
    assert left_in(Path()) == ["empty"]


def test_plot_suffix(trained: Path, clip: Clip) -> None:
    """Another suffix is refused with one that works."""
    said = clip("plot", trained, "--out=a.jpeg2")
    assert_refused(said, 2, "must end in .png, .svg or .pdf", "hint: write a.png.")
    assert left_in(Path()) == []


def test_inspect_json(trained: Path, clip: Clip) -> None:
    """One object with the promised keys, and true: the settings read back, the hash is of content."""
    found = json.loads(clip("inspect", trained, "--json").out)
    promised = {"step", "env", "algorithm", "config", "parameters_sha256", "exact", "versions"}
    assert promised <= set(found)
    assert (found["step"], found["env"], found["algorithm"]) == (128, "CartPole-v1", "ppo")
    assert found["exact"] is True
    assert PPOConfig.from_json(found["config"]).hidden_sizes == (8,)
    # 4 numbers in, a layer of 8 for the policy and one for the value, 2 logits and 1 value out
    assert found["parameters"] == (4 + 1) * 8 + (8 + 1) * 2 + (4 + 1) * 8 + (8 + 1) * 1
    assert len(found["parameters_sha256"]) == 64
    for word in ("step: 128", "env: CartPole-v1", found["parameters_sha256"], "hidden_sizes: [8]"):
        assert word in clip("inspect", trained).out
    assert "exact: true" in clip("inspect", trained).out.splitlines()
    assert found["inexact"] is None


def test_presets_lists_the_promised_environments(clip: Clip) -> None:
    """Every preset is a line; classic control, Box2D, MuJoCo, the paper's and generic ones."""
    said = clip("presets")
    names = [line.split()[0] for line in said.out.splitlines()]
    assert len(set(names)) == len(names)
    mujoco = "HalfCheetah Hopper InvertedDoublePendulum InvertedPendulum Reacher Swimmer Walker2d"
    assert set(names) >= {
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
        *("Pendulum-v1", "LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
        *(f"{task}-v5" for task in f"{mujoco} Ant Humanoid".split()),
        *(f"paper/{task}-v5" for task in mujoco.split()),
        *(f"generic/{kind}-long" for kind in ("discrete", "continuous")),
    }


def test_presets_shows_what_train_would_use(clip: Clip) -> None:
    """`presets ENV` has a line for every setting, marked where it differs from the default."""
    lines = clip("presets", "CartPole-v1").out.splitlines()[1:]
    shown = {line.split()[-2]: line for line in lines}
    assert list(shown) == [field.name for field in dataclasses.fields(PPOConfig)]
    for name, line in shown.items():
        changed = getattr(PRESETS["CartPole-v1"].config(), name) != getattr(PPOConfig(), name)
        assert line.startswith("* " if changed else "  ")
    assert shown["num_steps"].split() == ["*", "num_steps", "128"]
    assert shown["learning_rate"].split()[-1] == "linear:0.001:0"


@pytest.mark.parametrize(
    ("limit", "length"), [(100, "short"), (101, "medium"), (500, "medium"), (501, "long")]
)
def test_presets_of_an_unknown_environment(
    limit: int, length: str, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment nobody tuned gets the generic settings of its kind, as train would give it."""
    registry = gymnasium.envs.registration
    monkeypatch.setattr(registry, "registry", dict(gymnasium.registry))
    point = "gymnasium.envs.classic_control:CartPoleEnv"
    gymnasium.register("Unknown-v0", point, max_episode_steps=limit)
    assert clip("presets", "Unknown-v0").out.startswith(f"preset generic/discrete-{length} ")
    said = clip("train", "Unknown-v0", *TINY, "--quiet")
    assert f"preset generic/discrete-{length}," in said.err
