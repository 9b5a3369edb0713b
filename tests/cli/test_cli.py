"""The door itself: help, version, exit codes, and what people type wrongly."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clipper.cli.presets
from clipper import __version__
from clipper.cli.main import VERBS, module_of
from clipper.config_ppo import PPOConfig
from clipper.errors import ClipperError, ConfigError
from clipper.setting_values import show
from commands import SCRIPT, Clip, assert_refused, left_in

ROOT = Path(__file__).parents[2]
FIELDS = {field.name: field for field in dataclasses.fields(PPOConfig)}
FLAGS = {name: "--" + name.replace("_", "-") for name in FIELDS}
# what must not be loaded before there is work for it
HEAVY = ("torch", "gymnasium", "matplotlib")


def loaded_by(*words: str | Path, cwd: Path) -> list[str]:
    """Returns which of HEAVY a command imports, in a fresh process."""
    code = (
        "import sys\n"
        "from clipper.cli.main import main\n"
        f"main({[str(word) for word in words]!r})\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *([verb, "--help"] for verb in VERBS),
        ["presets"],
        ["presets", "LunarLander-v3"],
        # what is wrong at first sight is said at once
        ["trian", "CartPole-v1"],
        ["train", "CartPole-v1", "--gama", "1"],
        ["train", "CartPole-v1", "--gamma", "2"],
        ["evaluate", "nowhere"],
        ["resume", "nowhere"],
    ],
    ids=" ".join,
)
def test_what_needs_no_work_loads_no_torch(words: list[str], tmp_path: Path) -> None:
    """Help, lists and first refusals import neither torch nor gymnasium nor matplotlib."""
    assert loaded_by(*words, cwd=tmp_path) == []


def test_inspect_needs_neither_torch_nor_the_environment(trained: Path, tmp_path: Path) -> None:
    """An agent is described from its file alone."""
    assert loaded_by("inspect", trained, cwd=tmp_path) == []


def test_the_overview_names_every_verb(clip: Clip) -> None:
    """`clipper`, `clipper --help`, `-h` and `help` print the same page, which names every verb."""
    pages = [clip(*words) for words in ([], ["--help"], ["-h"], ["help"])]
    assert len(set(pages)) == 1
    assert pages[0].code == 0
    assert pages[0].err == ""
    for verb, text in VERBS.items():
        assert re.search(rf"^ +{verb} +{text}$", pages[0].out, re.MULTILINE)


def test_every_verb_is_a_file_and_every_file_a_verb() -> None:
    """The verbs are the files of `cli` but for the shared ones; README's six are among them."""
    files = {path.stem for path in (ROOT / "src/clipper/cli").glob("*.py")}
    assert set(map(module_of, VERBS)) == files - {"__init__", "arguments", "main", "stdout"}
    assert set(VERBS) >= {"train", "evaluate", "render", "resume", "plot", "inspect", "presets"}


def test_version(shell: Clip) -> None:
    """`--version` prints the installed version, which is the project file's."""
    said = shell("--version")
    assert (said.code, said.out) == (0, f"clipper {__version__}\n")
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def help_of(text: str, flag: str) -> str:
    """Returns the words from a flag to the next one, line breaks taken out."""
    found = re.search(rf"^  {flag} (.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{flag} is not in the help"
    return " ".join(found[1].split())


def test_python_m_is_the_command_too(tmp_path: Path) -> None:
    """Where the script is not on the path; the exit code comes back, and runs name the command."""
    door = [sys.executable, "-m", "clipper"]
    assert subprocess.run([*door, "trian"], capture_output=True).returncode == 2
    words = ["train", "CartPole-v1", "--total-timesteps=1", f"--out={tmp_path}"]
    subprocess.run([*door, *words], capture_output=True, check=True)
    (file,) = tmp_path.rglob("config.json")
    assert json.loads(file.read_text())["command"] == ["clipper", *words]


def test_every_setting_is_a_flag_with_unit_and_range(clip: Clip) -> None:
    """`train --help` has, for every field of the config, its bounds, unit, words and default."""
    text = clip("train", "--help").out
    for name, field in FIELDS.items():
        said = help_of(text, FLAGS[name])
        meta = field.metadata
        assert " ".join(meta["help"].split()).split("-")[0] in said  # argparse breaks at hyphens
        assert said.endswith(f"({show(field.default)})"), said
        if meta["low"] is not None and meta["high"] is not None:
            assert f"[{meta['low']:g} to {meta['high']:g}" in said
        elif meta["low"] is not None:
            assert f"[{'above' if meta['open_low'] else 'at least'} {meta['low']:g}" in said
        if meta["unit"]:
            assert f"{meta['unit']}]" in said
    # steps, rows and episodes are counted; other settings are pure numbers
    counted = {name for name, field in FIELDS.items() if field.metadata["unit"]}
    assert counted >= {"total_timesteps", "num_steps", "minibatch_size", "eval_every"}


def test_every_setting_reads_its_own_default(clip: Clip) -> None:
    """Each default, written as the help writes it, is taken: the error is about what comes next."""
    words = [f"{FLAGS[name]}={show(field.default)}" for name, field in FIELDS.items()]
    assert_refused(clip("train", "Nowhere-v7", *words), 2, "'Nowhere-v7' must name an environment")


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_refuses_nonsense(name: str, clip: Clip) -> None:
    """A word that is no value of a setting is refused with the setting's name."""
    said = clip("train", "CartPole-v1", FLAGS[name], "nonsense")
    assert_refused(said, 2, f"error: {name} must be ", "'nonsense'")


BOUNDED = [name for name, field in FIELDS.items() if field.metadata["low"] is not None]


@pytest.mark.parametrize("name", BOUNDED)
def test_every_bounded_setting_refuses_what_is_below(name: str, clip: Clip) -> None:
    """One below the bound is refused before anything is made."""
    value = f"{FIELDS[name].metadata['low'] - 1:g}"
    given = f"{value},{value}" if name == "adam_betas" else value
    said = clip("train", "CartPole-v1", f"{FLAGS[name]}={given}")
    assert_refused(said, 2, f"error: {name} must be ", f"but is {value}")
    assert left_in(Path()) == []


def documented_codes() -> list[tuple[int, str]]:
    """Returns (exit code, error class) as docs/reference/names.md lists them."""
    text = (ROOT / "docs/reference/names.md").read_text().split("## Exit codes")[1]
    rows = re.findall(r"^\| ([0-9, ]+) \| (.*?) \|", text, re.MULTILINE)
    return [
        (int(codes.split(",")[0]), name)
        for codes, classes in rows
        for name in re.findall(r"`(\w+)`", classes)
    ]


@pytest.mark.parametrize(("code", "name"), documented_codes())
def test_every_error_has_the_documented_exit_code(
    code: int, name: str, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error gives the code of the table, one sentence and its hint on stderr, and no traceback."""
    kind = getattr(sys.modules["clipper.errors"], name)

    def fail(_: object) -> int:
        raise kind("x must be y, but is z.", hint="do this.")

    monkeypatch.setattr(clipper.cli.presets, "run", fail)
    said = clip("presets")
    assert (said.code, said.out) == (code, "")
    assert said.err == "error: x must be y, but is z.\n\nhint: do this.\n"


def test_every_error_class_and_code_is_documented(clip: Clip) -> None:
    """The two tables of exit codes and the help speak of all codes there are, and of no other."""
    kinds = [ClipperError, *ClipperError.__subclasses__()]
    assert dict(sorted((name, code) for code, name in documented_codes())) == {
        kind.__name__: kind.exit_code for kind in sorted(kinds, key=lambda kind: kind.__name__)
    }
    text = (ROOT / "docs/reference/command-line.md").read_text().split("## Exit codes")[1]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert listed == {0, 129, 130, 143, *(kind.exit_code for kind in kinds)}
    help_text = clip("--help").out.split("exit codes:")[1]
    assert {int(code) for code in re.findall(r"\b\d+\b", help_text)} == listed


def test_an_unexpected_error_is_shown_whole_and_is_code_1() -> None:
    """What is not an error of ours is a defect: its traceback is what the report of it needs."""
    code = (
        "import sys, clipper.cli.presets as presets\n"
        "from clipper.cli.main import entry\n"
        "presets.run = lambda args: 1 // 0\n"
        "sys.argv = ['clipper', 'presets']\n"
        "entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_ctrl_c_outside_training_is_130(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in any verb is the shell's code for it, and one line."""

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(clipper.cli.presets, "run", interrupt)
    said = clip("presets")
    assert (said.code, said.out, said.err) == (130, "", "stopped.\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`clipper presets | head -1` says nothing about a broken pipe."""
    # unbuffered, so that the write itself finds the reader gone
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; clipper presets | { read line; sleep 0.3; }"],
        env={"PATH": f"{SCRIPT.parent}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        # environments: an old version, a newer one than there is, letters, case, no version
        ("train LunarLander-v2", "use LunarLander-v3."),
        ("train Pendulum-v0", "use Pendulum-v1."),
        ("train HalfCheetah-v9", "use HalfCheetah-v5."),
        ("train CartPoll-v1", "did you mean CartPole-v1"),
        ("train cartpole-v1", "did you mean CartPole-v1?"),
        ("train CartPole", "use CartPole-v1."),
        ("train NoSuchGameNoFrameskip-v4", "ALE/NoSuchGame-v5"),
        ("train qqqqqq", "write module:EnvId."),
        ("train no_such_module_here:Env", "run from the folder that holds no_such_module_here.py"),
        # a file in place of a module, and a library's with something behind it
        ("train chase.py:Chase", "write chase:Chase."),
        ("train envs/chase.py:Chase", "write envs.chase:Chase."),
        ("train /games/chase.py:Chase", "run in /games, and write chase:Chase."),
        ("train ./chase.py", "write chase:NAME, with the name of its class or function."),
        ("train ./libgame.so:Game", "write ./libgame.so: a library holds one environment."),
        ("train libgame.so.6", "a library's file ends in .so"),
        ("presets LunarLander-v2", "use LunarLander-v3."),
        # flags: misspelt, underscored, of another verb, of another library, abbreviated
        ("train CartPole-v1 --learning-rte 1", "did you mean --learning-rate?"),
        ("train CartPole-v1 --algo a2c --clip-range 0.1", "is a setting of PPO; A2C has none."),
        (
            "train CartPole-v1 --algo cem --gamma 0.1",
            "it is a setting of A2C, ACER, PPO, VPG, TRPO;",
        ),
        ("train CartPole-v1 --learning_rate 1", "did you mean --learning-rate?"),
        ("train CartPole-v1 --total-timestep=1", "did you mean --total-timesteps?"),
        ("train CartPole-v1 --batch-size 64", "Clipper calls it --minibatch-size"),
        ("train CartPole-v1 --n-envs 4", "Clipper calls it --num-envs"),
        ("train CartPole-v1 --ent 1", "--ent-coef?"),
        ("inspect runs --qqqqqq", "`clipper inspect --help` shows the flags."),
        ("evaluate runs --episode 3", "did you mean --episodes?"),
        ("plot runs --out a.png --titel T", "did you mean --title"),
        # verbs and presets
        ("trian CartPole-v1", "did you mean train?"),
        ("eval runs", "did you mean evaluate?"),
        ("enjoy runs", "the verbs are train, resume, evaluate"),
        ("train CartPole-v1 --preset Cartpole-v2", "did you mean CartPole-v1?"),
        ("train CartPole-v1 --preset paper/Hoper-v5", "did you mean paper/Hopper-v5"),
        ("train CartPole-v1 --preset qqqqqq", "`clipper presets` lists them."),
        # words that are missing or too many
        ("train", "clipper train CartPole-v1"),
        ("train CartPole-v1 200000", "`clipper train --help` shows the arguments."),
        ("render runs", "`clipper render --help` shows the arguments."),
        # values
        ("train CartPole-v1 --activation rleu", "did you mean relu?"),
        ("train CartPole-v1 --learning-rate linear:1", "write for example 3e-4 or linear:3e-4:0."),
        ("train CartPole-v1 --budget 10parsecs", "write 90s, 10min or 2h."),
        ("train CartPole-v1 --minibatch-size 60", "use 32, 64 or 128."),
        ('train CartPole-v1 --env-kwargs {"max_episode_steps":5}', "(--max-episode-steps N)"),
        ("train CartPole-v1 --num-steps 1000000000", "lower num_steps or num_envs."),
        ("train CartPole-v1 --hidden-sizes 90000,90000", "lower hidden_sizes."),
        ("train CartPole-v1 --env-kwargs nonsense", "`clipper train --help`"),
        ("train CartPole-v1 --env-kwargs [1]", "`clipper train --help`"),
        ("train CartPole-v1 --seed -1", "`clipper train --help`"),
        ("evaluate runs --episodes 0", "`clipper evaluate --help`"),
        ("plot runs --out a.png --x time", "`clipper plot --help`"),
    ],
)
def test_what_people_type_wrongly(words: str, hint: str, clip: Clip) -> None:
    """A slip is code 2 with a hint that says what to type, and nothing is made."""
    said = clip(*words.split(" "))
    assert_refused(said, 2)
    assert hint in said.err.split("\nhint: ")[1]
    assert left_in(Path()) == []


def test_the_minibatch_error_is_the_house_s_model(clip: Clip) -> None:
    """One sentence with what must hold and what was found, an empty line, a hint that works."""
    words = ["train", "CartPole-v1", "--num-envs=8", "--num-steps=256"]
    said = clip(*words, "--minibatch-size=60")
    assert said.err == (
        "error: minibatch_size must divide num_steps * num_envs = 2048, but is 60.\n\n"
        "hint: use 32, 64 or 128.\n"
    )
    for size in (32, 64, 128):
        assert PPOConfig().replace(num_envs=8, num_steps=256, minibatch_size=size)
    with pytest.raises(ConfigError):
        PPOConfig().replace(num_envs=8, num_steps=256, minibatch_size=60)
