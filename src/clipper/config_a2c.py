"""The settings of A2C, alone and with the trust region of ACER."""

from __future__ import annotations

from dataclasses import dataclass

from clipper.config import LearnerConfig
from clipper.setting_values import Schedule
from clipper.settings import setting


@dataclass(frozen=True, kw_only=True)
class A2CConfig(LearnerConfig):
    """Hyperparameters of A2C."""

    num_envs: int = setting(
        16,
        "environments stepped together; more gives larger and less correlated updates",
        low=1,
        group="batch",
    )
    num_steps: int = setting(
        5,
        "steps of each environment before an update, and how far its returns look before they end in "
        "the value function; more has less bias and more variance",
        low=1,
        unit="steps",
        group="batch",
    )
    rollouts_per_iteration: int = setting(
        25,
        "rollouts, each with its update, that are reported together as one row of metrics.csv; "
        "schedules move, and a run stops or is saved, between them",
        low=1,
        group="batch",
    )
    learning_rate: Schedule = setting(
        Schedule(7e-4, 0.0),
        "step size of RMSprop, a number or linear:START:END",
        low=0,
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
    trust_region: bool = setting(
        False,
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

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole run, each of several rollouts, rounded up."""
        return -(-self.total_timesteps // (self.rollout_size * self.rollouts_per_iteration))
