"""What a check of an environment found in, text and JSON out.

A finding is named for what is wrong; `FINDINGS` lists every name with its severity.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_WIDTH = 100

FINDINGS: Mapping[str, tuple[Severity, str]] = {
    # what reset and step return
    "make_fails": ("error", "the environment cannot be made"),
    "reset_signature": ("error", "reset takes no seed or no options, as in the old gym"),
    "reset_result": ("error", "reset returns something else than (obs, info)"),
    "reset_raises": ("error", "reset raises"),
    "step_result": ("error", "step returns something else than five values"),
    "step_raises": ("error", "step raises for a legal action"),
    "info_type": ("error", "info is not a dict"),
    "reward_type": ("error", "a reward is not a number"),
    "reward_not_finite": ("error", "a reward is NaN or infinite"),
    "end_type": ("error", "terminated or truncated is not a bool"),
    "end_both": ("warning", "every episode ends terminated and truncated at once"),
    # observations
    "obs_not_finite": ("error", "an observation has a NaN or an infinity"),
    "obs_not_numbers": ("error", "an observation, or a part of it, is not numbers"),
    "obs_part_missing": ("error", "a part of a Dict or Tuple observation is missing"),
    "obs_shape": ("error", "an observation has another shape than its space"),
    "obs_dtype": ("warning", "an observation has another dtype than its space"),
    "obs_outside_space": ("warning", "an observation lies outside its space"),
    "obs_reused": ("note", "an observation changes after it was returned"),
    "obs_scale": ("note", "an observation's numbers are very large or very small"),
    "obs_constant": ("note", "numbers of the observation never change (warning: none does)"),
    # actions
    "action_mutated": ("warning", "step changes the action that it is given"),
    "action_bounds": ("warning", "a Box of actions is far from [-1, 1], or infinite"),
    "actions_without_effect": ("warning", "other actions change nothing"),
    # spaces
    "space_not_supported": ("error", "Clipper does not learn from such a space"),
    "space_changes": ("error", "a space changes while the environment is played"),
    "spaces_differ": ("error", "two instances have different spaces"),
    # episodes and rewards
    "episode_never_ends": ("warning", "episodes have no end and no limit"),
    "episode_does_not_restart": ("error", "reset does not begin a new episode after an end"),
    "limit_as_terminated": ("warning", "every episode terminates after the same number of steps"),
    "reward_constant": ("note", "every reward under random actions is the same"),
    "reward_scale": ("note", "rewards are very large or very small"),
    # randomness
    "seed_ignored": ("warning", "the same seed begins another episode"),
    "not_deterministic": ("warning", "the same seed and actions go another way"),
    "seed_changes_nothing": ("note", "every seed gives the same episode"),
    "unseeded_repeats": ("note", "a reset without a seed repeats the episode before"),
    "state_leaks": ("warning", "an episode depends on those before it"),
    # instances
    "state_shared": ("error", "an instance changes what another one does"),
    "second_instance": ("error", "a second instance in the same process cannot be made"),
    "reopen_fails": ("error", "after close, the environment cannot be made again"),
    "close_fails": ("warning", "close raises"),
    # pictures
    "render_fails": ("warning", "a render mode of the metadata does not work"),
    "render_undeclared": ("warning", "the render mode is not among those of the metadata"),
    # time and memory
    "step_slow": ("note", "steps are so slow that worker processes pay"),
    "reset_slow": ("note", "resets take a large part of the time"),
    "resources_leak": ("note", "memory, threads or open files grow with every episode"),
    # the process
    "process_crashes": ("error", "the environment ends the process it is in"),
    "call_hangs": ("error", "a call of the environment does not return"),
}
"""Every name a finding can have: its usual severity and what it means."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with an environment, or worth knowing.

    Attributes:
        name: One of `FINDINGS`.
        severity: error (training cannot be trusted), warning or note.
        message: What must hold and what was found, in a sentence.
        mend: What to change in the environment, or the setting of Clipper that deals with it.
        evidence: The numbers, by name: episode, seed, step (from 1), part (of the observation) ...
        reproduce: A Python program that shows it again, or empty.
    """

    name: str
    severity: Severity
    message: str
    mend: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    reproduce: str = ""

    def __str__(self) -> str:
        indent = " " * 9
        head = f"{self.severity:<8} {self.name}: {self.message}"
        wrap = partial(textwrap.wrap, width=_WIDTH, break_long_words=False, break_on_hyphens=False)
        lines = wrap(head, subsequent_indent=indent)
        mend = f"mend: {self.mend}"
        lines += wrap(mend, initial_indent=indent, subsequent_indent=indent + " " * 6)
        if self.reproduce:
            lines += [f"{indent}again:", *(f"{indent}  {s}" for s in self.reproduce.splitlines())]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)


@dataclass
class Coverage:
    """How much of an environment was looked at.

    Attributes:
        episodes: Episodes begun.
        steps: Steps taken.
        instances: Environments made.
        seconds: Time it took.
        steps_per_second: Of the environment alone, with random actions; 0 if unknown.
        skipped: What was not looked at, and why.
    """

    episodes: int = 0
    steps: int = 0
    instances: int = 0
    seconds: float = 0.0
    steps_per_second: float = 0.0
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{number:,} {noun}{'s' * (number != 1)}"
            for number, noun in (
                (self.episodes, "episode"),
                (self.steps, "step"),
                (self.instances, "instance"),
            )
        )
        speed = f"; {self.steps_per_second:,.0f} steps/s" if self.steps_per_second else ""
        lines = [f"looked at {counts} in {self.seconds:.1f} s{speed}"]
        lines += [f"not looked at: {what}" for what in self.skipped]
        return "\n".join(lines)


class Findings(list[Finding]):
    """Findings, errors first; prints as a report.

    Attributes:
        env: The environment's name.
        coverage: How much was looked at.
    """

    def __init__(self, env: str, findings: Iterable[Finding], coverage: Coverage) -> None:
        super().__init__(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))
        self.env = env
        self.coverage = coverage

    @property
    def num_errors(self) -> int:
        """Errors: if there are any, training cannot be trusted."""
        return self._num("error")

    def _num(self, severity: Severity) -> int:
        return sum(found.severity == severity for found in self)

    def __str__(self) -> str:
        counts = [(self._num(severity), severity) for severity in SEVERITIES]
        told = ", ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in counts if n)
        parts = [f"{self.env}: {told or 'nothing is wrong with it'}", *map(str, self)]
        return "\n\n".join([*parts, str(self.coverage)])

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {
            "env": self.env,
            **{f"{severity}s": self._num(severity) for severity in SEVERITIES},
            "findings": [found.to_json() for found in self],
            "looked_at": asdict(self.coverage),
        }


def as_json(value: Any) -> Any:
    """Returns a value as JSON has it: numpy's numbers as Python's, what JSON lacks as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
