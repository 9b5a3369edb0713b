"""What training shows and is told: reports and where they are kept, when it ends and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from clipper.errors import ConfigError
from clipper.metrics import DESCRIPTIONS, Episode, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.profiling import RunProfile
from clipper.training_state import TrainingState


class Report:
    """What a callback sees after every iteration, and what it can do.

    Attributes:
        iteration: Iterations done.
        step: Transitions done.
        metrics: The iteration's numbers by path; those a callback adds are logged with them.
        episodes: Training episodes that ended in it.
        recent: The last 100 training episodes.
        policy: The policy as it is now, to look at.
        progress: Share of the run that is done, 0 to 1.
        total_timesteps: The run's budget in transitions, or None if time alone ends it.
        unwritten: What could not be written and is tried again, and why, by what it is; empty when all
            is well.
    """

    def __init__(
        self,
        state: TrainingState,
        metrics: Metrics,
        episodes: tuple[Episode, ...],
        policy: ActorCritic,
        progress: float,
        total_timesteps: int | None,
    ) -> None:
        self.iteration = state.iteration
        self.step = state.step
        self.metrics = metrics
        self.episodes = episodes
        self.recent = state.recent
        self.policy = policy
        self.progress = progress
        self.total_timesteps = total_timesteps
        self.unwritten: Mapping[str, str] = {}
        self.stop_reason: str | None = None

    def log(self, name: str, value: float) -> None:
        """Adds a number to the iteration's metrics, in the CSV file and wherever else they go.

        Raises:
            ConfigError: The name is one of Clipper's own, or no file can hold it; or it is no number.
        """
        is_text = isinstance(name, str) and name.strip() and name.isprintable()
        if not is_text or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ConfigError(
                f"the name of a metric must be text that a file can hold, but is {name!r}."
            )
        if name == "step" or name in DESCRIPTIONS:
            raise ConfigError(
                f"a metric must have a name of its own, but {name!r} is one of Clipper's.",
                hint=f"for example my/{name.rpartition('/')[2]}.",
            )
        try:
            self.metrics[name] = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"metric {name!r} must be a number, but is {value!r:.80}.") from None

    def stop(self, reason: str = "a callback asked for it") -> None:
        """Ends training after this iteration."""
        self.stop_reason = reason


Callback = Callable[[Report], object]


class Keeper(Protocol):
    """Where a run is kept; the run folder."""

    def write(self, report: Report, wall_seconds: float) -> None:
        """Appends an iteration's numbers and episodes."""
        ...

    def save_best(self, score: float) -> None:
        """Keeps the agent as it is now as the best so far."""
        ...

    def save(
        self,
        state: TrainingState,
        algorithm_state: Mapping[str, Mapping[str, Any]],
        sampler_state: Mapping[str, Any],
    ) -> None:
        """Keeps a checkpoint."""
        ...


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """When a run ends, beside `total_timesteps`.

    Attributes:
        until: Mean return of the last 100 training episodes that ends it, or None.
        budget_seconds: Training time that ends it; schedules then follow the time. Or None.
        has_step_limit: False if the time alone ends it, whatever `total_timesteps` says.
    """

    until: float | None = None
    budget_seconds: float | None = None
    has_step_limit: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended.

    Attributes:
        reason: In words.
        step: Transitions done.
        wall_seconds: Training time of the run.
        metrics: The last iteration's numbers.
        signal: Number of the signal that stopped it, or None.
        profile: Where the time of this call went, if that was asked for.
        unwritten: What is missing in the run's folder because the disk refused it, and why, by what it
            is: the best agent alone, for without its last checkpoint a run ends in an error.
    """

    reason: str
    step: int
    wall_seconds: float
    metrics: Metrics
    signal: int | None = None
    profile: RunProfile | None = None
    unwritten: Mapping[str, str] = field(default_factory=dict)
