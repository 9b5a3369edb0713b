"""The settings of an algorithm: a frozen dataclass whose fields are flags, keywords and JSON keys.

One field is one name everywhere: the flag `--num-envs`, the keyword `num_envs`, the JSON key.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from clipper.errors import ConfigError
from clipper.setting_values import Schedule, setting_to_json, show
from clipper.settings import check_range, read_settings, setting

ImageLayout = Literal["auto", "channels_first", "channels_last", "flat"]
Estimator = Literal["gae", "n_step", "td", "reward_to_go", "reward_to_go_baseline", "total_return"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every algorithm needs to know: the run's length, the environments and the network."""

    values_per_action: ClassVar[bool] = False
    """True if the network values every action, Q(s, a), and not the state alone."""

    total_timesteps: int = setting(
        1_000_000,
        "transitions over all environments, absolute: a resumed run counts on; rounded up to whole "
        "iterations; the horizon of all schedules",
        low=1,
        unit="steps",
        group="run",
    )
    num_envs: int = setting(
        8, "environments stepped together; more gives less correlated batches", low=1, group="batch"
    )
    normalize_obs: bool = setting(
        True,
        "running mean and standard deviation for Box observations, clipped at 10; kept in the agent",
        group="normalisation",
    )
    hidden_sizes: tuple[int, ...] = setting(
        (64, 64), "widths of the hidden layers, for example 64,64", low=1, group="network"
    )
    activation: Literal["tanh", "relu", "elu", "silu", "gelu"] = setting(
        "tanh", "nonlinearity between layers", group="network"
    )
    hidden_gain: float = setting(
        math.sqrt(2),
        "gain of the orthogonal initial weights of hidden layers",
        low=0,
        group="network",
    )
    policy_gain: float = setting(
        0.01,
        "gain of the policy head's initial weights; small starts near uniform",
        low=0,
        group="network",
    )
    image_layout: ImageLayout = setting(
        "auto",
        "where images have their channels; auto sees it from their shape and says so; flat gives "
        "their numbers to the network as a vector",
        group="network",
    )
    cnn: Literal["auto", "nature", "small"] = setting(
        "auto",
        "convolutions for images: nature those of Mnih et al. 2015, small of 3x3; auto "
        "takes nature from 36 pixels a side on",
        group="network",
    )
    cnn_features: int | None = setting(
        None,
        "units of the layer behind the convolutions; none is 512 of nature, 128 of small",
        low=1,
        group="network",
    )
    engine: Literal["auto", "native", "reference"] = setting(
        "auto",
        "what computes: native is C++ for MLPs on the CPU, reference is torch for all else; auto "
        "takes native where it can",
        group="run",
    )
    on_nonfinite: Literal["stop", "drop-episode"] = setting(
        "stop",
        "what happens when an environment gives a number that is NaN or infinite: the run stops, or "
        "the episode ends at its last good step and the next one begins (three times within an hour "
        "stop the run)",
        group="run",
    )
    precision: Literal["float32", "bf16"] = setting(
        "float32",
        "of the network's products: bf16 is quicker for large networks where the device has it; "
        "parameters and losses stay float32",
        group="run",
    )
    eval_every: int | None = setting(
        None,
        "steps between periodic evaluations, 0 for never, none for ten times a run",
        low=0,
        unit="steps",
        group="run",
    )
    eval_episodes: int = setting(
        10, "episodes of each periodic evaluation", low=1, unit="episodes", group="run"
    )

    @property
    def evaluation_interval(self) -> int:
        """Steps between periodic evaluations; 0 for never."""
        if self.eval_every is None:
            return max(self.total_timesteps // 10, 1)
        return self.eval_every

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range.
        """
        for spec in dataclasses.fields(self):
            check_range(spec, getattr(self, spec.name))
        return self

    def replace(self, **changes: Any) -> Self:
        """Returns a checked copy with some settings changed (texts and numbers are read).

        Raises:
            ConfigError: A name is unknown or a value is wrong.
        """
        return dataclasses.replace(self, **read_settings(type(self), changes)).validate()

    @classmethod
    def check_values(cls, values: Mapping[str, Any]) -> None:
        """Raises unless each value alone is well written and in range, whatever the preset.

        Raises:
            ConfigError: A name is unknown or a value is wrong.
        """
        specs = {f.name: f for f in dataclasses.fields(cls)}
        for name, value in read_settings(cls, values).items():
            check_range(specs[name], value)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values; `from_json` gives back an equal config."""
        return {f.name: setting_to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Returns the checked config that `to_json` wrote.

        Raises:
            ConfigError: A key is unknown, or a value is wrong.
        """
        return cls(**read_settings(cls, data)).validate()


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(Config):
    """What all need that collect rollouts and judge actions by a value function."""

    num_steps: int = setting(
        256,
        "steps of each environment in one rollout; the rollout has num_steps x num_envs rows",
        low=1,
        unit="steps",
        group="batch",
    )
    gamma: float = setting(
        0.99,
        "discount per step; 1/(1-gamma) is the horizon in steps",
        low=0,
        high=1,
        group="objective",
    )
    normalize_reward: bool = setting(
        False,
        "rewards divided by the standard deviation of the discounted return, clipped at 10 "
        "(true for continuous actions)",
        group="normalisation",
    )
    clip_reward: bool = setting(
        False,
        "learns from the sign of each reward, +1, 0 or -1, as is usual for Atari; returns that are "
        "shown stay raw",
        group="normalisation",
    )
    terminal_on_life_loss: bool = setting(
        False,
        "learns as if a lost life ended the episode; the game goes on, and returns are of whole games; "
        "for environments whose info counts lives, as Atari's",
        group="objective",
    )
    value_hidden_sizes: tuple[int, ...] | None = setting(
        None,
        "widths of the value network's hidden layers, or none: as hidden_sizes",
        low=1,
        group="network",
    )
    shared_torso: bool = setting(False, "policy and value share the hidden layers", group="network")
    log_std_init: float = setting(
        0.0,
        "initial log standard deviation of continuous actions; learned",
        low=-10,
        high=10,
        group="network",
    )
    value_gain: float = setting(
        1.0, "gain of the value head's initial weights", low=0, group="network"
    )

    @property
    def rollout_size(self) -> int:
        """Rows of one rollout, num_steps x num_envs."""
        return self.num_steps * self.num_envs

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole run, total_timesteps / rollout_size rounded up."""
        return -(-self.total_timesteps // self.rollout_size)

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or two contradict each other.
        """
        super().validate()
        if self.clip_reward and self.normalize_reward:
            raise ConfigError(
                "normalize_reward must be false when clip_reward is true, but is true.",
                hint="signs are of one size already.",
            )
        if self.shared_torso and self.value_hidden_sizes not in (None, self.hidden_sizes):
            raise ConfigError(
                "value_hidden_sizes must be none when shared_torso is true, "
                f"but is {list(self.value_hidden_sizes or ())}.",
                hint="a shared torso has one set of hidden layers.",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class LearnerConfig(ActorCriticConfig):
    """Hyperparameters of all that minimise one loss of policy and value function."""

    learning_rate: Schedule = setting(
        Schedule(3e-4, 0.0),
        "step size of Adam, a number or linear:START:END",
        low=0,
        group="objective",
    )
    ent_coef: float = setting(
        0.01,
        "weight of the entropy bonus; more keeps exploring longer (0 for continuous actions)",
        low=0,
        group="objective",
    )
    vf_coef: float = setting(
        1.0,
        "weight of 0.5 (V - target)^2 in the loss (Stable-Baselines3's 0.5 is 1.0 here)",
        low=0,
        group="objective",
    )
    max_grad_norm: float | None = setting(
        0.5,
        "joint norm to which gradients are clipped, or none",
        low=0,
        open_low=True,
        group="objective",
    )


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig(ActorCriticConfig):
    """How advantages are estimated, for all that leave the choice."""

    advantage: Estimator = setting(
        "gae",
        "what actions are weighed by: generalized advantage estimation, advantage_steps rewards and "
        "the value after them, the TD error, the reward-to-go, the same minus V, or the return of "
        "the whole episode (total_return: of episodes that begin and end within a rollout)",
        group="objective",
    )
    advantage_steps: int | None = setting(
        None,
        "rewards before the value in the n_step advantage; more is less bias, more variance; none "
        "is 5",
        low=1,
        unit="steps",
        group="objective",
    )
    gae_lambda: float = setting(
        0.95,
        "lambda of generalized advantage estimation (gae); lower is less variance, more bias",
        low=0,
        high=1,
        group="objective",
    )

    @property
    def num_advantage_steps(self) -> int:
        """k of the n-step advantage."""
        return 5 if self.advantage_steps is None else self.advantage_steps

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or belongs to another estimator.
        """
        super().validate()
        check_belonging(self, {"advantage_steps": ("advantage", ("n_step",))})
        return self


def check_belonging(config: Config, owners: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    """Raises if a setting is given that the choice made elsewhere has no use for.

    Args:
        config: The settings.
        owners: By a setting's name, the setting that chooses and its values that use the first.

    Raises:
        ConfigError: Names both.
    """
    for name, (chooser, choices) in owners.items():
        value, chosen = getattr(config, name), getattr(config, chooser)
        if value is not None and chosen not in choices:
            raise ConfigError(
                f"{name} must be none when {chooser} is {chosen}, but is {show(value)}.",
                hint=f"it belongs to {chooser} {' and '.join(choices)}.",
            )
