"""What can be seen of an agent, and what it says of itself; nothing here changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipper.description import transforms_of, warnings_of
from clipper.errors import ConfigError
from clipper.playground import Playground
from clipper.policies.actor_critic import ActorCritic
from clipper.training_run import TrainingRun

# what other libraries call a method
_FOREIGN_METHODS = {
    "observation_space": "policy.obs_layout.space",
    "action_space": "policy.action_layout.space",
    "num_timesteps": "step",
    "set_env": "clipper.load(path, env=...)",
    "load": "clipper.load(path)",
    "learn": "train",
    "fit": "train",
    "predict": "act",
    "select_action": "act",
    "get_action": "act",
    "compute_single_action": "act",
}


class AgentView:
    """The facts of an agent: its settings, how far it is, what went wrong.

    Attributes:
        policy: Its network, with the normaliser of observations.
    """

    policy: ActorCritic
    _playground: Playground
    _run: TrainingRun
    _weights_from: str | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r}, seed={self.seed}, step={self.step})"

    def __getattr__(self, name: str) -> Any:
        ours = _FOREIGN_METHODS.get(name)
        hint = f"; Clipper calls it {ours} (docs/coming-from.md)" if ours else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if "_run" in vars(self) and name in vars(self.config):
            raise AttributeError(
                f"{name!r} cannot be set on an agent; settings are given when it is made, and what "
                "changes in a run is given to train",
                name=name,
                obj=self,
            )
        super().__setattr__(name, value)

    def __reduce_ex__(self, *_: Any) -> Any:
        raise ConfigError(
            "an agent cannot be pickled or copied, for it holds environments that are open.",
            hint="use save(path) and clipper.load(path); copy.deepcopy(agent.policy) is its network.",
        )

    @property
    def config(self) -> Any:
        """The settings."""
        return self._run.identity.config

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._run.identity.seed

    @property
    def preset(self) -> str:
        """Name of the preset the settings came from."""
        return self._run.identity.preset

    @property
    def env(self) -> str:
        """Name of the environment."""
        return str(self._run.identity.env["name"])

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments of the environment."""
        return dict(self._run.identity.env["kwargs"])

    @property
    def step(self) -> int:
        """Transitions trained on so far."""
        return self._run.state.step

    @property
    def engine(self) -> str:
        """What computes: `reference`, `native avx2`, or `torch with the loss and 2 MLPs in avx2`."""
        return self._run.engine

    @property
    def inexact(self) -> str | None:
        """Why this run is not bit for bit the uninterrupted one, or None if it is."""
        return self._run.state.inexact

    @property
    def alarms(self) -> list[str]:
        """What went wrong in training, with the number that proves it and the setting that mends it.

        Each with the step at which it began; see docs/concepts/alarms.md.
        """
        return [f"step {step:,}: {text}" for step, text in self._run.state.alarms.raised]

    @property
    def best(self) -> float | None:
        """Best mean return of the periodic evaluations, or None before the first."""
        return self._run.state.best

    def warnings(self) -> list[str]:
        """Returns what looks wrong before training: a discount or a preset that does not fit."""
        if not self._playground.has_source:
            return []  # nobody knows how long its episodes are
        return warnings_of(self._run.identity, self._playground.episode_limit)

    def describe(self) -> list[str]:
        """Returns lines that name the spaces and every transform of observations and actions."""
        lines = transforms_of(self.policy, self.config) + self._playground.describe()
        if self._weights_from is not None:
            lines.append(f"weights: taken from {self._weights_from}")
        return lines

    def describe_engine(self) -> str:
        """Returns the line that names the engine, and why if it is not the native one."""
        return self._run.algorithm.describe_engine()
