"""Laws of PPO's settings: one name, documented, in range, and kept by JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli import train
from clipper.cli.arguments import Parser
from clipper.config_ppo import PPOConfig
from clipper.errors import ConfigError
from clipper.foreign_names import FOREIGN_NAMES
from clipper.setting_values import Schedule
from clipper.settings import describe_field

FIELDS = {spec.name: spec for spec in dataclasses.fields(PPOConfig)}
# DEFAULTS.md, the table of fields, written out
DEFAULTS: dict[str, Any] = {
    "total_timesteps": 1_000_000,
    "num_envs": 8,
    "num_steps": 256,
    "num_epochs": 10,
    "minibatch_size": 64,
    "learning_rate": Schedule(3e-4, 0.0),
    "clip_range": Schedule(0.2, 0.2),
    "ent_coef": 0.01,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "vf_coef": 1.0,
    "max_grad_norm": 0.5,
    "target_kl": None,
    "normalize_advantage": "minibatch",
    "normalize_obs": True,
    "normalize_reward": False,
    "recompute_advantages": False,
    "clip_value": None,
    "hidden_sizes": (64, 64),
    "activation": "tanh",
    "shared_torso": False,
    "log_std_init": 0.0,
    "hidden_gain": math.sqrt(2),
    "policy_gain": 0.01,
    "value_gain": 1.0,
    "adam_betas": (0.9, 0.999),
    "adam_eps": 1e-5,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_design(name: str) -> None:
    """Every row of the table in DEFAULTS.md is a field with that default."""
    assert getattr(PPOConfig(), name) == DEFAULTS[name]


def test_defaults_validate() -> None:
    """The plain defaults are a config that can run."""
    assert PPOConfig().validate() == PPOConfig()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_help_and_a_heading(name: str) -> None:
    """A flag without help, or under no heading, would be missing from `clipper train --help`."""
    meta = FIELDS[name].metadata
    assert len(meta["help"]) > 10
    assert not meta["help"].endswith(".")
    assert meta["group"] in ("run", "batch", "objective", "normalisation", "network")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, kind in typing.get_type_hints(PPOConfig).items()
        if kind in (int, float, Schedule) and name not in ("log_std_init",)
    ],
)
def test_every_number_has_a_range_that_is_documented_and_enforced(name: str) -> None:
    """A number below its smallest value is refused in the words that the help uses."""
    spec = FIELDS[name]
    assert describe_field(spec)
    with pytest.raises(ConfigError, match=rf"^{name} must be") as caught:
        PPOConfig().replace(**{name: spec.metadata["low"] - 1})
    assert f"{spec.metadata['low']:g}" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 1.0001),
        ("gae_lambda", 2),
        ("adam_betas", "0.9,1"),
        ("clip_range", 0),
        ("max_grad_norm", 0),
        ("target_kl", 0),
        ("kl_coef", 0),
        ("adaptive_kl_target", 0),
        ("dual_clip", 1),
        ("advantage_steps", 0),
        ("clip_value", -1),
        ("adam_eps", 0),
        ("hidden_sizes", "64,0"),
        ("value_hidden_sizes", "-1"),
        ("num_envs", 0),
        ("minibatch_size", 0),
        ("eval_every", -1),
    ],
)
def test_out_of_range_is_refused(name: str, value: Any) -> None:
    """Values that cannot be meant are refused before anything is built."""
    with pytest.raises(ConfigError, match=rf"^{name} must be"):
        PPOConfig().replace(**{name: value})
    with pytest.raises(ConfigError, match=rf"^{name} must be"):
        PPOConfig.check_values({name: value})


@pytest.mark.parametrize(
    ("name", "needed", "others"),
    [
        ("kl_coef", "kl_fixed", ["clip", "cpi", "pg", "dual_clip", "spo"]),
        ("kl_coef", "kl_adaptive", ["clip", "cpi", "pg", "dual_clip", "spo"]),
        (
            "adaptive_kl_target",
            "kl_adaptive",
            ["clip", "cpi", "pg", "kl_fixed", "dual_clip", "spo"],
        ),
        ("dual_clip", "dual_clip", ["clip", "cpi", "pg", "kl_fixed", "kl_adaptive", "spo"]),
    ],
)
def test_a_setting_of_another_objective_is_refused(
    name: str, needed: str, others: list[str]
) -> None:
    """A number that the objective would not use is an error that names both, not ignored."""
    PPOConfig().replace(objective=needed, **{name: 2.5})
    for objective in others:
        law = rf"^{name} must be none when objective is {objective}, but is 2\.5\."
        with pytest.raises(ConfigError, match=law) as caught:
            PPOConfig().replace(objective=objective, **{name: 2.5})
        assert needed in str(caught.value.hint)


def test_steps_of_another_estimator_are_refused() -> None:
    """`advantage_steps` belongs to the n-step advantage alone."""
    assert PPOConfig().replace(advantage="n_step", advantage_steps=7).num_advantage_steps == 7
    with pytest.raises(ConfigError, match="advantage_steps must be none when advantage is gae"):
        PPOConfig().replace(advantage_steps=7)


def test_what_is_not_given_is_what_the_paper_has() -> None:
    """beta starts at 1, d_targ is 0.01 and c of the dual clip 3; k of the n-step advantage is 5."""
    config = PPOConfig()
    assert (config.first_kl_coef, config.kl_goal, config.dual_clip_factor) == (1.0, 0.01, 3.0)
    assert config.num_advantage_steps == 5
    given = config.replace(objective="kl_adaptive", kl_coef=0.3, adaptive_kl_target=0.003)
    assert (given.first_kl_coef, given.kl_goal) == (0.3, 0.003)
    assert config.replace(objective="dual_clip", dual_clip=2).dual_clip_factor == 2.0


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("n_steps", "num_steps"),
        ("n_envs", "num_envs"),
        ("batch_size", "minibatch_size"),
        ("n_epochs", "num_epochs"),
        ("lr", "learning_rate"),
        ("clip_coef", "clip_range"),
        ("clip_param", "clip_range"),
        ("entropy_coef", "ent_coef"),
        ("value_loss_coef", "vf_coef"),
        ("lam", "gae_lambda"),
        ("kl_coeff", "kl_coef"),
        ("kl_target", "adaptive_kl_target"),
        ("num_env_steps", "total_timesteps"),
        ("net_arch", "hidden_sizes"),
    ],
)
def test_a_name_from_another_library_is_answered_with_ours(foreign: str, ours: str) -> None:
    """Who types Stable-Baselines3's or CleanRL's name is told what Clipper calls it."""
    with pytest.raises(ConfigError, match=f"'{foreign}'") as caught:
        PPOConfig().replace(**{foreign: 1})
    assert ours in str(caught.value.hint)


def test_every_foreign_name_leads_to_a_setting_that_exists() -> None:
    """No hint may send anyone to a name that is neither a setting nor another flag of `train`."""
    parser = Parser()
    train.add_arguments(parser)
    assert set(FOREIGN_NAMES.values()) <= set(vars(parser.parse_args(["CartPole-v1"])))


def test_a_minibatch_that_does_not_divide_names_ones_that_do() -> None:
    """STYLE.md's example, word for word: 2048 rows, minibatches of 60."""
    with pytest.raises(ConfigError) as caught:
        PPOConfig().replace(num_steps=256, num_envs=8, minibatch_size=60)
    assert caught.value.message == (
        "minibatch_size must divide num_steps * num_envs = 2048, but is 60."
    )
    assert caught.value.hint == "use 32, 64 or 128."


@given(num_steps=st.integers(1, 400), num_envs=st.integers(1, 40), size=st.integers(1, 20_000))
def test_sizes_that_are_suggested_do_divide(num_steps: int, num_envs: int, size: int) -> None:
    """A config is refused exactly if the minibatch leaves a rest, and each suggestion is accepted."""
    config = PPOConfig(num_steps=num_steps, num_envs=num_envs, minibatch_size=size)
    if num_steps * num_envs % size == 0:
        config.validate()
        return
    with pytest.raises(ConfigError) as caught:
        config.validate()
    suggested = [int(number) for number in re.findall(r"\d+", str(caught.value.hint))]
    assert suggested
    for good in suggested:
        dataclasses.replace(config, minibatch_size=good).validate()


@pytest.mark.timeout(5)
def test_a_huge_rollout_is_refused_at_once() -> None:
    """The search for sizes to suggest must not take longer than the run."""
    with pytest.raises(ConfigError, match="must divide"):
        PPOConfig().replace(num_steps=10**9, num_envs=1, minibatch_size=7)


def test_a_shared_torso_has_one_set_of_layers() -> None:
    """Settings that contradict each other are refused, not resolved in silence."""
    with pytest.raises(ConfigError, match="value_hidden_sizes must be none when shared_torso"):
        PPOConfig().replace(shared_torso=True, value_hidden_sizes="32")
    PPOConfig().replace(shared_torso=True, value_hidden_sizes="64,64")


def test_iterations_are_rounded_up_to_whole_rollouts() -> None:
    """2049 steps in rollouts of 2048 rows are two iterations; 2048 are one."""
    config = PPOConfig().replace(num_steps=256, num_envs=8, total_timesteps=2049)
    assert (config.rollout_size, config.num_iterations) == (2048, 2)
    assert config.replace(total_timesteps=2048).num_iterations == 1


def test_the_evaluation_interval() -> None:
    """None means ten times a run, 0 never, and a number itself; never 0 by rounding."""
    config = PPOConfig().replace(total_timesteps=5_000)
    assert config.evaluation_interval == 500
    assert config.replace(eval_every=0).evaluation_interval == 0
    assert config.replace(eval_every=123).evaluation_interval == 123
    assert config.replace(total_timesteps=3).evaluation_interval == 1


def configs() -> st.SearchStrategy[PPOConfig]:
    """Valid configs with every kind of value in them."""
    weight = st.floats(1e-12, 1e6)
    return st.builds(
        PPOConfig,
        total_timesteps=st.integers(1, 2**40),
        num_envs=st.just(4),
        num_steps=st.just(16),
        minibatch_size=st.sampled_from([1, 16, 64]),
        learning_rate=st.builds(Schedule, weight, weight),
        clip_range=st.builds(Schedule, weight, st.just(0.0)),
        gamma=st.floats(0, 1),
        max_grad_norm=st.none() | weight,
        adam_betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        hidden_sizes=st.lists(st.integers(1, 512), max_size=3).map(tuple),
        value_hidden_sizes=st.none() | st.lists(st.integers(1, 512), max_size=3).map(tuple),
        activation=st.sampled_from(["tanh", "relu", "elu", "silu", "gelu"]),
        normalize_obs=st.booleans(),
        log_std_init=st.floats(-5, 2),
        eval_every=st.none() | st.integers(0, 10_000),
    )


@given(config=configs())
def test_json_round_trip_is_exact(config: PPOConfig) -> None:
    """A config written as strict JSON text and read back is equal, number for number."""
    text = json.dumps(config.to_json(), allow_nan=False)
    assert PPOConfig.from_json(json.loads(text)) == config


def test_json_with_an_unknown_key_is_refused() -> None:
    """A key of another version is not swallowed."""
    with pytest.raises(ConfigError, match="'gamme'"):
        PPOConfig.from_json({**PPOConfig().to_json(), "gamme": 0.9})


def test_a_config_cannot_be_changed_in_place() -> None:
    """What a run was started with cannot drift."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPOConfig().gamma = 0.5  # type: ignore[misc]
