"""The cures of an alarm in the light of a run's settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clipper.alarm_facts import Alarm
from clipper.setting_values import Schedule

USUAL: Mapping[str, tuple[float, float]] = {
    "learning_rate": (1e-5, 1e-2),
    "value_learning_rate": (1e-5, 1e-2),
    "clip_range": (0.05, 0.5),
    "ent_coef": (0.0, 0.1),
    "vf_coef": (0.1, 2.0),
    "gamma": (0.9, 1.0),
    "gae_lambda": (0.8, 1.0),
    "num_epochs": (1, 50),
    "max_kl": (1e-3, 0.1),
    "max_grad_norm": (0.1, math.inf),
    "target_kl": (2e-3, math.inf),
    "kl_coef": (0.0, 10.0),
    "adaptive_kl_target": (1e-3, 0.1),
    "log_std_init": (-3.0, 1.0),
    "policy_gain": (0.0, 2.0),
    "value_gain": (0.0, 2.0),
    "adam_eps": (0.0, 1e-3),
    "rmsprop_eps": (0.0, 1e-2),
    "population_size": (10, math.inf),
    "elite_fraction": (0.01, 0.5),
    "initial_std": (0.03, 10.0),
    "extra_std": (0.0, 5.0),
}
"""Where settings lie in runs that learn: all defaults and presets, with room on both sides."""

# alarms of which a setting may be the reason that none of their cures names
_OF_ANY_SETTING = frozenset(
    {
        "entropy",
        "explained_variance",
        "flat_return",
        "no_progress",
        "same_return",
        "scale",
        "small_rewards",
        "still",
        "value_loss",
    }
)
# of others these alone
_OF_SETTINGS = {
    "kl": {
        "learning_rate",
        "num_epochs",
        "target_kl",
        "max_kl",
        "clip_range",
        "kl_coef",
        "log_std_init",
    },
    "saturation": {"log_std_init", "ent_coef"},
}
# names of settings have an underscore, other words have none
_SETTING = re.compile(r"[a-z]+(?:_[a-z]+)+")
_SET = re.compile(r"set (\w+) (\S+)")
_MOVE = re.compile(r"(raise|lower) (\w+)")


def advise(alarm: Alarm, settings: Mapping[str, Any]) -> Alarm:
    """Returns the alarm with the cures that are left to a run, those first that stand out.

    Left out are those whose settings the algorithm lacks, those that the run has, and those that would
    take a setting out of what is usual; one that lies outside is named with its number, before all
    others.
    """
    left = [
        cure
        for cure in alarm.cures
        if _settings_in(cure) <= settings.keys() and not _is_done(cure, settings)
    ]
    named = {name for cure in left for name in _settings_in(cure)}
    may_blame = USUAL if alarm.name in _OF_ANY_SETTING else _OF_SETTINGS.get(alarm.name, named)
    odd = {
        name: cure for name in USUAL if name in may_blame and (cure := _return_cure(name, settings))
    }
    left = [cure for cure in left if not odd.keys() & _settings_in(cure)]
    cures = (*odd.values(), *left)
    return replace(alarm, cures=cures or ("look at the task with `clipper check-env`",))


def _settings_in(cure: str) -> set[str]:
    """Returns the settings that a cure names."""
    found = set(_SETTING.findall(cure))
    if (order := _SET.match(cure)) or (order := _MOVE.match(cure)):
        found.add(order[1] if order.re is _SET else order[2])
    return found


def _is_done(cure: str, settings: Mapping[str, Any]) -> bool:
    """True if a setting is what it is to be set to, or at the end of what is usual."""
    if found := _SET.match(cure):
        return str(settings[found[1]]).lower() == found[2]
    if (found := _MOVE.match(cure)) and found[2] in USUAL:
        value = _number_of(settings[found[2]])
        low, high = USUAL[found[2]]
        return value is not None and (value >= high if found[1] == "raise" else value <= low)
    return False


def _return_cure(name: str, settings: Mapping[str, Any]) -> str | None:
    """Returns what brings a setting back to where it usually is, or None if it is there."""
    value = _number_of(settings.get(name))
    if value is None:
        return None
    low, high = USUAL[name]
    if low <= value <= high:
        return None
    usual = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
    return f"{'raise' if value < low else 'lower'} {name}, which is {value:g} (usual: {usual})"


def _number_of(value: Any) -> float | None:
    """Returns the larger end of a schedule, and other numbers as they are."""
    return max(value.start, value.end) if isinstance(value, Schedule) else value
