"""Studies from files and grids: which runs they name, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipper.config_ppo import PPOConfig
from clipper.errors import ClipperError, ConfigError, FileError
from clipper.experiments.runs import RunSpec, check_runs, config_hash, read_seeds
from clipper.experiments.study import Study, read_grid, read_study

HEAD = 'envs = ["CartPole-v1"]\nseeds = "0-1"\n'


def study_of(text: str, folder: Path) -> Study:
    file = folder / "s.toml"
    file.write_text(text)
    return read_study(file)


def small(**changes: Any) -> Study:
    return Study(**{"name": "s", "envs": ["CartPole-v1"], "seeds": [0], **changes})


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0,3,5", [0, 3, 5]),
        ("0-1, 7-8", [0, 1, 7, 8]),
        ("4", [4]),
        ([2, 0], [2, 0]),
        (3, [3]),
        (["0-1", 5], [0, 1, 5]),
    ],
)
def test_seeds(text: Any, seeds: list[int]) -> None:
    """Ranges include both ends; lists and numbers are taken as they are."""
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "3-1", "0-", "1.5", "0,,1", "0-2,1", [True], None])
def test_wrong_seeds_are_refused(text: Any) -> None:
    """What is no list of different whole numbers from 0 is an error that shows it."""
    with pytest.raises(ConfigError, match="seeds"):
        read_seeds(text)


def test_every_combination_once_seeds_first() -> None:
    """Two named settings x a grid of 2 x 2 x two tasks x two seeds: 32 runs, first seed first."""
    study = small(
        envs=["CartPole-v1", "Acrobot-v1"],
        seeds=[3, 4],
        named={"a": {"ent_coef": 0.0}, "b": {"ent_coef": 0.1}},
        grid={"gamma": [0.9, 0.99], "hidden_sizes": ["[8,8]", "[4]"]},
        shared={"num_envs": 2},
    )
    runs = study.runs()
    assert len(runs) == 32
    assert [run.seed for run in runs] == [3] * 16 + [4] * 16
    assert runs[0].setting == "a gamma=0.9 hidden_sizes=8,8"
    assert len({run.key for run in runs}) == 32
    for run in runs:
        assert run.settings["num_envs"] == 2
        assert run.settings["ent_coef"] == (0.0 if run.setting.startswith("a") else 0.1)
        assert f"gamma={run.settings['gamma']}" in run.setting
        assert run.settings["eval_every"] == 0


def test_a_grid_over_algorithms_has_settings_of_all_of_them() -> None:
    """One that another of them lacks is told as it is where it is shared, and whose it is."""
    found = small(grid={"algo": ["ppo", "trpo"], "gamma": [0.9, 0.99]}).runs()
    assert {(run.algo, run.settings["gamma"]) for run in found} == {
        (algo, gamma) for algo in ("ppo", "trpo") for gamma in (0.9, 0.99)
    }
    with pytest.raises(ConfigError, match="no setting 'clip_range'") as caught:
        small(grid={"algo": ["ppo", "a2c"], "clip_range": [0.1, 0.2]}).runs()
    assert "it is a setting of PPO; A2C has none" in str(caught.value.hint)


def test_long_names_of_a_grid_have_folders_of_their_own() -> None:
    """Settings that differ beyond what a folder's name can hold are not one."""
    grid: dict[str, Any] = {
        "learning_rate": ["linear:3e-4:0"],
        "normalize_advantage": ["minibatch"],
        "recompute_advantages": ["true"],
        "hidden_sizes": ["[64,64]"],
        "shared_torso": ["true", "false"],
    }
    runs = small(grid=grid, seeds=[0]).runs()
    check_runs(runs)
    assert min(len(run.setting) for run in runs) > 100
    assert len({run.folder for run in runs}) == 2
    assert max(len(run.folder.split("/")[1]) for run in runs) < 120


def test_a_study_without_grid_or_names_is_one_setting() -> None:
    """It is called as the study is; periodic evaluations stay if they are asked for."""
    (run,) = small(shared={"eval_every": 100}).runs()
    assert (run.setting, run.settings["eval_every"]) == ("s", 100)


def test_what_stands_beside_the_settings_reaches_the_run() -> None:
    """algo, preset, env_kwargs and max_episode_steps are of the run; the rest is of its config."""
    named = {"x": {"preset": "none", "env_kwargs": {"a": 1}, "max_episode_steps": 9, "algo": "ppo"}}
    (run,) = small(named=named, evaluate=3, device="cpu", vectorization="native").runs()
    assert (run.preset, run.env_kwargs, run.max_episode_steps, run.algo) == (
        "none",
        {"a": 1},
        9,
        "ppo",
    )
    assert (run.evaluate, run.vectorization) == (3, "native")
    assert dict(run.settings) == {"eval_every": 0}


def test_a_grid_over_arguments_of_the_environment() -> None:
    """As JSON on the command line, as tables in a file: the same runs."""
    grid = read_grid(['env_kwargs={"gravity":-9,"enable_wind":true},{"gravity":-5}'])
    found = small(grid=grid).runs()
    assert [run.env_kwargs for run in found] == [
        {"gravity": -9, "enable_wind": True},
        {"gravity": -5},
    ]
    tables = [{"gravity": -9, "enable_wind": True}, {"gravity": -5}]
    assert found == small(grid={"env_kwargs": tables}).runs()
    assert len({run.folder for run in found}) == 2


def test_a_file_says_the_same(tmp_path: Path) -> None:
    """Every part of a file is what the dataclass has."""
    text = HEAD + (
        "name = 'n'\nevaluate = 5\n[settings]\ngamma = 0.5\nhidden_sizes = [8, 8]\n"
        "[grid]\nclip_range = [0.1, 'linear:0.2:0']\n[[setting]]\nname = 'q'\nent_coef = 0.0\n"
    )
    study = study_of(text, tmp_path)
    assert (study.name, study.seeds, study.evaluate) == ("n", [0, 1], 5)
    assert [run.setting for run in study.runs()] == [
        "q clip_range=0.1",
        "q clip_range=linear:0.2:0",
    ] * 2
    assert study_of('env = "A-v0"\n', tmp_path).envs == ["A-v0"]
    assert study_of('[grid]\nenv = ["A-v0", "B-v0"]\n', tmp_path).envs == ["A-v0", "B-v0"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sedes = 1\n" + HEAD, "seeds"),
        ("max_episode_steps = 9\n", "write it under"),
        ("gamma = 0.9\n", "write it under"),
        ("[settings]\nseed = 3\n", "at the top of a file"),
        ("[settings]\ngama = 0.5\n", "did you mean gamma"),
        ("[settings]\nlr = 0.5\n", "learning_rate"),
        ("[settings]\ngamma = 2\n", "gamma must be"),
        (
            "[settings]\ngamma = 0.5\n[grid]\ngamma = [0.1]\n",
            "in the grid and in what all runs share",
        ),
        ("[grid]\ngamma = [0.1]\n[[setting]]\nname = 'a'\ngamma = 0.5\n", "and in the setting 'a'"),
        ("[grid]\ngamma = 0.1\n", "a list of values for gamma"),
        ("[grid]\ngamma = []\n", "a list of values for gamma"),
        ("[grid]\ngamma = [0.1, 0.10]\n", "stands twice"),
        ("[grid]\nenv = ['A-v0']\n", "environments once, but does so 2 times"),
        ("[[setting]]\nname = 'a'\n[[setting]]\nname = 'a'\ngamma = 0.5\n", "has 'a' twice"),
        ("[[setting]]\nname = 'a'\n[[setting]]\nname = 'b'\n", "'a' and 'b' are one"),
        (
            "[[setting]]\nname = 'a b'\n[[setting]]\nname = 'a-b'\ngamma = 0.5\n",
            "differ in letters",
        ),
        ("[[setting]]\ngamma = 0.5\n", "must have a name"),
        ("[settings]\nalgo = 'pppo'\n", "did you mean ppo"),
        ("[settings]\npreset = 3\n", "preset must be a name"),
        ("settings = 3\n", "a table [settings]"),
        ("setting = 3\n", "a table [[setting]] for every named setting, but setting is 3"),
        ("setting = 'abc'\n", "but setting is 'abc'"),
        ("[grid]\nalgo = 3\n", "a list of values for algo, but has 3"),
        ("[grid]\nalgo = 'a2c'\n", 'write algo = ["a2c"].'),
        ("[grid]\ngamma = {}\n", "a list of values for gamma, but has {}"),
        ("x = [", "must be TOML"),
    ],
)
def test_wrong_files_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """The sentence or the hint names what is wrong and, where one is near, what was meant."""
    whole = text if text.startswith(("sedes", "x")) else HEAD + text
    with pytest.raises(ClipperError) as caught:
        study_of(whole, tmp_path).runs()
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is a matter of files, not of settings."""
    with pytest.raises(FileError, match=r"nowhere\.toml"):
        read_study(tmp_path / "nowhere.toml")


def test_grid_words() -> None:
    """Commas part values, but not within brackets; dashes are underscores."""
    assert read_grid(["clip-range=0.1,linear:0.2:0", "hidden_sizes=[64,64],(8,)", "--gamma=1"]) == {
        "clip_range": ["0.1", "linear:0.2:0"],
        "hidden_sizes": ["[64,64]", "(8,)"],
        "gamma": ["1"],
    }
    for wrong in (["gamma"], ["gamma="], ["=1"], ["gamma=1", "gamma=2"]):
        with pytest.raises(ConfigError):
            read_grid(wrong)


@pytest.mark.parametrize("word", ["gamma=0.9,,0.99", "gamma=0.9,0.99,", "gamma=,0.9, 0.99"])
def test_a_grid_has_no_empty_values(word: str) -> None:
    """A comma too many may be a value forgotten: it is said, with what would be taken."""
    with pytest.raises(ConfigError, match=r"write --grid gamma=0\.9,0\.99") as caught:
        read_grid([word])
    assert repr(word) in str(caught.value)


def test_the_hash_is_of_what_is_learnt() -> None:
    """Equal settings written in two ways have one hash; another value, task or limit another.

    A setting at its default does not enter, or rows would be lost with every setting that is added.
    """
    env = {"env": "A-v0", "env_kwargs": {}, "max_episode_steps": None}
    base = config_hash("ppo", env, PPOConfig())
    assert base == config_hash("ppo", env, PPOConfig().replace(gamma=PPOConfig().gamma))
    assert PPOConfig().replace(clip_range="linear:0.2:0.2") == PPOConfig().replace(clip_range=0.2)
    others = [
        config_hash("ppo", env, PPOConfig().replace(gamma=0.5)),
        config_hash("ppo", {**env, "env": "B-v0"}, PPOConfig()),
        config_hash("ppo", {**env, "env_kwargs": {"a": 1}}, PPOConfig()),
        config_hash("ppo", {**env, "max_episode_steps": 5}, PPOConfig()),
        config_hash("other", env, PPOConfig()),
    ]
    assert len({base, *others}) == 6


def test_runs_that_cannot_be_told_apart_are_refused() -> None:
    """No runs, one run twice, and one setting under two names."""
    one = RunSpec(setting="a", env="A-v0", seed=0)
    for wrong in ([], [one, one], [one, RunSpec(setting="b", env="A-v0", seed=0)]):
        with pytest.raises(ConfigError):
            check_runs(wrong)
    check_runs(
        [one, RunSpec(setting="a", env="A-v0", seed=1), RunSpec(setting="a", env="B-v0", seed=0)]
    )
