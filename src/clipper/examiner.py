"""A policy in, what an evaluation of it finds out, from a process that an environment may take down."""

from __future__ import annotations

from typing import Any

from clipper.config import Config
from clipper.envs.make import EnvSource
from clipper.errors import EnvironmentFault
from clipper.evaluation import Evaluation, evaluate
from clipper.pace import Pace, arriving
from clipper.policies.actor_critic import ActorCritic
from clipper.worker_handle import Worker, WorkerLost, portable


class Examiner:
    """Evaluates in a process of its own, which is started when it is needed, and again when it died.

    Args:
        source: Where the environments come from; not an instance.
        config: The settings; the process computes with the same engine.
        seed: The run's seed.
        timeout: Seconds after which a step counts as hanging, or None to judge by the pace.
    """

    def __init__(self, source: EnvSource, config: Config, seed: int, timeout: float | None) -> None:
        self._source = source
        self._config = config
        self._seed = seed
        self._pace = Pace(timeout)
        self._timeout = timeout
        self._worker: Worker | None = None

    def evaluate(self, policy: ActorCritic, **how: Any) -> Evaluation:
        """Returns what `evaluate` finds.

        Args:
            policy: Plays.
            **how: As `evaluate` takes it.

        Raises:
            EnvironmentFault: An environment raised, ended the process or hung; names the episode, its
                step and its seed.
            ConfigError: The environment cannot be sent to another process.
            NumericsError: A reward or observation is not finite.
        """
        if self._worker is None:
            self._worker = self._started(policy)
        worker = self._worker
        weights = {name: tensor.numpy(force=True) for name, tensor in policy.tensors().items()}
        worker.board.place[:] = 0
        self._pace.begin()
        try:
            worker.ask("call", weights, evaluate, how)
            found: Evaluation = worker.receive(self._wrong)
        except WorkerLost as lost:
            if lost.error is not None:  # it told, and is still there
                raise lost.error from lost
            _, episode, seed, step, moves = worker.board.place.tolist()
            self.close()
            at = f"step {step}" if step else "reset"
            where = f"evaluation episode {episode}, {at}, seed {seed}" if moves else "at the start"
            raise EnvironmentFault(
                f"{self._source.name} must neither end its process nor hang, but the process "
                f"{lost.how} ({where}).",
                hint="a debugger sees where without --isolate, or memory ran out.",
            ) from lost
        return found

    def _started(self, policy: ActorCritic) -> Worker:
        payload = (self._source, range(1), 1, self._seed, policy, self._config, "gymnasium")
        worker = Worker(0, range(1), portable(payload))
        worker.name = "the evaluation"
        try:
            worker.receive(arriving(worker.name, self._timeout))
        except BaseException as error:
            worker.ask_to_end()
            worker.end()
            if isinstance(error, WorkerLost):
                raise worker.as_error(error) from error
            raise
        return worker

    def _wrong(self) -> str | None:
        """Returns what is wrong with a process that has not answered yet, or None."""
        assert self._worker is not None
        moves = int(self._worker.board.place[4])
        # environments are made before the first move, which may take its time
        return self._pace.look(moves, moves == 0, self._worker.name)

    def close(self) -> None:
        """Ends the process, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.ask_to_end()
            worker.end()
