"""The settings of PPO's elder relatives: vanilla policy gradient and REINFORCE, TRPO, CEM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from clipper.config import Config, EstimatorConfig
from clipper.errors import ConfigError
from clipper.setting_values import Schedule
from clipper.settings import setting, with_default


@dataclass(frozen=True, kw_only=True)
class SeparateValueConfig(EstimatorConfig):
    """What they share that fit the value function by itself, after the policy's step."""

    gae_lambda: float = with_default(EstimatorConfig, "gae_lambda", 0.97)
    normalize_advantage: Literal["rollout", "none"] = setting(
        "rollout",
        "advantages to mean 0 and standard deviation 1 over the rollout",
        group="objective",
    )
    value_learning_rate: Schedule = setting(
        Schedule(1e-3, 1e-3),
        "step size of Adam for the value function, a number or linear:START:END",
        low=0,
        group="objective",
    )
    num_value_epochs: int = setting(
        5,
        "passes over each rollout in which the value function is fitted; more follows the last "
        "rollout closer",
        low=1,
        group="batch",
    )
    minibatch_size: int = setting(
        64,
        "rows of one gradient step of the value function; the last of an epoch may have fewer",
        low=1,
        unit="rows",
        group="batch",
    )


@dataclass(frozen=True, kw_only=True)
class VPGConfig(SeparateValueConfig):
    """Hyperparameters of the vanilla policy gradient."""

    learning_rate: Schedule = setting(
        Schedule(1e-3, 1e-3),
        "step size of Adam for the policy, a number or linear:START:END; with adaptive_kl_target the "
        "first one",
        low=0,
        group="objective",
    )
    one_episode: bool = setting(
        False,
        "REINFORCE: a rollout is one episode, cut after num_steps; num_envs must be 1",
        group="batch",
    )
    adaptive_kl_target: float | None = setting(
        0.002,
        "the policy's step size is divided by 1.5 after a step whose exact KL(old || new) is above "
        "twice this, multiplied by 1.5 below half of it; larger moves faster; none leaves it",
        low=0,
        open_low=True,
        group="objective",
    )
    ent_coef: float = setting(
        0.0, "weight of the entropy bonus; more keeps exploring longer", low=0, group="objective"
    )

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or two contradict each other.
        """
        super().validate()
        if self.one_episode and self.num_envs != 1:
            raise ConfigError(
                f"num_envs must be 1 when one_episode is true, but is {self.num_envs}.",
                hint="a step after every episode leaves nothing for another environment to do.",
            )
        is_one_return = self.one_episode and self.advantage == "total_return"
        if is_one_return and self.normalize_advantage == "rollout":
            raise ConfigError(
                "normalize_advantage must be none when one_episode is true and advantage is "
                "total_return, but is rollout.",
                hint="all rows of an episode have its return, which less its mean is 0: nothing would "
                "be learnt.",
            )
        if self.adaptive_kl_target is not None and not self.learning_rate.is_constant:
            raise ConfigError(
                "learning_rate must be one number when adaptive_kl_target sets it, "
                f"but is {self.learning_rate}.",
                hint="give the step size to begin with, or adaptive_kl_target none.",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class TRPOConfig(SeparateValueConfig):
    """Hyperparameters of TRPO; those of its reference implementation, and of the paper."""

    gae_lambda: float = with_default(EstimatorConfig, "gae_lambda", 0.98)
    max_kl: float = setting(
        0.01,
        "delta: the mean KL(old || new) that no step exceeds; larger moves faster, on less ground",
        low=0,
        open_low=True,
        group="objective",
    )
    num_cg_iterations: int = setting(
        10,
        "iterations of conjugate gradient, each a product with the Fisher matrix; more follows the "
        "natural gradient closer",
        low=1,
        group="objective",
    )
    cg_damping: float = setting(
        0.1,
        "added to the Fisher matrix's diagonal; more turns the step towards the plain gradient",
        low=0,
        group="objective",
    )
    num_line_search_tries: int = setting(
        10,
        "steps tried, each line_search_factor times the last, before none is taken",
        low=1,
        group="objective",
    )
    line_search_factor: float = setting(
        0.8,
        "what a step shrinks by that exceeds max_kl or gains nothing",
        low=0.01,
        high=0.99,
        group="objective",
    )


@dataclass(frozen=True, kw_only=True)
class CEMConfig(Config):
    """Settings of the cross-entropy method."""

    population_size: int = setting(
        100,
        "candidates of one generation; more sees further and has fewer generations for its steps",
        low=2,
        group="batch",
    )
    num_score_episodes: int = setting(
        1,
        "whole episodes by whose mean return a candidate is scored; more is less noise",
        low=1,
        unit="episodes",
        group="batch",
    )
    elite_fraction: float = setting(
        0.1,
        "share of the candidates that the next generation is fitted to; less is greedier",
        low=0,
        high=1,
        open_low=True,
        group="objective",
    )
    initial_std: float = setting(
        1.0,
        "standard deviation of every parameter in the first generation, around the initial network",
        low=0,
        open_low=True,
        group="objective",
    )
    extra_std: Schedule = setting(
        Schedule(0.5, 0.0),
        "its square is added to every variance that candidates are drawn with, a number or "
        "linear:START:END; more holds off convergence",
        low=0,
        group="objective",
    )

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or there are fewer candidates than environments.
        """
        super().validate()
        if self.population_size < self.num_envs:
            raise ConfigError(
                f"population_size must be at least num_envs = {self.num_envs}, but is "
                f"{self.population_size}.",
                hint="every environment plays candidates of its own.",
            )
        return self
