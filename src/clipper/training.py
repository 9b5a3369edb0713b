"""An algorithm and a sampler in, a finished or stopped run out: iterate, evaluate, log, save.

The loop knows no algorithm. Whatever stops it - the budget, a callback, Ctrl-C, an environment that
raises - the state it leaves is that of the last finished iteration, and that state is saved.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clipper.algorithms import Algorithm
from clipper.checkpoint import CheckpointRules
from clipper.errors import ClipperError, FileError, NumericsError
from clipper.interrupts import Interrupt, interruptible
from clipper.metrics import Iteration, Metrics
from clipper.policies.actor_critic import ActorCritic
from clipper.sampler import Sampler, SamplerMark
from clipper.training_report import Callback, Keeper, Outcome, Report, StopRules
from clipper.training_state import TrainingState

_LOG = logging.getLogger("clipper")


class Trainer:
    """Runs iterations until a rule ends them.

    Args:
        algorithm: Collects and learns.
        sampler: Its environments.
        state: Counters to go on from.
        evaluate: Returns `eval/...` metrics of the policy as it is now, or None for no evaluation.
        keeper: Where the run is kept, or None.
        observers: Called with every report, in order: callbacks, then displays.
        rules: When checkpoints are written, beside the first and the last.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        sampler: Sampler,
        state: TrainingState,
        *,
        evaluate: Callable[[], Metrics] | None,
        keeper: Keeper | None,
        observers: Sequence[Callback],
        rules: CheckpointRules,
    ) -> None:
        self._algorithm = algorithm
        self._sampler = sampler
        self.state = state
        self._evaluate = evaluate
        self._keeper = keeper
        self._observers = observers
        self._checkpoints = rules
        self._last_save = (state.step, time.monotonic())
        self._save_seconds = 0.0
        self._unwritten: dict[str, str] = {}
        self.broken_at: SamplerMark | None = None
        """Where the sampler must be brought back to if it was stopped inside a rollout."""

    def run(self, rules: StopRules) -> Outcome:
        """Trains until the budget is spent or something stops it.

        Raises:
            ClipperError: An environment, a number or a file failed; what was learnt up to the last
                finished iteration is saved first.
        """
        metrics: Metrics = self.state.recent.metrics()
        reason = self._finished(rules)
        with interruptible() as interrupt:
            if reason is None and not self.state.step:
                # a run that is killed in its first seconds can go on too
                self._save(self._algorithm.state_dict(), self._sampler.mark())
            while reason is None and interrupt.number is None:
                before = _Before(self._algorithm, self._sampler, self.state)
                started = time.perf_counter()
                try:
                    with interrupt.allowed():
                        iteration = self._algorithm.iterate(self._sampler, self.progress(rules))
                        check_learned(self._algorithm.policy)
                        report = self._count(iteration, time.perf_counter() - started, rules)
                        reason = self._finished(rules)
                        fault = self._evaluate_if_due(report, is_last=reason is not None)
                except BaseException as error:
                    reason = None
                    is_heard = isinstance(error, KeyboardInterrupt) and interrupt.number is not None
                    self._take_back(before, None if is_heard else error)
                    break
                metrics = report.metrics
                try:
                    self._conclude(report, interrupt, is_last=reason is not None)
                    if fault is not None:
                        raise fault
                except BaseException as error:
                    self._save_after(error, self._algorithm.state_dict(), self._sampler.mark())
                    raise
                reason = reason or report.stop_reason
            else:
                self._save(self._algorithm.state_dict(), self._sampler.mark())
        if reason is None and interrupt.number is not None:
            reason = f"stopped by {signal.Signals(interrupt.number).name}"
        state = self.state
        return Outcome(
            reason or "",
            state.step,
            state.wall_seconds,
            metrics,
            interrupt.number,
            unwritten=self._unwritten,
        )

    def progress(self, rules: StopRules) -> float:
        """Returns the share of the run that is done, 0 to 1, by steps or by time."""
        done = 0.0
        if rules.has_step_limit:
            done = self.state.step / self._algorithm.config.total_timesteps
        if rules.budget_seconds is not None:
            done = max(done, self.state.wall_seconds / rules.budget_seconds)
        return min(done, 1.0)

    def _take_back(self, before: _Before, error: BaseException | None) -> None:
        """Goes back to the last finished iteration and saves it; raises unless a signal was heard."""
        before.restore(self._algorithm, self.state)
        self.broken_at = before.mark
        if error is not None:
            self._save_after(error, before.algorithm, before.mark)
            raise error
        self._save(before.algorithm, before.mark)

    def _count(self, iteration: Iteration, seconds: float, rules: StopRules) -> Report:
        """Adds a finished iteration to the counters and returns the report of it."""
        state = self.state
        state.step += iteration.num_timesteps
        state.iteration += 1
        state.wall_seconds += seconds
        state.recent.extend(iteration.episodes)
        if rules.budget_seconds is not None:
            state.note_inexact("the budget is in wall time, which differs from run to run")
        metrics = {
            **state.recent.metrics(),
            **iteration.metrics,
            "time/timesteps_per_second": iteration.num_timesteps / max(seconds, 1e-9),
        }
        total = self._algorithm.config.total_timesteps if rules.has_step_limit else None
        policy, progress = self._algorithm.policy, self.progress(rules)
        report = Report(state, metrics, iteration.episodes, policy, progress, total)
        report.unwritten = self._unwritten
        return report

    def _evaluate_if_due(self, report: Report, *, is_last: bool) -> ClipperError | None:
        """Adds the periodic evaluation's numbers to the report; returns what went wrong in it.

        It belongs to its iteration: stopped by a signal, the whole iteration is done again.
        """
        state = self.state
        if self._evaluate is None or not (state.step >= state.next_evaluation or is_last):
            return None
        started = time.perf_counter()
        fault = None
        try:
            report.metrics.update(self._evaluate())
        except ClipperError as error:
            fault = error
        interval = self._algorithm.config.evaluation_interval
        state.next_evaluation = state.step - state.step % interval + interval
        state.wall_seconds += time.perf_counter() - started
        return fault

    def _conclude(self, report: Report, interrupt: Interrupt, *, is_last: bool) -> None:
        """Keeps the best agent, shows the report to the observers, writes and saves."""
        started = time.perf_counter()
        state = self.state
        self._keep_best(report.metrics.get("eval/return_deterministic"))
        report.metrics["time/wall_seconds"] = state.wall_seconds
        try:
            for observer in self._observers:
                found = observer(report)
                if isinstance(found, bool | np.bool_) and not found:
                    report.stop()
        finally:
            # an observer that raises ends the run after this iteration, whose rows belong to it
            if self._keeper is not None:
                keeper, seconds = self._keeper, state.wall_seconds
                self._attempt("a row or line", lambda: keeper.write(report, seconds))
        since, at = self._last_save
        elapsed = time.monotonic() - at
        goes_on = interrupt.number is None and report.stop_reason is None and not is_last
        if goes_on and self._checkpoints.is_due(since, state.step, elapsed, self._save_seconds):
            mark, algorithm = self._sampler.mark(), self._algorithm.state_dict()
            self._attempt("a checkpoint", lambda: self._save(algorithm, mark))
        state.wall_seconds += time.perf_counter() - started

    def _keep_best(self, score: float | None) -> None:
        """Keeps the agent as it is now as the best so far, if its evaluation says so."""
        best = self.state.best
        if score is None or (best is not None and score < best):
            return
        self.state.best = score
        if self._keeper is not None:
            keeper = self._keeper
            if not self._attempt("the best agent", lambda: keeper.save_best(score)):
                self.state.best = best  # the next one that is better than what is kept is kept

    def _attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Writes to the folder; if the disk refuses, says so and goes on. Returns whether it did."""
        try:
            write()
        except FileError as error:
            if what not in self._unwritten:
                _LOG.warning("%s The run goes on, and tries again.", error.message)
            self._unwritten[what] = error.message
            return False
        self._note_written(what)
        return True

    def _note_written(self, what: str) -> None:
        """Takes back that something could not be written."""
        if self._unwritten.pop(what, None) is not None:
            _LOG.warning("What could not be written before, %s, is written now.", what)

    def _finished(self, rules: StopRules) -> str | None:
        state = self.state
        if rules.has_step_limit and state.step >= self._algorithm.config.total_timesteps:
            return f"total_timesteps {self._algorithm.config.total_timesteps:,} reached"
        if rules.budget_seconds is not None and state.wall_seconds >= rules.budget_seconds:
            return f"budget of {rules.budget_seconds:g} s spent"
        if rules.until is not None and state.recent.is_full:
            mean = state.recent.metrics()["rollout/episode_return"]
            if mean >= rules.until:
                return f"mean return {mean:.1f} of the last 100 episodes reached {rules.until:g}"
        return None

    def _save(self, algorithm_state: Mapping[str, Mapping[str, Any]], mark: SamplerMark) -> None:
        if self._keeper is not None:
            # one that fails is tried again when the next is due
            self._last_save = (self.state.step, started := time.monotonic())
            try:
                self._keeper.save(self.state, algorithm_state, self._sampler.state_dict(mark))
            finally:
                self._save_seconds = time.monotonic() - started
            # and the rows it counts with it
            for what in ("a checkpoint", "a row or line"):
                self._note_written(what)

    def _save_after(
        self, error: BaseException, before: Mapping[str, Mapping[str, Any]], mark: SamplerMark
    ) -> None:
        """Saves the last finished iteration; a failure to save does not hide the first error."""
        try:
            self._save(before, mark)
        except ClipperError as second:
            error.add_note(f"The last finished iteration could not be saved: {second.message}")


def check_learned(policy: ActorCritic) -> None:
    """Raises unless all that a policy has learnt is finite.

    A loss and a gradient that are finite do not promise it: a step may be too long.

    Raises:
        NumericsError: Names what is not.
    """
    if policy.is_finite():
        return
    for name, tensor in policy.tensors().items():
        bad = tensor[~torch.isfinite(tensor)]
        if len(bad):
            raise NumericsError(
                f"every number that is learnt must be finite, but {name} has {float(bad[0])} after "
                "this iteration, which is taken back.",
                hint="lower learning_rate, or look for extreme rewards (normalize_reward).",
            )


class _Before:
    """What an iteration changes, as it was before."""

    def __init__(self, algorithm: Algorithm, sampler: Sampler, state: TrainingState) -> None:
        self.mark = sampler.mark()
        self.algorithm = algorithm.state_dict()
        self._counters = state.copy()

    def restore(self, algorithm: Algorithm, state: TrainingState) -> None:
        """Brings algorithm and counters back; the sampler is replayed from `mark`."""
        algorithm.load_state_dict(self.algorithm)
        state.take(self._counters)
