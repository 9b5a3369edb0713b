"""`clipper train`: what a run leaves, what it is called, when it ends, what it plays."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from clipper.checkpoint import read_tensors
from clipper.cli.train import _returns
from clipper.errors import ConfigError
from commands import TINY, Clip, assert_refused, left_in, read_rows

# a line without end: the reward is what it is told, so is the length of an episode
OWN = textwrap.dedent(
    """
    import gymnasium
    import numpy as np


    class Line(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, reward=1.0, length=None, render_mode=None):
            self.reward, self.length = reward, length

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.count = 0
            return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

        def step(self, action):
            self.count += 1
            obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
            return obs, self.reward, self.count == self.length, False, {}
    """
)
FILES = [
    "agent.safetensors",
    "best.safetensors",
    "checkpoints",
    "checkpoints/step-000000000128",
    "checkpoints/step-000000000128/agent.safetensors",
    "checkpoints/step-000000000128/manifest.json",
    "checkpoints/step-000000000128/state.json",
    "checkpoints/step-000000000128/training.safetensors",
    "config.json",
    "curve.png",
    "episodes.csv",
    "log.txt",
    "metrics.csv",
]


def files_of(run: Path) -> list[str]:
    """Returns what a run left, but for the checkpoint of its beginning."""
    return [name for name in left_in(run) if "step-000000000000" not in name]


def meta_of(agent: Path) -> dict[str, object]:
    return read_tensors(agent)[1]


def test_a_run_folder_is_complete_and_true(trained: Path) -> None:
    """A run leaves exactly the files of README, and they say what ran."""
    assert files_of(trained) == FILES
    config = json.loads((trained / "config.json").read_text())
    assert {key: config[key] for key in ("env", "seed", "name", "algorithm", "preset")} == {
        "env": "CartPole-v1",
        "seed": 5,
        "name": "first",
        "algorithm": "ppo",
        "preset": "CartPole-v1",
    }
    # a flag over the preset over the default
    assert config["config"]["num_envs"] == 2
    assert config["config"]["gamma"] == 0.98
    assert config["config"]["vf_coef"] == 1.0
    assert {"python", "torch", "numpy", "gymnasium"} <= set(config["versions"])
    assert {"git", "command", "platform", "started", "transforms"} <= set(config)
    # 128 steps of 2 x 32 are two iterations
    assert [row["step"] for row in read_rows(trained / "metrics.csv")] == ["64", "128"]
    log = (trained / "log.txt").read_text().splitlines()
    assert "started CartPole-v1, seed 5" in log[0]
    assert "ended at step 128: total_timesteps 128 reached" in log[-1]
    with Image.open(trained / "curve.png") as picture:
        assert min(picture.size) > 200
        assert picture.convert("L").getextrema()[0] < 200  # something is drawn
    for agent in ("agent.safetensors", "checkpoints/step-000000000128/agent.safetensors"):
        assert meta_of(trained / agent)["step"] == 128
    assert meta_of(trained / "best.safetensors")["step"] in (64, 128)


def test_episodes_add_up(trained: Path) -> None:
    """Every training episode is a row; CartPole pays 1 a step, so its return is its length."""
    rows = read_rows(trained / "episodes.csv")
    assert rows
    for row in rows:
        assert float(row["episode_return"]) == int(row["episode_length"]) > 0
        assert 0 < int(row["step"]) <= 128
    for env in ("0", "1"):
        lengths = [int(row["episode_length"]) for row in rows if row["env"] == env]
        assert 64 - sum(lengths) >= 0  # 64 steps of each, the last episode may go on
        numbers = [int(row["episode"]) for row in rows if row["env"] == env]
        assert numbers == list(range(len(numbers)))
    last = read_rows(trained / "metrics.csv")[-1]
    assert float(last["rollout/episodes"]) == len(rows)
    returns = [float(row["episode_return"]) for row in rows[-100:]]
    assert math.isclose(float(last["rollout/episode_return"]), np.mean(returns), rel_tol=1e-12)


def test_metrics_are_documented_and_finite(trained: Path) -> None:
    """Every column of metrics.csv stands in docs/reference/names.md and holds numbers."""
    names = (Path(__file__).parents[2] / "docs/reference/names.md").read_text()
    for row in read_rows(trained / "metrics.csv"):
        for column, value in row.items():
            assert column == "step" or f"`{column}`" in names
            assert math.isfinite(float(value))


def test_what_runs_is_said_first(clip: Clip) -> None:
    """Preset, spaces, every transform and every changed setting are named before training."""
    said = clip("train", "Pendulum-v1", *TINY, "--normalize-obs", "true", "--quiet")
    head = " ".join(said.err.split())
    for part in (
        "Pendulum-v1, seed 0, preset Pendulum-v1, into runs/Pendulum-v1/run1-0",
        "observations: Box of 3 numbers",
        "actions: Box",
        "observations: normalised by running mean and deviation",
        "rewards: divided by the deviation of the discounted return",
        "gamma 0.9",
        "learning_rate linear:0.001:0",
        "hidden_sizes 8",
    ):
        assert part in head
    assert "128/128 steps" not in head  # --quiet


def test_the_commands_to_go_on_work(clip: Clip) -> None:
    """Each command under `next:` can be pasted as it stands."""
    said = clip("train", "CartPole-v1", *TINY, "--out", "my runs")
    commands = said.out.split("next:\n")[1].splitlines()
    assert [shlex.split(line)[1] for line in commands] == ["evaluate", "render", "plot", "resume"]
    for line in commands:
        done = clip(*shlex.split(line)[1:])
        assert done.code == 0, done.err
    assert {"CartPole-v1.gif", "curves.png"} <= set(left_in(Path()))


def test_runs_without_a_name_are_numbered(clip: Clip) -> None:
    """run1, run2, ... whatever the seeds; the highest number there is, plus one."""
    for seed in (0, 0, 4):
        assert clip("train", "CartPole-v1", *TINY, "--quiet", f"--seed={seed}").code == 0
    Path("runs/CartPole-v1/run9-0").mkdir()
    assert clip("train", "CartPole-v1", *TINY, "--quiet").code == 0
    runs = sorted(path.name for path in Path("runs/CartPole-v1").iterdir())
    assert runs == ["run1-0", "run10-0", "run2-0", "run3-4", "run9-0"]


def test_a_taken_name_is_refused_with_the_command_that_resumes_it(clip: Clip) -> None:
    """A second run of a name and seed changes nothing; the command in the hint works."""
    words = ["train", "CartPole-v1", *TINY, "--quiet", "--name=x", "--seed=2"]
    assert clip(*words).code == 0
    run = Path("runs/CartPole-v1/x-2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = clip(*words)
    assert_refused(said, 5, f"{run} must not exist yet, but does.", f"`clipper resume {run}`")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    command = said.err.split("hint: `")[1].split("`")[0]
    assert clip(*shlex.split(command)[1:], "--total-timesteps=192").code == 0
    assert clip(*words[:-1], "--seed=3").code == 0  # another seed is another run


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "/etc/x", "..", ".", "", "a b", "é", "a\nb", "x*", "x" * 101]
)
def test_illegal_names_are_refused(name: str, clip: Clip) -> None:
    """Other characters than A-Za-z0-9._- are refused; the name in the hint is legal."""
    said = clip("train", "CartPole-v1", *TINY, "--quiet", f"--name={name}")
    assert_refused(said, 2, "name must be 1 to 100 of the characters A-Za-z0-9._-")
    assert left_in(Path()) == []
    better = said.err.split("hint: use ")[1].removesuffix(".\n")
    assert clip("train", "CartPole-v1", *TINY, "--quiet", f"--name={better}").code == 0


@pytest.mark.parametrize("name", ["A.z_0-9", ".hidden", "x" * 100])
def test_legal_names_are_folders(name: str, clip: Clip) -> None:
    """Every other name becomes `runs/<env>/<name>-<seed>`."""
    assert clip("train", "CartPole-v1", *TINY, "--quiet", f"--name={name}").code == 0
    assert Path(f"runs/CartPole-v1/{name}-0/agent.safetensors").is_file()


@pytest.mark.parametrize(
    ("env", "folder"),
    [("Own/Line-v5", "Own-Line-v5"), ("own_line:Own/Line-v5", "own_line-Own-Line-v5")],
)
def test_characters_of_ids_are_mapped(env: str, folder: str, clip: Clip) -> None:
    """An id such as `ALE/Pong-v5` makes one folder, not two; the id itself is kept in the files."""
    Path("own_line.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
        gymnasium.register("Own/Line-v5", "own_line:Line", max_episode_steps=10)
        patch.syspath_prepend(Path.cwd())
        said = clip("train", env, *TINY, "--quiet")
    assert said.code == 0, said.err
    assert [path.name for path in Path("runs").iterdir()] == [folder]
    config = json.loads((Path("runs") / folder / "run1-0" / "config.json").read_text())
    assert config["env"] == env


def test_names_in_other_letters_have_folders_of_their_own(clip: Clip) -> None:
    """Two environments whose names differ in such letters alone are not mixed in pictures and tables."""
    for name in ("jäger", "jöger"):
        Path(f"{name}.py").write_text(OWN)
        assert clip("train", f"{name}:Line", *TINY, "--max-episode-steps=9", "--quiet").code == 0
    folders = sorted(path.name for path in Path("runs").iterdir())
    assert len(folders) == 2
    assert all(name.isascii() and name.startswith("j-ger-Line-") for name in folders)


def test_until_ends_at_the_mean_of_100_episodes(clip: Clip) -> None:
    """Training ends at the first iteration that has 100 episodes of at least that mean.

    Episodes of 2 steps that pay 2: 64 steps are 32 episodes, so the fourth iteration ends it.
    """
    words = ["train", "CartPole-v1", *TINY, "--max-episode-steps=2", "--total-timesteps=6400"]
    said = clip(*words, "--until=2", "--quiet")
    assert said.code == 0, said.err
    assert said.out.startswith("mean return 2.0 of the last 100 episodes reached 2 (256 steps")
    assert clip(*words, "--until=2.01", "--total-timesteps=640").out.startswith("total_timesteps")


def test_budget_ends_in_time_and_is_not_exact(clip: Clip) -> None:
    """The run ends by the clock, long before its steps; its schedules followed the clock."""
    words = [*TINY, "--total-timesteps=100000000", "--eval-every=0", "--name=b", "--quiet"]
    said = clip("train", "CartPole-v1", *words, "--budget=0.01min", "--learning-rate=linear:1e-3:0")
    assert said.code == 0, said.err
    assert said.out.startswith("budget of 0.6 s spent")
    assert "not exactly repeatable: the budget is in wall time" in said.out
    rows = read_rows(Path("runs/CartPole-v1/b-0/metrics.csv"))
    walls = [float(row["time/wall_seconds"]) for row in rows]
    assert walls[-2] < 0.6 <= walls[-1]
    # the step size of an iteration is that of a moment between the ends of the last one and its own
    rates = [float(row["schedule/learning_rate"]) for row in rows]
    for rate, before, after in zip(rates[1:], walls, walls[1:], strict=False):
        assert 1e-3 * (1 - after / 0.6) <= rate <= 1e-3 * (1 - before / 0.6) + 1e-9
    assert json.loads(clip("inspect", "runs/CartPole-v1/b-0", "--json").out)["exact"] is False
    reason = "the budget is in wall time, which differs from run to run"
    assert f"exact: false ({reason})" in clip("inspect", "runs/CartPole-v1/b-0").out.splitlines()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_init_from_takes_over_the_weights(kind: str, trained: Path, clip: Clip) -> None:
    """A new run starts from a file's or a run's weights: at step size 0 it ends with them."""
    source = trained / "agent.safetensors" if kind == "file" else trained
    words = ["train", "CartPole-v1", *TINY, "--learning-rate=0", "--seed=9", "--quiet"]
    assert clip(*words, "--init-from", source).code == 0
    old, new = (
        json.loads(clip("inspect", path, "--json").out)
        for path in (trained, "runs/CartPole-v1/run1-9")
    )
    assert new["parameters_sha256"] == old["parameters_sha256"]
    assert (new["seed"], new["step"]) == (9, 128)
    assert clip(*words, "--name=fresh").code == 0
    fresh = json.loads(clip("inspect", "runs/CartPole-v1/fresh-9", "--json").out)
    assert fresh["parameters_sha256"] != old["parameters_sha256"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--hidden-sizes=9", "--init-from=AGENT"], 5),  # another shape
        (["--init-from=nowhere.safetensors"], 5),
        (["--init-from=."], 5),  # a folder that holds no run
    ],
)
def test_init_from_the_wrong_file_leaves_nothing(
    words: list[str], code: int, trained: Path, clip: Clip
) -> None:
    """A start that cannot be is refused before a folder is made."""
    words = [word.replace("AGENT", str(trained / "agent.safetensors")) for word in words]
    assert_refused(clip("train", "CartPole-v1", *TINY, *words), code)
    assert left_in(Path()) == []


def test_env_kwargs_reach_the_environment(clip: Clip) -> None:
    """`--env-kwargs` are the environment's arguments in training and evaluation, and are kept."""
    Path("own_kwargs.py").write_text(OWN)
    kwargs = {"reward": 3.0, "length": 4}
    words = ["train", "own_kwargs:Line", *TINY, "--name=k", "--quiet"]
    said = clip(*words, "--env-kwargs", json.dumps(kwargs))
    assert said.code == 0, said.err
    run = Path("runs/own_kwargs-Line/k-0")
    assert json.loads((run / "config.json").read_text())["env_kwargs"] == kwargs
    # four steps that pay 3
    assert {row["episode_return"] for row in read_rows(run / "episodes.csv")} == {"12.0"}
    found = clip("evaluate", run, "--trust-env", "--episodes=3", "--json")
    assert json.loads(found.out)["mean"] == 12.0


def test_max_episode_steps_truncates(clip: Clip) -> None:
    """An environment without end is cut at N steps, in training and in evaluation."""
    Path("own_endless.py").write_text(OWN)
    said = clip("train", "own_endless:Line", *TINY, "--max-episode-steps=8", "--name=m", "--quiet")
    assert said.code == 0, said.err
    run = Path("runs/own_endless-Line/m-0")
    rows = read_rows(run / "episodes.csv")
    assert {(row["episode_length"], row["truncated"]) for row in rows} == {("8", "1")}
    assert len(rows) == 16  # 128 steps
    found = json.loads(clip("evaluate", run, "--trust-env", "--episodes=2", "--json").out)
    assert found["mean"] == 8.0


def test_a_process_of_its_own(shell: Clip, clip: Clip, tmp_path: Path) -> None:
    """`module:Name` imports from where one stands; results are on stdout, plain progress on stderr.

    `config.json` keeps what was typed. A module that only a file names needs to be trusted.
    """
    (tmp_path / "own_here.py").write_text(OWN)
    words = ["train", "own_here:Line", *TINY, "--env-kwargs", '{"length": 5}', "--name=h"]
    said = shell(*words)
    assert said.code == 0, said.err
    run = tmp_path / "runs/own_here-Line/h-0"
    assert files_of(run) == FILES
    assert json.loads((run / "config.json").read_text())["command"] == ["clipper", *words]
    assert said.out.startswith("total_timesteps 128 reached")
    assert "128/128 steps" in said.err
    assert "\x1b" not in said.out + said.err
    assert said.out.count("--trust-env") == 2  # every command under `next:` that needs it
    assert_refused(clip("evaluate", run), 2, "is not imported unasked", "hint: --trust-env")
    assert "mean 5.0," in clip("evaluate", run, "--trust-env", "--episodes=3").out


def test_tensorboard_events_go_on_with_the_run(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run adds to them; where the package is gone, that they end is said."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clip("train", "CartPole-v1", *TINY, "--tensorboard", "--name=t", "--quiet")
    run = Path("runs/CartPole-v1/t-0")
    said = clip("resume", run, "--total-timesteps", "256", "--quiet")
    assert said.code == 0, said.err
    events = EventAccumulator(str(run))
    events.Reload()
    steps = [event.step for event in events.Scalars("loss/value")]
    assert steps == sorted(set(steps))
    assert steps == [int(row["step"]) for row in read_rows(run / "metrics.csv")]

    def missing() -> None:
        raise ConfigError("there is no package.")

    monkeypatch.setattr("clipper.tensorboard.check_tensorboard", missing)
    said = clip("resume", run, "--total-timesteps", "384", "--quiet")
    assert "events end here: there is no package." in said.err
    assert said.code == 0


@pytest.mark.parametrize(
    ("mean", "std", "count", "words"),
    [
        (-10600.0, 0.0, 1, "return -10600.0 in the only training episode that ended"),
        (0.0021, 0.00084, 250, "return 0.0021 ± 0.00084 over the last 100 training episodes"),
        (0.0, 0.0, 7, "return 0.0 ± 0.0 over the last 7 training episodes"),
    ],
)
def test_returns_in_words(mean: float, std: float, count: int, words: str) -> None:
    """Small ones keep digits that count; one episode has no spread."""
    metrics = {
        "rollout/episode_return": mean,
        "rollout/episode_return_std": std,
        "rollout/episodes": float(count),
    }
    assert _returns(metrics) == words


def test_a_run_without_an_end_says_what_cuts_episodes(clip: Clip) -> None:
    """CliffWalking has no limit of its own, and an untrained walker does not find the end."""
    said = clip("train", "CliffWalking-v1", *TINY, "--name=n", "--quiet")
    assert "no training episode has ended yet, after " in said.out
    assert "--max-episode-steps" in said.out


def test_tensorboard_events_are_written_beside(clip: Clip) -> None:
    """`--tensorboard` adds an event file and changes nothing else."""
    pytest.importorskip("tensorboard")
    said = clip("train", "CartPole-v1", *TINY, "--tensorboard", "--name=t", "--quiet")
    assert said.code == 0, said.err
    found = files_of(Path("runs/CartPole-v1/t-0"))
    assert set(FILES) - set(found) == {"curve.png"}  # not drawn here
    more = set(found) - set(FILES)
    assert len(more) >= 1
    assert all("tfevents" in name or "tensorboard" in name for name in more)


def test_profile_of_a_run_and_of_its_resumption(clip: Clip) -> None:
    """A table on stdout and two files; a resumed run has those of the steps it went on."""
    words = ["train", "CartPole-v1", *TINY, "--name=timed", "--profile", "--quiet"]
    said = clip(*words)
    assert said.code == 0, said.err
    run = Path("runs/CartPole-v1/timed-0")
    assert f"profile: {run / 'profile.png'}" in said.out
    found = [line.split()[0] for line in said.out.splitlines()]
    parts = ["part", "start", "env", "act", "store", "estimate", "improve", "log", "evaluate"]
    at = found.index("part")
    assert found[at : at + 13] == [*parts, "save", "other", "whole", "measuring"]

    def steps() -> float:
        whole = read_rows(run / "profile.csv")[-1]
        return 1e6 * float(whole["seconds"]) / float(whole["microseconds_per_step"])

    assert steps() == pytest.approx(128, rel=1e-3)
    assert clip("resume", run, "--quiet", "--profile").out.startswith("nothing to do")
    assert steps() == pytest.approx(128, rel=1e-3)
    said = clip("resume", run, "--total-timesteps=192", "--quiet", "--profile")
    assert said.code == 0, said.err
    assert "whole" in said.out
    assert steps() == pytest.approx(64, rel=1e-3)
    said = clip("resume", run, "--total-timesteps=256", "--quiet")
    assert "profile" not in said.out
