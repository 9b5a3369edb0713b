"""A policy and its environments in, a run of training out: algorithm, counters and folder together."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from clipper import agent_file
from clipper.agent_meta import made_plain
from clipper.algorithms import build_algorithm
from clipper.checkpoint import Checkpoint, CheckpointRules, without_prefix
from clipper.checkpoint_check import check_memory, check_parts, check_sampler, check_state, freeze
from clipper.config import Config
from clipper.config_acer import ACERConfig
from clipper.errors import ConfigError, EnvironmentFault, FileError, FolderTaken
from clipper.exam import SELECTION
from clipper.faults import Fault
from clipper.identity import Identity
from clipper.metrics import Metrics
from clipper.playground import Playground
from clipper.policies.actor_critic import ActorCritic
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.run_folder import RunFolder, opened_again, read_config
from clipper.run_keeper import RunKeeper, best_score, changes_since, stepping_of
from clipper.setting_values import Schedule
from clipper.training import Trainer
from clipper.training_report import Callback, Outcome, Report, StopRules
from clipper.training_state import TrainingState

_LOG = logging.getLogger("clipper")


class TrainingRun:
    """All that changes while an agent is trained.

    Args:
        identity: What the agent is.
        policy: What is trained, in place.
        playground: Its environments.

    Attributes:
        identity: As given, with the settings as they are now.
        algorithm: Collects and learns.
        state: The counters.
        origin: Where the weights of a loaded agent come from, if the rest is not known.
        checkpoints: When checkpoints are written and how many stay.
    """

    def __init__(self, identity: Identity, policy: ActorCritic, playground: Playground) -> None:
        self.identity = identity
        self.policy = policy
        self._playground = playground
        self.begin_at_policy()
        self.state = TrainingState(next_evaluation=identity.config.evaluation_interval)
        self.origin: str | None = None
        self.checkpoints = CheckpointRules()
        self._store: RunKeeper | None = None
        self._left: tuple[Path, dict[str, int]] | None = None
        self._is_training = False
        self._replay: str | None = None
        self._num_stretches = 0

    def begin_at_policy(self) -> None:
        """Begins with the weights that the policy has now, which some algorithms keep copies of."""
        identity = self.identity
        self.algorithm = build_algorithm(
            identity.algorithm, self.policy, identity.config, identity.seed
        )

    @property
    def engine(self) -> str:
        """What computes; as `Agent.engine`."""
        return self.algorithm.engine_name()

    def train(
        self, rules: StopRules, observers: Sequence[Callback], profiler: Profiler = NO_STOPWATCH
    ) -> Outcome:
        """Trains until a rule ends it; the folder, if there is one, is written."""
        self._is_training, self._replay = True, None
        try:
            return self._train(rules, observers, profiler)
        finally:
            self._is_training = False

    def check_idle(self, what: str, hint: str | None = None) -> None:
        """Raises while the agent is trained, for what would take its environments away.

        Raises:
            ConfigError: It is.
        """
        if self._is_training:
            raise ConfigError(
                f"{what} must not be called while the agent is trained, but a callback does.",
                hint=hint or "return False from the callback to end the training first.",
            )

    def _train(
        self, rules: StopRules, observers: Sequence[Callback], profiler: Profiler
    ) -> Outcome:
        first_step = self.state.step
        self.policy.hold()
        self.state.note_inexact(self.origin)
        self._playground.ledger = self.state.faults
        with profiler.part("start"):
            sampler, inexact = self._playground.ready(self.policy)
        self.state.note_inexact(inexact)
        if inexact is not None and self._store is not None:
            self._store.folder.log(inexact)
        # workers rest while this process learns: one of their cores takes half of the update
        self.algorithm.use_threads(2 if self._playground.has_workers else 1)
        can_evaluate = (
            self.identity.config.evaluation_interval > 0
            and self._playground.source.instance is None
        )
        store, scores = self._store, profiler.timed("evaluate", self._selection_scores)
        trainer = Trainer(
            profiler.around(self.algorithm, iterate="improve", state_dict="save"),
            profiler.around(
                sampler, collect="store", score="store", mark="save", state_dict="save"
            ),
            self.state,
            evaluate=scores if can_evaluate else None,
            keeper=store and profiler.around(store, write="log", save="save", save_best="save"),
            observers=[
                self._note_faults,
                self._note_alarms,
                *(profiler.timed("log", observer) for observer in observers),
                lambda report: self.policy.hold(),  # which an observer may have moved
            ],
            rules=self.checkpoints,
        )
        self.algorithm.profiler = profiler
        sampler.count_time(profiler)
        try:
            outcome = trainer.run(rules)
        except EnvironmentFault as error:
            # the one that ends the run is often the third of its kind
            with suppress(FileError):
                self._keep_faults()
            if self._replay is not None:
                error.add_note(self._replay)
            raise
        finally:
            self.algorithm.profiler = NO_STOPWATCH
            sampler.count_time(NO_STOPWATCH)
            try:
                with suppress(FileError):  # what went wrong before is the one to be told of
                    self._keep_faults()
            finally:
                if trainer.broken_at is not None:
                    self.state.note_inexact(self._playground.put_away(trainer.broken_at))
        if store is not None:
            with profiler.part("log"):
                store.finish(outcome)
        profile = profiler.result(self.state.step - first_step)
        if store is not None and profile is not None and profile.num_steps:
            store.write_profile(profile)
        return replace(outcome, profile=profile)

    def _note_faults(self, report: Report) -> None:
        """Writes down what went wrong in environments that went on, if anything did."""
        faults = self._keep_faults()
        num_workers = sum(fault.is_of_worker for fault in faults)
        if num_workers:
            self.state.note_inexact("a worker was replaced after a fault of an environment")
            report.metrics["rollout/env_faults"] = float(num_workers)
        if len(faults) > num_workers:
            report.metrics["rollout/dropped_episodes"] = float(len(faults) - num_workers)

    def _note_alarms(self, report: Report) -> None:
        """Adds what the row says that is wrong to it, and tells of what is new."""
        found, new = self.state.alarms.look(
            report.step, report.metrics, report.progress, vars(self.identity.config)
        )
        for alarm in found:
            report.metrics[f"alarm/{alarm.name}"] = alarm.value
        for alarm in new:
            _LOG.warning("%s", alarm)
            if self._store is not None:
                with suppress(FileError):  # it waits for room, as all rows and lines do
                    self._store.folder.log(f"step {report.step:,}: {alarm}")

    def _keep_faults(self) -> list[Fault]:
        """Returns what went wrong since this was last asked, told and kept in the folder."""
        faults = self._playground.take_faults()
        for fault in faults:
            if not fault.is_of_worker:  # which is told of when it happens
                _LOG.warning("%s", fault)
            if self._store is not None:
                try:
                    self._replay = f"to see it again: {self._store.write_fault(fault)}"
                    _LOG.warning("%s", self._replay)
                except FileError as error:  # the run has outlived the fault, and does this too
                    _LOG.warning("%s The fault's file is missing.", error.message)
        return faults

    def rebudget(self, total_timesteps: int) -> None:
        """Sets another number of steps for the whole run.

        Raises:
            ConfigError: It is not above the steps that are done.
        """
        config = self.identity.config.replace(total_timesteps=total_timesteps)
        if config.total_timesteps <= self.state.step:
            raise ConfigError(
                f"total_timesteps must be above the {self.state.step:,} steps that are done, "
                f"but is {config.total_timesteps:,}.",
                hint="it counts from the start of the run, steps done included.",
            )
        if self.state.step:
            self._tell_restretched(config)
            self.state.note_inexact(
                f"total_timesteps changed from {self.identity.config.total_timesteps:,} to "
                f"{config.total_timesteps:,} after {self.state.step:,} steps, and schedules with it"
            )
        self.identity = replace(self.identity, config=config)
        self.algorithm.config = config
        self._evaluate_next_at_multiple()

    def _tell_restretched(self, config: Config) -> None:
        """Says once that a run which is given its steps in slices hardly learns by its schedules."""
        self._num_stretches += 1
        values = {field.name: getattr(config, field.name) for field in fields(config)}
        falling = [
            f"{name} {value}"
            for name, value in values.items()
            if isinstance(value, Schedule) and not value.is_constant
        ]
        if falling and self._num_stretches == 2:
            _LOG.warning(
                "schedules end at total_timesteps, which was moved a second time, to %s: a run in "
                "slices learns in small steps (%s); give all steps when the agent is made and end each "
                "slice by a callback, or give constant numbers",
                f"{config.total_timesteps:,}",
                ", ".join(falling),
            )

    def _evaluate_next_at_multiple(self) -> None:
        """Evaluates periodically from the next multiple of the interval on."""
        interval, step = self.identity.config.evaluation_interval, self.state.step
        if interval:
            self.state.next_evaluation = step - step % interval + interval

    def _selection_scores(self) -> Metrics:
        """Returns the periodic evaluation in both modes, on seeds of its own."""
        scores = {}
        # no longer than training itself, where nothing else ends an episode
        endless = self._playground.episode_limit is None
        most = self.identity.config.evaluation_interval if endless else None
        for mode, deterministic in (("deterministic", True), ("stochastic", False)):
            result = self._playground.examined(
                self.policy,
                episodes=self.identity.config.eval_episodes,
                seed=self.identity.seed,
                deterministic=deterministic,
                purposes=SELECTION,
                max_steps=most,
                drops=self.identity.config.on_nonfinite == "drop-episode",
            )
            scores[f"eval/return_{mode}"] = result.mean
            if result.dropped:
                count = f"{len(result.dropped)} of {result.episodes}"
                _LOG.warning(
                    "%s evaluation: %s episodes left out: %s", mode, count, result.dropped[0]
                )
        return scores

    def open_folder(self, path: Path, transforms: list[str]) -> None:
        """Begins to write a new folder, or goes on with the one that this run wrote last.

        Args:
            path: Where; there must be no other run.
            transforms: Lines that name the spaces and what is done to them.

        Raises:
            ConfigError: A folder is written already.
            FileError: There is another run, or the folder cannot be written.
        """
        if self._left is not None and os.path.realpath(path) == os.path.realpath(self._left[0]):
            self.go_on_in_folder()
            return
        if self._store is not None:
            raise ConfigError(
                "run_dir must not be given when a resumed run goes on: it writes its own folder, "
                f"{self._store.folder.path}.",
                hint="load the agent file to start another run from it.",
            )
        if os.path.exists(path / "config.json"):
            raise FolderTaken(
                f"{path} must not hold a run yet, but does.",
                hint=f"`clipper.resume({str(path)!r})` goes on with it.",
            )
        self._store = self._keeper_of(RunFolder(path))
        self._store.begin(transforms)

    def _keeper_of(self, folder: RunFolder) -> RunKeeper:
        return RunKeeper(
            folder,
            self.policy,
            self.describe,
            self.checkpoints,
            lambda: self._playground.stepping,
        )

    def use_checkpoints(self, **given: float | None) -> None:
        """Sets when checkpoints are written and how many stay; None leaves a rule as it is.

        Raises:
            ConfigError: A number is out of its range.
        """
        self.checkpoints = self.checkpoints.replaced(**given)
        if self._store is not None:
            self._store.rules = self.checkpoints

    def go_on_in_folder(self) -> None:
        """Goes on writing the folder of this run, if it has one, and notes there that it goes on.

        Raises:
            FileError: The folder is gone, or another process wrote it since.
        """
        if self._store is None and self._left is not None:
            folder, missing = opened_again(*self._left)
            self._store = self._keeper_of(folder)
            if missing is not None:
                self.state.note_inexact(missing)
        if self._store is not None:
            self._store.go_on(self.state.step)

    def close_folder(self) -> None:
        """Lets go of the folder, which the next call of `train` takes up again."""
        if self._store is not None:
            folder, self._store = self._store.folder, None
            self._left = folder.path, folder.num_rows
            folder.close()

    def go_on_from(self, folder: RunFolder, checkpoint: Checkpoint) -> None:
        """Takes over all that a checkpoint holds and goes on writing its folder.

        Raises:
            FileError: The checkpoint is not one of this agent.
        """
        where, identity = str(folder.path), self.identity
        data = check_state(checkpoint, where)
        counters = TrainingState.from_json(data["training"])
        if counters.step != checkpoint.step:
            raise FileError(
                f"{where} must have a checkpoint of step {checkpoint.step:,}, "
                f"but its counters say {counters.step:,}."
            )
        rules = _rules_of(folder)
        agent_file.load_policy(self.policy, without_prefix("policy", checkpoint.agent), where)
        freeze(self.policy, data["frozen"], where)
        sampler = check_sampler(checkpoint, self.policy, identity.config.num_envs, where)
        parts = check_parts(
            checkpoint, self.algorithm.state_dict(), where, has_module=identity.has_module
        )
        if isinstance(identity.config, ACERConfig):
            check_memory(parts["memory"], self.policy, identity.config, where)
        self.algorithm.load_state_dict(parts)
        self._playground.leave_at(sampler)
        self.state = counters
        self._playground.ledger = counters.faults
        before = type(identity.config).from_json(checkpoint.agent_meta["config"])
        if before.evaluation_interval != identity.config.evaluation_interval:
            self._evaluate_next_at_multiple()
        self.origin = None
        missing = folder.cut_back(data["rows"])
        self.checkpoints = rules
        self._store = self._keeper_of(folder)
        # of the file that is there: it may be newer than the checkpoint, or gone
        counters.best = best_score(folder, counters.best)
        changes = changes_since(checkpoint, str(self.policy.device), self.engine)
        for change in [*changes, *self._other_shares(folder), *([missing] if missing else [])]:
            self.state.note_inexact(change)
            folder.log(change)

    def _other_shares(self, folder: RunFolder) -> list[str]:
        """Returns what differs in how environments are shared out, where torch acts and rounds by it."""
        if self.policy.is_accelerated:
            return []
        before, now = stepping_of(folder.path), self._playground.stepping
        sizes = [self._playground.sizes_of_shares(each) for each in (before, now)]
        if sizes[0] == sizes[1]:
            return []
        return [
            f"environments were shared out as {sizes[0]}, now as {sizes[1]}: torch rounds by it"
        ]

    def describe(self) -> dict[str, Any]:
        """Returns what the metadata of an agent file says of the agent as it is now."""
        identity = self.identity
        return {
            "algorithm": identity.algorithm,
            "env": dict(identity.env),
            "preset": identity.preset,
            "seed": identity.seed,
            "config": identity.config.to_json(),
            "module": "user" if identity.has_module else self.policy.kind,
            "engine": self.engine,
            "step": self.state.step,
            "exact": self.state.inexact is None,
            "inexact": None if self.state.inexact is None else made_plain(self.state.inexact),
        }


def _rules_of(folder: RunFolder) -> CheckpointRules:
    """Returns a run's own rules of its checkpoints; those of its first days have the defaults.

    Raises:
        FileError: The folder says something else.
    """
    given = read_config(folder.path).get("checkpoints", {})
    try:
        return CheckpointRules().replaced(**given)
    except (ConfigError, TypeError) as error:
        raise FileError(
            f"{folder.path / 'config.json'} must say when checkpoints are written, but {error}"
        ) from None
