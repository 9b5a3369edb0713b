"""Laws of the presets: they run, they name environments that exist, and the right one is chosen."""

from __future__ import annotations

import dataclasses

import gymnasium
import pytest
from gymnasium import spaces

from clipper.config_a2c import A2CConfig
from clipper.config_ppo import PPOConfig
from clipper.configs import CONFIGS
from clipper.errors import ConfigError
from clipper.presets import (
    GENERIC,
    PRESETS,
    choose_preset,
    find_preset,
    generic_preset,
    preset_of_other_version,
)

ALL = {**PRESETS, **GENERIC}
PROMISED = [
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
    "BipedalWalker-v3",
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
]


@pytest.mark.parametrize("name", PROMISED)
def test_the_promised_environments_have_presets(name: str) -> None:
    """The documents promise tuned settings for these."""
    assert name in PRESETS


@pytest.mark.parametrize("name", ALL)
def test_every_preset_validates(name: str) -> None:
    """A preset's settings exist, are in range and agree with each other."""
    config = ALL[name].config()
    assert config.validate() == config
    assert ALL[name].name == name
    assert ALL[name].source


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_registered_environment(name: str) -> None:
    """A preset for an id that Gymnasium does not know could never be used."""
    if name.endswith("ALE/*"):
        pytest.skip("of all games; tests/unit/envs/test_atari.py uses it")
    assert name.rpartition("/")[2] in gymnasium.registry


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_knows_every_setting_where_kinds_differ(name: str) -> None:
    """DEFAULTS.md: entropy 0 and reward normalisation depend on the kind of action and the task.

    The defaults suit discrete actions; a preset must not leave these to them by accident.
    """
    preset = PRESETS[name]
    own = {field.name for field in dataclasses.fields(CONFIGS[preset.algorithm])}
    asked = {"ent_coef", "normalize_reward", "total_timesteps"} & own
    assert asked <= set(preset.settings)


@pytest.mark.parametrize("task", [n for n in PRESETS if n.startswith("paper/")])
def test_the_papers_settings(task: str) -> None:
    """Table 3 of the paper: horizon 2048, Adam 3e-4, 10 epochs, minibatch 64, 0.99, 0.95, 0.2."""
    config = PRESETS[task].config()
    assert (config.num_envs, config.num_steps, config.total_timesteps) == (1, 2048, 1_000_000)
    assert (config.num_epochs, config.minibatch_size) == (10, 64)
    assert (config.gamma, config.gae_lambda) == (0.99, 0.95)
    assert str(config.learning_rate) == "0.0003"
    assert str(config.clip_range) == "0.2"
    assert not config.recompute_advantages


def test_the_paper_has_seven_mujoco_tasks() -> None:
    """Figure 3 of the paper shows seven environments."""
    assert len([name for name in PRESETS if name.startswith("paper/")]) == 7


def test_facts_that_are_easily_missed() -> None:
    """DEFAULTS.md's notes on the Zoo's rows, checked one by one."""
    for name in ("MountainCar-v0", "Acrobot-v1"):
        config = PRESETS[name].config()
        assert config.normalize_obs
        assert config.normalize_reward
    for name in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0"):
        assert PRESETS[name].config().ent_coef == 0
    assert PRESETS["Swimmer-v5"].config().gamma == 0.9999
    assert PRESETS["HalfCheetah-v5"].config().recompute_advantages
    assert PRESETS["Pendulum-v1"].config().gamma == 0.9


def test_choice_is_by_wish_then_by_id_then_by_kind() -> None:
    """What was asked for wins; then the environment's own preset; then a generic one."""
    assert choose_preset("Acrobot-v1", "CartPole-v1", False, 500).name == "Acrobot-v1"
    assert choose_preset(None, "CartPole-v1", False, 500).name == "CartPole-v1"
    assert choose_preset(None, "Mine-v0", False, 50).name == "generic/discrete-short"
    assert choose_preset(None, "Mine-v0", False, 200).name == "generic/discrete-medium"
    assert choose_preset(None, "Mine-v0", True, 1000).name == "generic/continuous-long"
    assert choose_preset(None, "Mine-v0", True, None).name == "generic/continuous-long"


def test_none_is_the_plain_defaults() -> None:
    """`--preset none` switches the presets off even where there is one."""
    chosen = choose_preset("none", "CartPole-v1", False, 500)
    assert chosen.name == "none"
    assert chosen.config() == PPOConfig()


def test_generic_presets_know_continuous_from_discrete() -> None:
    """DEFAULTS.md: entropy 0.01 for discrete and 0 for continuous; rewards scaled for continuous."""
    for limit in (10, 200, None):
        discrete = generic_preset(False, limit).config()
        continuous = generic_preset(True, limit).config()
        assert (discrete.ent_coef, discrete.normalize_reward) == (0.01, False)
        assert (continuous.ent_coef, continuous.normalize_reward) == (0.0, True)


@pytest.mark.parametrize("name", GENERIC)
def test_a_generic_preset_can_be_asked_for_by_name(name: str) -> None:
    """What `clipper presets` lists, `--preset` takes."""
    assert find_preset(name).config() == GENERIC[name].config()


def test_a_misspelt_preset_names_the_nearest() -> None:
    """`Cartpole-v1` was meant to be `CartPole-v1`."""
    with pytest.raises(ConfigError, match="'Cartpole-v1'") as caught:
        find_preset("Cartpole-v1")
    assert "CartPole-v1" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("paper/Hopper", "did you mean paper/Hopper-v5?"),
        ("paper/hoper-v3", "did you mean paper/Hopper-v5?"),
        ("CartPole", "CartPole-v1"),
        ("CartPol-v0", "CartPole-v1"),
        ("generic/discrete-shrt", "generic/discrete-short"),
        # half its letters and a version are no likeness
        ("Nope-v3", "`clipper presets` lists them."),
    ],
)
def test_versions_do_not_count_for_likeness(name: str, hint: str) -> None:
    """The name decides what was meant, and the newest version of it is offered."""
    with pytest.raises(ConfigError) as caught:
        find_preset(name)
    assert hint in str(caught.value.hint)


def test_overrides_win_over_the_preset_and_are_checked() -> None:
    """A keyword beside a preset is the last word, and read like any other."""
    assert PRESETS["CartPole-v1"].config(gamma="0.5").gamma == 0.5
    with pytest.raises(ConfigError, match="gamma"):
        PRESETS["CartPole-v1"].config(gamma=2)


@pytest.mark.parametrize(
    "name", [n for n in PROMISED if gymnasium.spec(n).entry_point.startswith("gymnasium.envs.cl")]
)
def test_continuous_presets_have_no_entropy_bonus(name: str) -> None:
    """A bonus on a Gaussian's entropy grows its deviation for ever: 0 wherever actions are Box.

    The exception explores until it finds the one reward of MountainCarContinuous.
    """
    env = gymnasium.make(name)
    if isinstance(env.action_space, spaces.Box) and name != "MountainCarContinuous-v0":
        assert PRESETS[name].config().ent_coef == 0
    env.close()


def test_another_version_has_a_preset() -> None:
    """Hopper-v4 is told of Hopper-v5's settings; an environment of one's own of nothing."""
    assert preset_of_other_version("Hopper-v4") == "Hopper-v5"
    assert preset_of_other_version("Mine-v0") is None
    assert preset_of_other_version("mine") is None
    assert preset_of_other_version("Hopper-v4", "a2c") == "a2c/Hopper-v5"
    assert preset_of_other_version("Acrobot-v2", "acer") is None


def test_every_algorithm_finds_its_own_presets() -> None:
    """By the environment's id; what nobody tuned gets defaults, or what continuous actions need."""
    assert choose_preset(None, "CartPole-v1", False, 500, "a2c").name == "a2c/CartPole-v1"
    assert choose_preset(None, "CartPole-v1", False, 500, "acer").name == "acer/CartPole-v1"
    assert choose_preset(None, "Mine-v0", False, 500, "a2c").name == "none"
    generic = choose_preset(None, "Mine-v0", True, 500, "a2c")
    assert find_preset(generic.name) == generic
    config = generic.config()
    assert isinstance(config, A2CConfig)
    assert (config.ent_coef, config.normalize_reward) == (0.0, True)
    with pytest.raises(ConfigError, match="must be of acer, but is of a2c"):
        choose_preset("a2c/CartPole-v1", "CartPole-v1", False, 500, "acer")
