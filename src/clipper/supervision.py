"""A share of environments in, its part of every rollout out, even if its worker dies on the way.

What a worker has collected lies on a board that outlives it. When it is lost, the rows before the
one it was at are kept, its open episodes end there as truncated, and a new worker collects the rest
from new episodes: the rollout has the size it was to have. Dimension key: T steps, K envs of a share.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.block_checks import check_finite
from clipper.cut_rollout import cut_off, joined_in_time, judged
from clipper.envs.dropping import too_often
from clipper.errors import EnvironmentFault
from clipper.faults import MOST_FAULTS, Fault, FaultLedger
from clipper.pace import Pace, arriving
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import EpisodeSeeds
from clipper.rollout import Rollout
from clipper.sampler import block_shapes
from clipper.scoring import Score
from clipper.spaces import ObservationLayout
from clipper.whereabouts import Whereabouts, at_first
from clipper.worker_handle import Worker, WorkerLost

_LOG = logging.getLogger("clipper")


class SupervisedShare:
    """A worker that is replaced when it is lost.

    Args:
        make: Starts the worker anew.
        share: Indices of its environments.
        num_envs_in_all: Environments of the run.
        seed: The run's seed.
        timeout: Seconds after which a step counts as hanging, or None for the larger of 10 s and 20
            times the 99th percentile of its steps.
        ledger: Where faults of all environments are counted.

    Attributes:
        faults: What went wrong since it was last emptied.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        share: range,
        num_envs_in_all: int,
        seed: int,
        timeout: float | None,
        ledger: FaultLedger,
    ) -> None:
        self._make = make
        self.share = share
        self._num_envs_in_all = num_envs_in_all
        self._seeds = EpisodeSeeds(seed)
        self._pace = Pace(timeout)
        self._timeout = timeout
        self._ledger = ledger
        self.faults: list[Fault] = []
        self.worker = make()
        self._where = Whereabouts(len(share))
        # whether the worker took a lost one's place since
        self._is_new = False
        self._question: tuple[dict[str, Any], int, bool] = ({}, 0, False)
        self._saved: Mapping[str, NDArray[Any]] = {}
        self._contest: tuple[dict[str, Any], NDArray[np.float32], int, int | None]
        self._contest = ({}, np.zeros((0, 0), np.float32), 0, None)

    def ask_to_collect(self, weights: dict[str, Any], num_steps: int, until_end: bool) -> None:
        """Has the worker begin with its part of a rollout."""
        self._question = (weights, num_steps, until_end)
        self.worker.board.position[:] = -1
        with contextlib.suppress(WorkerLost):  # `collected` finds it dead, and goes on with another
            self.worker.ask("collect", weights, num_steps, until_end)

    def collected(self, policy: ActorCritic, steps: int) -> Rollout:
        """Returns the part that was asked for, [T, K].

        Args:
            policy: The policy whose weights were sent.
            steps: Steps of every environment before the rollout.

        Raises:
            EnvironmentFault: An environment failed too often.
            ClipperError: Anything else that went wrong in the worker.
        """
        weights, left, until_end = self._question
        parts: list[Rollout] = []
        while True:
            self._pace.begin()
            try:
                columns = self.worker.receive(partial(self._wrong, left))
            except WorkerLost as lost:
                kept = self._after(lost, policy, steps, left)
            else:
                self._where.standing = columns.pop("standing")
                self.note_dropped(columns.pop("faults"))
                parts.append(_rollout(columns))
                self._where.remember(parts[-1])
                return joined_in_time(parts)
            if kept is not None:
                parts.append(kept)
                left -= len(kept.rewards)
                steps += len(kept.rewards)
            self._replace(steps)
            if until_end and parts:
                # the episode ended where the worker was lost
                return joined_in_time(parts)
            self.ask_to_collect(weights, left, until_end)

    def ask_to_score(
        self,
        weights: dict[str, Any],
        vectors: NDArray[np.float32],
        episodes: int,
        budget: int | None,
        is_marked: bool,
    ) -> None:
        """Has the worker score its candidates; as `ProcessSampler.score`."""
        self._contest = (weights, vectors, episodes, budget)
        self.worker.board.place[:] = 0
        with contextlib.suppress(WorkerLost):  # `scored` finds it dead, and goes on with another
            self.worker.ask("score", *self._contest, is_marked)

    def scored(self, steps: int) -> dict[int, Score]:
        """Returns the scores that were asked for, by the index of the candidate.

        Args:
            steps: As the sampler counts them.

        Raises:
            EnvironmentFault: An environment failed too often.
            ClipperError: Anything else that went wrong in the worker.
        """
        _, vectors, episodes, _ = self._contest
        # no episode that a lost worker may have begun is begun a second time
        most = -(-len(vectors) // self._num_envs_in_all) * episodes + MOST_FAULTS + 1
        found: dict[int, Score]
        while True:
            self._pace.begin()
            try:
                found, standing, faults = self.worker.receive(self._wrong_in_play)
            except WorkerLost as lost:
                self._count(self._fault_in_score(lost), lost)
            else:
                self._where.begin(standing)
                self.note_dropped(faults)
                return found
            before = self._where.now()
            self._where.begin({**before, "episodes": before["episodes"] + most})
            self._replace(steps)
            self.ask_to_score(*self._contest, False)

    def ask_to_load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Has the worker replay its environments; `state` is its part of the sampler's."""
        self._saved = state
        self.worker.board.place[:] = 0
        with contextlib.suppress(WorkerLost):  # `loaded` finds it dead, and goes on with another
            self.worker.ask("load", state)

    def loaded(self) -> str | None:
        """Returns why the environments are not exactly where they were, or None if they are.

        Raises:
            EnvironmentFault: An environment failed too often, or its worker cannot be replaced.
        """
        state = self._saved
        self._pace.begin()
        try:
            why: str | None
            try:
                why = self.worker.receive(self._wrong_in_play)
            except WorkerLost as lost:
                fault = self._fault_in_replay(lost)
                self._count(fault, lost)
                why = f"the environments of a worker that {fault.how} began new episodes"
                self._where.begin({**at_first(len(self.share)), "episodes": state["episodes"] + 1})
                self._replace(int(state["steps"][0]))
            if "episodes" in state:
                self.worker.ask("state", int(state["steps"][0]))
                self._where.take(self.worker.receive())
        except WorkerLost as lost:
            raise self.worker.as_error(lost) from lost
        return why

    def mark(self, steps: int) -> None:
        """Remembers this point in time for `state`, until the next one is marked."""
        self._where.mark(steps)
        self._is_new = False

    def state(
        self, steps: int, obs_layout: ObservationLayout, action_layout: ActionLayout
    ) -> dict[str, NDArray[Any]]:
        """Returns the part of the sampler's state at the point that was marked last.

        The worker is asked only after a contest, whose actions it has for itself. If it is lost then,
        its environments will begin new episodes, which whoever loads the state finds out.

        Args:
            steps: Of that point.
            obs_layout: How observations lie in their rows.
            action_layout: How actions do.

        Raises:
            InvariantBreach: Another point is asked for.
        """
        found = self._where.marked(steps, obs_layout, action_layout)
        if found is not None:
            return found
        try:
            if not self._is_new:
                self.worker.ask("state", steps)
                return dict(self.worker.receive())
        except WorkerLost as lost:
            _LOG.warning(
                "%s is lost (it %s): its environments begin new episodes when the run goes on",
                self.worker.name, lost.how,
            )  # fmt: skip
        return self._where.marked_anew(obs_layout, action_layout)

    def _fault_in_replay(self, lost: WorkerLost) -> Fault:
        env, episode, seed, step, moves = self.worker.board.place.tolist()
        i = env - self.share.start if moves else 0
        since = np.split(self._saved["actions"], np.cumsum(self._saved["replayed"])[:-1])
        return Fault(
            env=self.share.start + i,
            episode=episode,
            seed=seed,
            step=step,
            how=f"{lost.how} while its episodes were replayed",
            report=lost.report,
            actions=since[i][:step],
            num_lost=len(self.share),
        )

    def _wrong_in_play(self) -> str | None:
        """Returns what is wrong with a worker that has not answered yet, or None."""
        moves = int(self.worker.board.place[4])
        return self._pace.look(moves, moves == 0, self.worker.name)

    def _fault_in_score(self, lost: WorkerLost) -> Fault:
        env, episode, seed, step, _ = self.worker.board.place.tolist()
        return Fault(
            env=max(env, self.share.start),
            episode=episode,
            seed=seed,
            step=step,
            how=lost.how,
            report=lost.report,
            actions=np.zeros((0, 1)),  # they went with the worker
            num_lost=1,
        )

    def note_dropped(self, faults: list[Fault]) -> None:
        """Counts what went wrong in environments of the worker, which went on by themselves.

        Raises:
            NumericsError: It was the third time of one environment within an hour.
        """
        self.faults += faults
        for fault in faults:
            if self._ledger.count(fault.env):
                raise too_often(fault)

    def _wrong(self, num_steps: int) -> str | None:
        """Returns what is wrong with a worker that has not answered yet, or None."""
        row, env = self.worker.board.position.tolist()
        is_done = row >= num_steps or row > 0 > env
        return self._pace.look(row * len(self.share) + env, is_done, self.worker.name)

    def arrive(self) -> None:
        """Waits until the first worker has made its environments.

        Raises:
            ClipperError: What went wrong in the worker, or that it hangs or dies again and again.
        """
        self._begin()

    def _replace(self, steps: int) -> None:
        """Starts another worker, in new episodes.

        Raises:
            ClipperError: As `arrive`.
        """
        self._start_anew()
        self._is_new = True
        self._begin("begin", steps, self._where.now()["episodes"])

    def _begin(self, *question: Any) -> None:
        """Waits until the worker has made its environments and done what is asked.

        One that dies meanwhile has begun nothing that counts: it is started again, twice at most.
        """
        for attempt in range(1, MOST_FAULTS + 1):
            look = arriving(self.worker.name, self._timeout)
            try:
                self.worker.receive(look)
                if question:
                    self.worker.ask(*question)
                    self.worker.receive(look)
                return
            except WorkerLost as lost:
                if not lost.is_death or attempt == MOST_FAULTS:
                    raise self.worker.as_error(lost) from lost
                said = f"\n{lost.report.rstrip()}" if lost.report else ""
                _LOG.warning(
                    "%s %s while it made them; it is started again%s",
                    self.worker.name, lost.how, said,
                )  # fmt: skip
                self._start_anew()

    def _start_anew(self) -> None:
        lost, self.worker = self.worker, self._make()
        lost.ask_to_end()
        lost.end()

    def _after(
        self, lost: WorkerLost, policy: ActorCritic, steps: int, num_steps: int
    ) -> Rollout | None:
        """Returns the rows of a lost worker that are good, [T, K], or None; its episodes have ended.

        Raises:
            EnvironmentFault: It was the third time within an hour.
        """
        row, env = self.worker.board.position.tolist()
        if row >= num_steps or row > 0 > env:  # all was collected, but not told
            row, env = min(row, num_steps) - 1, 0
        num_envs = len(self.share)
        before = self._where.now()
        shapes = block_shapes(num_steps, num_envs, policy.obs_layout, policy.action_layout)
        blocks = self.worker.board.arrays(shapes)
        done = blocks[3] | blocks[4]
        fault = self._fault(lost, before, blocks[1], done, max(row, -1), max(env, 0))
        self._count(fault, lost)
        # the observation that a limit cut an episode off in went with the worker: rows from there on
        # are collected anew
        cut = np.flatnonzero(blocks[4][: max(row, 0)].any(1))
        good = int(cut[0]) if len(cut) else max(row, 0)
        kept, standing = None, before
        if good:
            columns = cut_off([b[: good + 1] for b in blocks], before, self.share.start, steps,
                              self._num_envs_in_all)  # fmt: skip
            standing = columns.pop("standing")
            kept = judged(policy, columns)
            begun = before["episodes"].tolist(), before["lengths"].tolist()
            check_finite(kept, policy, *begun, self.share.start)
        # no episode that was begun is begun a second time
        num_begun = done[good : max(row, 0) + 1].sum(0)
        episodes = standing["episodes"] + 1 + num_begun
        self._where.begin({**at_first(num_envs), "episodes": episodes})
        return kept

    def _fault(
        self,
        lost: WorkerLost,
        before: Mapping[str, NDArray[Any]],
        actions: NDArray[Any],
        done: NDArray[np.bool_],
        row: int,
        env: int,
    ) -> Fault:
        ends = np.flatnonzero(done[: max(row, 0), env])
        episode = int(before["episodes"][env]) + len(ends)
        if row < 0:
            step, played = 0, actions[:0, env]
        elif len(ends):
            step, played = row - int(ends[-1]), actions[ends[-1] + 1 : row + 1, env]
        else:
            step = int(before["lengths"][env]) + row + 1
            played = np.concatenate([*self._where.actions_of(env), actions[: row + 1, env]])
        return Fault(
            env=self.share.start + env,
            episode=episode,
            seed=self._seeds.of(self.share.start + env, episode),
            step=step,
            how=lost.how,
            report=lost.report,
            actions=played.copy(),
            num_lost=len(self.share),
        )

    def _count(self, fault: Fault, lost: WorkerLost) -> None:
        """Counts a fault.

        Raises:
            EnvironmentFault: It was the third of its environment within an hour.
        """
        _LOG.warning("%s%s", fault, f"\n{fault.report.rstrip()}" if fault.report else "")
        self.faults.append(fault)
        if self._ledger.count(fault.env):
            error = self.worker.as_error(lost)
            raise EnvironmentFault(
                f"an environment must not fail {MOST_FAULTS} times within an hour, but {fault}"
                f"{': ' + error.message if lost.error is not None else '.'}",
                hint=error.hint,
            ) from lost


def _rollout(columns: dict[str, Any]) -> Rollout:
    """Returns the rollout whose tensors came as arrays."""
    episodes = columns.pop("episodes")
    return Rollout(episodes=episodes, **{k: torch.from_numpy(v) for k, v in columns.items()})
