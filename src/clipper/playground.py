"""Where an agent's environments come from in, the sampler that steps them out, here or in workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from gymnasium import spaces
from numpy.typing import NDArray

from clipper.config import Config
from clipper.engine.native_envs import is_native, local_sampler
from clipper.envs.make import EnvSource
from clipper.envs.names import imports_what_it_names, needs_trust
from clipper.envs.vector import spaces_of
from clipper.errors import ConfigError, EnvironmentFault
from clipper.evaluation import Evaluation, evaluate
from clipper.examiner import Examiner
from clipper.faults import Fault, FaultLedger
from clipper.policies.actor_critic import ActorCritic
from clipper.sampler import LocalSampler, SamplerMark
from clipper.spaces import check_same_spaces
from clipper.stepping import Stepping
from clipper.worker_choice import choose_workers
from clipper.workers import ProcessSampler, share_out

AnySampler = LocalSampler | ProcessSampler


class Playground:
    """The environments of one agent: none until they are needed, and the point they were left at.

    Args:
        source: Where they come from, or None if that is not known here.
        env: What the agent's identity says of the environment, for messages.
        seed: The run's seed.
        config: The settings.
        stepping: How they are stepped.

    Attributes:
        ledger: Where faults of environments are counted.

    Raises:
        ConfigError: The number of workers is wrong.
    """

    def __init__(
        self,
        source: EnvSource | None,
        env: Mapping[str, Any],
        seed: int,
        config: Config,
        stepping: Stepping,
    ) -> None:
        self._source = source
        self._env = env
        self._seed = seed
        self._config = config
        self._stepping = stepping
        self._is_native = source is not None and is_native(source, stepping.vectorization)
        self._workers = stepping.workers
        if source is not None and source.instance is not None:
            _check_stays_here(stepping)
        if stepping.isolate and self._workers is not None:
            self._workers = max(1, self._workers)
        if self._workers:
            share_out(config.num_envs, self._workers, stepping.isolate)
        self._why_workers = ""
        self._sampler: AnySampler | None = None
        self._examiner: Examiner | None = None
        self._inexact: str | None = None
        self.ledger = FaultLedger()
        self._state: Mapping[str, NDArray[Any]] | None = None
        self._expected: tuple[spaces.Space[Any], spaces.Space[Any]] | None = None

    def expect(self, obs: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        """Has the environments looked at before they are used: a file tells of others, made elsewhere.

        Args:
            obs: The observation space that the agent was trained in.
            action: The action space that it was trained in.
        """
        self._expected = (obs, action)

    def check_spaces(self) -> None:
        """Raises SpaceError unless the environments have the spaces that are expected."""
        if self._expected is None or self._source is None:
            return
        obs_layout, action_layout, _ = spaces_of(self._source)
        found = (obs_layout.space, action_layout.space)
        check_same_spaces(self._source.name, found, self._expected)
        self._expected = None

    @property
    def has_source(self) -> bool:
        """True if it is known here where environments come from."""
        return self._source is not None

    def require(self) -> None:
        """Raises what `source` does, before anything is done that needs environments."""
        _ = self.source
        self.check_spaces()

    @property
    def source(self) -> EnvSource:
        """Where the environments come from.

        Raises:
            ConfigError: That is not known here.
            SpaceError: They have not the spaces that the agent was trained in.
        """
        if self._source is not None:
            if not self._stepping.isolate:  # or else it is made in another process alone
                self.check_spaces()
            return self._source
        name = self._env["name"]
        if not self._env["is_named"]:
            lost = self._env.get("lost")
            found, hint = (
                f"was made with {' and '.join(lost)}, which no file holds"
                if lost
                else "was given as an object, of which a file holds the name alone",
                "name what makes it so with --env module:Name (Python: env=lambda: ...).",
            )
        elif needs_trust(name, self._env["kwargs"]):
            found = "is named by a file, and a module is not imported unasked"
            if not imports_what_it_names(name):
                found = "has arguments in a file that may name other files, not opened unasked"
            hint = "--trust-env (Python: trust_env=True) does it; only with files you trust."
        else:
            found, hint = (
                "is not registered here",
                "--env module:Id imports what registers it (Python: env=...).",
            )
        raise ConfigError(f"the agent needs its environment, but {name} {found}.", hint=hint)

    @cached_property
    def episode_limit(self) -> int | None:
        """Steps after which an episode is truncated, or None; unknown without a source."""
        return self._env["max_episode_steps"] if self._source is None else spaces_of(self.source)[2]

    @property
    def has_workers(self) -> bool:
        """True if worker processes step environments beside this one."""
        return bool(self._workers)

    @property
    def stepping(self) -> Stepping:
        """How environments are stepped, with the number of workers where that was to be measured."""
        return replace(self._stepping, workers=self._num_workers())

    def sizes_of_shares(self, stepping: Stepping) -> list[int]:
        """Returns how many environments each process would have."""
        number = max(stepping.workers or 0, int(stepping.isolate))
        return [len(each) for each in share_out(self._config.num_envs, number, stepping.isolate)]

    def describe(self) -> list[str]:
        """Returns lines that say how environments are stepped, where that is worth a word."""
        if self._source is None:
            return []
        lines = self._source.describe()
        if self._source.is_fresh_per_episode:
            lines.append("episodes: each in a new environment, whose seed alone decides it")
        if self._is_native:
            lines.append("environments: stepped by the engine, without Python")
        number = self._num_workers()
        if number or self._why_workers:
            reason = f", {self._why_workers}" if self._why_workers else ""
            lines.append(f"workers: {number}{reason}")
        return lines

    def _num_workers(self) -> int:
        if self._workers is None:
            self._workers, self._why_workers = choose_workers(
                self.source, self._config, self._stepping.vectorization
            )
            if self._stepping.isolate:
                self._workers = max(1, self._workers)
        return self._workers

    def ready(self, policy: ActorCritic) -> tuple[AnySampler, str | None]:
        """Returns the sampler where it was left, and why it is not exactly there, or None."""
        if self._sampler is not None:
            # who asked for it first may have had no use for the reason
            return self._sampler, self._inexact
        source, num_envs, workers = self.source, self._config.num_envs, self._num_workers()
        if workers:
            self._sampler = ProcessSampler(
                source,
                num_envs,
                workers,
                self._seed,
                policy,
                self._config,
                self._stepping.vectorization,
                self._stepping.isolate,
                self._stepping.env_timeout,
                self.ledger,
            )
        else:
            everyone = range(num_envs)
            drops = self.ledger if self._config.on_nonfinite == "drop-episode" else None
            self._sampler = local_sampler(
                source, everyone, self._seed, self._stepping.vectorization, ledger=drops
            )
        self._inexact = None
        if self._state is not None:
            try:
                self._inexact = self._sampler.load_state_dict(self._state)
            except BaseException:
                # not where it is to go on: the next call begins with another
                self._sampler.close()
                self._sampler = None
                raise
            self._state = None
        return self._sampler, self._inexact

    def examined(self, policy: ActorCritic, **how: Any) -> Evaluation:
        """Returns what `evaluate` finds, in a process of its own if environments are isolated."""
        if not self._stepping.isolate:
            return evaluate(policy, self.source, **how)
        if self._examiner is None:
            timeout = self._stepping.env_timeout
            self._examiner = Examiner(self.source, self._config, self._seed, timeout)
        return self._examiner.evaluate(policy, **how)

    def take_faults(self) -> list[Fault]:
        """Returns what went wrong in environments that go on, since this was last asked."""
        return [] if self._sampler is None else self._sampler.take_faults()

    def leave_at(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Begins at a saved point when environments are needed next."""
        self._state = state

    def put_away(self, mark: SamplerMark | None = None) -> str | None:
        """Closes the environments and remembers a point to go on from, by default this one.

        Returns:
            Why the point is lost, or None.
        """
        if self._examiner is not None:
            self._examiner.close()
        if self._sampler is None:
            return None
        sampler, self._sampler, lost = self._sampler, None, None
        try:
            self._state = sampler.state_dict(mark)
        except EnvironmentFault as fault:
            lost = f"environments began anew, for {fault.message}"
        finally:
            sampler.close()
        return lost


def _check_stays_here(stepping: Stepping) -> None:
    """Raises if an environment that was given as an instance would have to be in other processes."""
    for name, plain in (("workers", 0), ("isolate", False)):
        if getattr(stepping, name):
            raise ConfigError(
                f"{name} must be {str(plain).lower()} when env is an instance, which cannot be in two "
                "processes.",
                hint="give a callable that makes environments, for example lambda: MyEnv().",
            )
