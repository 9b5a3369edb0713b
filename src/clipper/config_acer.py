"""The settings of ACER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from clipper.config import LearnerConfig
from clipper.errors import ConfigError
from clipper.setting_values import Schedule
from clipper.settings import setting


@dataclass(frozen=True, kw_only=True)
class ACERConfig(LearnerConfig):
    """Hyperparameters of ACER."""

    values_per_action: ClassVar[bool] = True

    num_envs: int = setting(
        16,
        "environments stepped together; more gives larger and less correlated updates",
        low=1,
        group="batch",
    )
    num_steps: int = setting(
        20,
        "steps of each environment before an update, and of each piece of experience that is "
        "replayed",
        low=1,
        unit="steps",
        group="batch",
    )
    learning_rate: Schedule = setting(
        Schedule(7e-4, 0.0),
        "step size of RMSprop, a number or linear:START:END",
        low=0,
        group="objective",
    )
    ent_coef: float = setting(
        0.001,
        "weight of the entropy bonus; more keeps exploring longer",
        low=0,
        group="objective",
    )
    vf_coef: float = setting(
        0.5, "weight of 0.5 (Q - Q^ret)^2 in the loss", low=0, group="objective"
    )
    max_grad_norm: float | None = setting(
        10.0,
        "joint norm to which gradients are clipped, or none",
        low=0,
        open_low=True,
        group="objective",
    )
    replay_ratio: float = setting(
        4.0,
        "updates from memory for each rollout, on average (their number is Poisson's); more learns "
        "more from each step and takes longer",
        low=0,
        high=100,
        group="batch",
    )
    replay_capacity: int = setting(
        50_000,
        "steps of each environment that are remembered; saved with every checkpoint",
        low=1,
        unit="steps",
        group="batch",
    )
    replay_start: int = setting(
        10_000,
        "steps over all environments that must be remembered before any is replayed",
        low=0,
        unit="steps",
        group="batch",
    )
    importance_clip: float = setting(
        10.0,
        "c: importance weights are truncated here and what is cut off is corrected for; less has "
        "less variance and leans more on Q",
        low=0,
        open_low=True,
        group="objective",
    )
    trust_region: bool = setting(
        True,
        "holds each update back where it would move the policy away from its running average",
        group="objective",
    )
    trust_region_delta: float = setting(
        1.0,
        "with trust_region: how fast an update may raise KL(average || policy), in the space of the "
        "distribution's parameters; less holds back more",
        low=0,
        group="objective",
    )
    average_decay: float = setting(
        0.99,
        "with trust_region: decay of the average policy at every update; nearer 1 is slower",
        low=0,
        high=0.999999,
        group="objective",
    )
    rmsprop_alpha: float = setting(
        0.99,
        "decay of RMSprop's average of squared gradients; nearer 1 is a longer memory",
        low=0,
        high=0.999999,
        group="objective",
    )
    rmsprop_eps: float = setting(
        1e-5, "added to RMSprop's average under the root", low=0, open_low=True, group="objective"
    )

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or the memory does not hold what it must.
        """
        super().validate()
        if self.replay_capacity < self.num_steps:
            raise ConfigError(
                f"replay_capacity must be at least num_steps = {self.num_steps}, "
                f"but is {self.replay_capacity}.",
                hint="the memory holds whole rollouts.",
            )
        held = self.replay_capacity // self.num_steps * self.rollout_size
        if self.replay_start > held and self.replay_ratio > 0:
            raise ConfigError(
                f"replay_start must be at most the {held:,} steps that fit into the memory, "
                f"but is {self.replay_start:,}.",
                hint="raise replay_capacity, which counts the steps of one environment.",
            )
        return self
