"""A policy and environments in worker processes in, one block of experience out.

Each worker holds a share of the environments and a copy of the policy. It collects its whole share
of a rollout by itself: one message with the weights there, one with the experience back, none per
step. This process collects a share too. Seeds and noise depend on an environment's index alone, so
a rollout has the same bits however the environments are shared out.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import torch
from numpy.typing import NDArray

from clipper import errors
from clipper.config import Config
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import EnvSource
from clipper.errors import ConfigError, EnvironmentFault
from clipper.mailbox import mailbox
from clipper.policies.actor_critic import ActorCritic
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import LocalSampler, Rollout, SamplerMark
from clipper.worker_process import START

T = TypeVar("T")

# a worker that was asked to end gets this long
_PATIENCE_SECONDS = 2.0
# what `ReplayableEnvs.state_dict` has one row of for every environment
_PER_ENV = ("episodes", "lengths", "replayed", "returns", "obs")


class ProcessSampler:
    """Collects from environments in this process and in workers, side by side.

    Args:
        source: Where the environments come from; not an instance.
        num_envs: Environments in all, N.
        num_workers: Worker processes, 1 to N - 1; up to N if isolated.
        seed: The run's seed.
        policy: The policy whose copies act; its weights are sent before every rollout.
        config: The settings; workers compute with the same engine.
        vectorization: See `clipper.engine.native_envs.is_native`.
        is_isolated: Steps no environment in this process, so that none can take it down.

    Raises:
        ConfigError: There are more workers than environments to share, or env is an instance.
        EnvironmentFault: An environment could not be built.
    """

    def __init__(
        self,
        source: EnvSource,
        num_envs: int,
        num_workers: int,
        seed: int,
        policy: ActorCritic,
        config: Config,
        vectorization: str = "gymnasium",
        is_isolated: bool = False,
    ) -> None:
        if source.instance is not None:
            raise ConfigError(
                "workers must be 0 when env is an instance, which cannot be in two processes.",
                hint="give a callable that makes environments, for example lambda: MyEnv().",
            )
        self.num_envs = num_envs
        self._shares = share_out(num_envs, num_workers, is_isolated)
        self._workers: list[_Worker] = []
        self._profiler: Profiler = NO_STOPWATCH
        self._steps = 0
        self._local: LocalSampler | None = None
        shares = self._shares
        if not is_isolated:
            self._local = local_sampler(source, shares[0], seed, vectorization, num_envs)
            shares = shares[1:]
        self.obs_layout = policy.obs_layout
        self.action_layout = policy.action_layout
        try:
            for number, share in enumerate(shares, start=1):
                payload = (source, share, num_envs, seed, policy, config, vectorization)
                self._workers.append(_Worker(number, share, _portable(payload)))
            for worker in self._workers:
                worker.receive()  # its environments are built
        except BaseException:
            self.close()
            raise

    def count_time(self, profiler: Profiler) -> None:
        """Has the time of this process's share and of waiting counted from now on, or no more."""
        self._profiler = profiler
        if self._local is not None:
            self._local.count_time(profiler)

    def collect(self, policy: ActorCritic, num_steps: int) -> Rollout:
        """Returns what the policy does in `num_steps` steps of every environment.

        Raises:
            EnvironmentFault: An environment raised or broke the contract, or a worker died.
            NumericsError: A number in the block is not finite.
        """
        weights = {name: tensor.numpy(force=True) for name, tensor in policy.tensors().items()}
        for worker in self._workers:
            worker.ask("collect", weights, num_steps)
        rollouts = []
        if self._local is not None:  # while the workers collect theirs
            rollouts.append(self._local.collect(policy, num_steps))
        with self._profiler.part("workers"):
            answers = [worker.receive() for worker in self._workers]
        rollouts += map(_rollout, answers)
        self._steps += num_steps
        return joined(rollouts, [share.start for share in self._shares])

    def call(self, function: Callable[..., T], policy: ActorCritic, **keywords: Any) -> T:
        """Returns `function(policy, source, **keywords)` of a worker, with its environments.

        Args:
            function: One that can be imported by its name.
            policy: The policy whose weights are sent there.
            **keywords: What it takes besides.

        Raises:
            EnvironmentFault: The worker died, or an environment raised.
        """
        weights = {name: tensor.numpy(force=True) for name, tensor in policy.tensors().items()}
        self._workers[0].ask("call", weights, function, keywords)
        found: T = self._workers[0].receive()
        return found

    def mark(self) -> SamplerMark:
        """Returns this point in time, cheaply, for `state_dict`."""
        return SamplerMark(self._steps, None) if self._local is None else self._local.mark()

    def state_dict(self, mark: SamplerMark | None = None) -> dict[str, NDArray[Any]]:
        """Returns all that is needed to go on from a point in time, by default from now.

        Args:
            mark: Now, or before the rollout that was begun last.

        Raises:
            EnvironmentFault: A worker died, and the state of its environments with it.
        """
        mark = mark or self.mark()
        for worker in self._workers:
            worker.ask("state", mark.steps)
        states = [] if self._local is None else [self._local.state_dict(mark)]
        states += [worker.receive() for worker in self._workers]
        names = [name for name in states[0] if name != "steps"]
        joint = {name: np.concatenate([state[name] for state in states]) for name in names}
        return {"steps": states[0]["steps"], **joint}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> str | None:
        """Goes on from a saved point by replaying each environment's actions since its reset.

        Returns:
            Why the environments are not exactly where they were, or None if they are.
        """
        parts = _split_state(state, self._shares)
        self._steps = int(state["steps"][0])
        found: list[str | None] = []
        own = None if self._local is None else parts.pop(0)
        for worker, part in zip(self._workers, parts, strict=True):
            worker.ask("load", part)
        if self._local is not None and own is not None:
            found.append(self._local.load_state_dict(own))
        found += [worker.receive() for worker in self._workers]
        return "; ".join(reason for reason in found if reason is not None) or None

    def close(self) -> None:
        """Closes the environments and ends the workers."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()
        self._workers = []
        if self._local is not None:
            self._local.close()


class _Worker:
    """A process with a share of the environments, a mailbox there and one back."""

    def __init__(self, number: int, share: range, content: bytes) -> None:
        self._name = f"worker {number}, with the environments {share.start} to {share.stop - 1},"
        self._number = 0
        self._questions, there = mailbox()
        back, self._answers = mailbox()
        descriptors = (there.file, there.pipe, back.file, back.pipe)
        # not by multiprocessing, whose children run an unguarded script a second time; in a session
        # of its own, so that Ctrl-C reaches the parent alone
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(sys.path)]
            + [str(word) for word in (*descriptors, os.getpid())],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,
        )
        there.close()
        back.close()
        self._send(content)

    def ask(self, *question: Any) -> None:
        """Sends a question: its name and its arguments.

        Raises:
            EnvironmentFault: The worker is dead.
        """
        self._send(pickle.dumps(question, protocol=pickle.HIGHEST_PROTOCOL))

    def _send(self, content: bytes) -> None:
        self._number += 1
        try:
            self._questions.write(self._number, content)
        except BrokenPipeError as error:
            raise self._death() from error

    def receive(self) -> Any:
        """Returns the answer to the last question.

        Raises:
            ClipperError: What went wrong in the worker, or that it is dead.
        """
        try:
            _, content = self._answers.read(self._number)
        except EOFError as error:
            raise self._death() from error
        kind, *answer = pickle.loads(content)
        if kind == "answer":
            return answer[0]
        name, message, hint = answer
        raise getattr(errors, name)(message or f"{self._name} must not fail, but did.", hint=hint)

    def _death(self) -> EnvironmentFault:
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            how = "does not answer any more"
        else:
            how = f"ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        return EnvironmentFault(
            f"{self._name} must stay alive, but {how}.",
            hint="an environment may have crashed it, or memory ran out; with workers 0 the "
            "environments are stepped in this process.",
        )

    def ask_to_end(self) -> None:
        """Closes the mailboxes, which a worker takes as the end."""
        self._questions.close()
        self._answers.close()

    def end(self) -> None:
        """Waits a moment for the process, then kills it."""
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def share_out(num_envs: int, num_workers: int, is_isolated: bool = False) -> list[range]:
    """Returns the environments of this process and of each worker, as equal as can be.

    If they are isolated, of the workers alone.

    Raises:
        ConfigError: A worker would have none.
    """
    most = num_envs if is_isolated else num_envs - 1
    if not 0 <= num_workers <= most:
        share = "each worker needs one" if is_isolated else "each process needs one, this one too"
        raise ConfigError(
            f"workers must be from 0 to {'num_envs' if is_isolated else 'num_envs - 1'} = {most}, "
            f"but is {num_workers}.",
            hint=f"{share}; raise num_envs for more workers.",
        )
    num_shares = num_workers + (not is_isolated)
    bounds = [i * num_envs // num_shares for i in range(num_shares + 1)]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


def _portable(payload: tuple[Any, ...]) -> bytes:
    """Returns a pickle that a worker can read, classes of notebooks included."""
    try:
        return bytes(cloudpickle.dumps(payload))
    except Exception as error:
        raise ConfigError(
            "workers need an environment and a policy that can be sent to another process, but "
            f"that raised {type(error).__name__}: {error}.",
            hint="open files, locks and connections within the callable; or set workers to 0.",
        ) from error


def _rollout(columns: dict[str, Any]) -> Rollout:
    """Returns the rollout whose tensors came as arrays."""
    episodes = columns.pop("episodes")
    return Rollout(episodes=episodes, **{k: torch.from_numpy(v) for k, v in columns.items()})


def joined(rollouts: Sequence[Rollout], first_envs: Sequence[int]) -> Rollout:
    """Returns one rollout of all environments, just as one process would have made it.

    Args:
        rollouts: Shares [T, N_i] in the order of their environments.
        first_envs: Index of each share's first environment.
    """
    pairs = zip(rollouts, first_envs, strict=True)
    final_at = torch.cat([r.final_at + torch.tensor([0, first]) for r, first in pairs])
    # endings stand in the order of their steps, then of their environments
    order = np.lexsort((final_at[:, 1].numpy(), final_at[:, 0].numpy()))
    episodes = [episode for rollout in rollouts for episode in rollout.episodes]

    def joint(name: str, dim: int = 1) -> torch.Tensor:
        return torch.cat([getattr(rollout, name) for rollout in rollouts], dim)

    return Rollout(
        obs=joint("obs"),
        actions=joint("actions"),
        log_probs=joint("log_probs"),
        rewards=joint("rewards"),
        terminated=joint("terminated"),
        truncated=joint("truncated"),
        values=joint("values"),
        next_values=joint("next_values"),
        final_obs=joint("final_obs", 0)[order],
        final_at=final_at[order],
        last_obs=joint("last_obs", 0),
        episodes=tuple(episodes[i] for i in order),
    )


def _split_state(
    state: Mapping[str, NDArray[Any]], shares: Sequence[range]
) -> list[dict[str, NDArray[Any]]]:
    """Returns each share's part of what `ProcessSampler.state_dict` returned."""
    parts: list[dict[str, NDArray[Any]]] = []
    for share in shares:
        part = {"steps": state["steps"]}
        if "episodes" in state:
            ends = np.concatenate([[0], np.cumsum(state["replayed"])])
            part |= {name: state[name][share.start : share.stop] for name in _PER_ENV}
            part["actions"] = state["actions"][ends[share.start] : ends[share.stop]]
        parts.append(part)
    return parts
