"""The settings of PPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from clipper.config import EstimatorConfig, LearnerConfig, check_belonging
from clipper.errors import ConfigError
from clipper.setting_values import Schedule
from clipper.settings import setting

Objective = Literal["clip", "cpi", "pg", "kl_fixed", "kl_adaptive", "dual_clip", "spo"]

# settings that mean nothing but with one choice of another
_BELONGS_TO = {
    "kl_coef": ("objective", ("kl_fixed", "kl_adaptive")),
    "adaptive_kl_target": ("objective", ("kl_adaptive",)),
    "dual_clip": ("objective", ("dual_clip",)),
}


@dataclass(frozen=True, kw_only=True)
class PPOConfig(LearnerConfig, EstimatorConfig):
    """Hyperparameters of PPO."""

    num_epochs: int = setting(
        10,
        "passes over each rollout; more uses the data harder and moves further from the old policy",
        low=1,
        group="batch",
    )
    minibatch_size: int = setting(
        64,
        "rows of one gradient step; must divide num_steps x num_envs",
        low=1,
        unit="rows",
        group="batch",
    )
    objective: Objective = setting(
        "clip",
        "what the policy maximises: the clipped surrogate, the surrogate without clip or penalty "
        "(cpi), log pi A (pg), the surrogate less kl_coef x the exact KL of old to new policy with a "
        "fixed or an adaptive kl_coef, the clip with a floor (dual_clip), or Simple Policy "
        "Optimization (spo)",
        group="objective",
    )
    clip_range: Schedule = setting(
        Schedule(0.2, 0.2),
        "epsilon of clip, dual_clip and spo: how far the ratio may move for profit; with the other "
        "objectives only policy/clip_fraction asks for it",
        low=0,
        open_low=True,
        group="objective",
    )
    kl_coef: float | None = setting(
        None,
        "beta of kl_fixed, and the one that kl_adaptive starts with; larger holds the policy nearer "
        "to the old one; none is 1",
        low=0,
        open_low=True,
        group="objective",
    )
    adaptive_kl_target: float | None = setting(
        None,
        "d_targ of kl_adaptive: kl_coef is halved after an iteration whose exact KL is below it / 1.5, "
        "doubled above 1.5 times it; none is 0.01",
        low=0,
        open_low=True,
        group="objective",
    )
    dual_clip: float | None = setting(
        None,
        "c of dual_clip: where A < 0 the objective is not below c x A; none is 3",
        low=1,
        open_low=True,
        group="objective",
    )
    target_kl: float | None = setting(
        None,
        "ends an iteration's epochs when the KL estimate exceeds 1.5 times this, or none",
        low=0,
        open_low=True,
        group="objective",
    )
    normalize_advantage: Literal["minibatch", "none"] = setting(
        "minibatch",
        "advantages to mean 0 and standard deviation 1 over each minibatch",
        group="objective",
    )
    recompute_advantages: bool = setting(
        False,
        "advantages computed anew before each epoch with the current value function",
        group="objective",
    )
    clip_value: float | None = setting(
        None,
        "clips the change of the value prediction to this, or none; it rarely helps",
        low=0,
        open_low=True,
        group="objective",
    )
    adam_betas: tuple[float, float] = setting(
        (0.9, 0.999), "decay rates of Adam's two averages", low=0, high=0.999999, group="objective"
    )
    adam_eps: float = setting(
        1e-5, "added to Adam's denominator", low=0, open_low=True, group="objective"
    )

    @property
    def has_kl_penalty(self) -> bool:
        """True if the objective asks for the exact KL(old || new)."""
        return self.objective in ("kl_fixed", "kl_adaptive")

    @property
    def first_kl_coef(self) -> float:
        """beta of the first iteration."""
        return 1.0 if self.kl_coef is None else self.kl_coef

    @property
    def kl_goal(self) -> float:
        """d_targ of the adaptive penalty."""
        return 0.01 if self.adaptive_kl_target is None else self.adaptive_kl_target

    @property
    def dual_clip_factor(self) -> float:
        """c of the dual clip."""
        return 3.0 if self.dual_clip is None else self.dual_clip

    def validate(self) -> Self:
        """Returns this config if every setting is in range and they agree.

        Raises:
            ConfigError: A setting is out of range, or minibatch_size does not divide the rollout.
        """
        super().validate()
        if self.rollout_size % self.minibatch_size:
            good = [d for d in _divisors(self.rollout_size) if d >= 8] or [self.rollout_size]
            close = sorted(sorted(good, key=lambda d: abs(math.log(d / self.minibatch_size)))[:3])
            raise ConfigError(
                f"minibatch_size must divide num_steps * num_envs = {self.rollout_size}, "
                f"but is {self.minibatch_size}.",
                hint=f"use {_either(close)}.",
            )
        check_belonging(self, _BELONGS_TO)
        return self


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _either(options: list[int]) -> str:
    words = [str(o) for o in options]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
