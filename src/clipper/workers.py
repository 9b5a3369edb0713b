"""A policy and environments in worker processes in, one block of experience out.

Each worker holds a share of the environments and a copy of the policy. It collects its whole share
of a rollout by itself: one message with the weights there, one with the experience back, none per
step. This process collects a share too. Seeds and noise depend on an environment's index alone, so
a rollout has the same bits however the environments are shared out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.block_checks import BoundsWatch
from clipper.config import Config
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import EnvSource
from clipper.errors import ConfigError
from clipper.faults import Fault, FaultLedger
from clipper.policies.actor_critic import ActorCritic
from clipper.profiling import NO_STOPWATCH, Profiler
from clipper.rollout import Rollout
from clipper.sampler import LocalSampler, SamplerMark
from clipper.scoring import Score
from clipper.supervision import SupervisedShare
from clipper.worker_handle import Worker, end_all, portable

# what `ReplayableEnvs.state_dict` has one row of for every environment
_PER_ENV = ("episodes", "lengths", "replayed", "returns", "obs")
# what a rollout has [T, N] of
_BLOCKS = ("obs", "actions", "log_probs", "rewards", "terminated", "truncated", "values",
           "next_values")  # fmt: skip


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
        timeout: Seconds after which a worker's step counts as hanging, or None to judge by its pace.
        ledger: Where faults of the environments are counted; None for a new one.

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
        timeout: float | None = None,
        ledger: FaultLedger | None = None,
    ) -> None:
        self.num_envs = num_envs
        self._shares = share_out(num_envs, num_workers, is_isolated)
        self._workers: list[SupervisedShare] = []
        self._profiler: Profiler = NO_STOPWATCH
        self._steps = 0
        self._is_marked = True
        self._local: LocalSampler | None = None
        shares = self._shares
        ledger = FaultLedger() if ledger is None else ledger
        if not is_isolated:
            drops = ledger if config.on_nonfinite == "drop-episode" else None
            self._local = local_sampler(source, shares[0], seed, vectorization, num_envs, drops)
            shares = shares[1:]
        self.obs_layout = policy.obs_layout
        self.action_layout = policy.action_layout
        self._watch = BoundsWatch(self.obs_layout)
        try:
            for number, share in enumerate(shares, start=1):
                payload = (source, share, num_envs, seed, policy, config, vectorization)
                make = partial(Worker, number, share, portable(payload))
                self._workers.append(SupervisedShare(make, share, num_envs, seed, timeout, ledger))
            for supervised in self._workers:
                supervised.arrive()
        except BaseException:
            self.close()
            raise

    def count_time(self, profiler: Profiler) -> None:
        """Has the time of this process's share and of waiting counted from now on, or no more."""
        self._profiler = profiler
        if self._local is not None:
            self._local.count_time(profiler)

    def collect(self, policy: ActorCritic, num_steps: int, *, until_end: bool = False) -> Rollout:
        """Returns what the policy does in `num_steps` steps of every environment.

        A worker that is lost on the way is replaced, see `clipper.supervision`.

        Args:
            policy: Acts.
            num_steps: T.
            until_end: Stop sooner, when an episode ends; of one environment alone.

        Raises:
            EnvironmentFault: An environment of this process raised or broke the contract, or one of a
                worker failed too often.
            NumericsError: A number in the block is not finite.
        """
        weights = {name: tensor.numpy(force=True) for name, tensor in policy.tensors().items()}
        for supervised in self._workers:
            supervised.ask_to_collect(weights, num_steps, until_end)
        rollouts = []
        if self._local is not None:  # while the workers collect theirs
            rollouts.append(self._local.collect(policy, num_steps, until_end=until_end))
        with self._profiler.part("workers"):
            rollouts += [each.collected(policy, self._steps) for each in self._workers]
        found = joined(rollouts, [share.start for share in self._shares])
        self._watch.look(found, policy, self._steps)
        self._steps += len(found.rewards)
        return found

    def score(
        self,
        policy: ActorCritic,
        vectors: NDArray[np.float32],
        episodes: int,
        budget: int | None = None,
    ) -> dict[int, Score]:
        """Returns what a policy does with each of C parameter vectors; as `LocalSampler.score`.

        A worker that is lost on the way is replaced: what its candidates did went with it, and they
        play again, other episodes.

        Raises:
            EnvironmentFault: An environment of this process raised, or one of a worker failed too often.
            NumericsError: An observation or a reward is not finite.
        """
        weights = {name: tensor.numpy(force=True) for name, tensor in policy.tensors().items()}
        for each in self._workers:
            each.ask_to_score(weights, vectors, episodes, budget, self._is_marked)
        self._is_marked = False
        found: dict[int, Score] = {}
        if self._local is not None:  # while the workers score theirs
            found |= self._local.score(policy, vectors, episodes, budget)
        with self._profiler.part("workers"):
            for each in self._workers:
                found |= each.scored(self._steps)
        self._steps += 1
        return dict(sorted(found.items()))

    def take_faults(self) -> list[Fault]:
        """Returns what went wrong in environments that go on, since this was last asked."""
        found = [] if self._local is None else self._local.take_faults()
        found += [fault for each in self._workers for fault in each.faults]
        for each in self._workers:
            each.faults.clear()
        return found

    def mark(self) -> SamplerMark:
        """Returns this point in time, cheaply, for `state_dict`."""
        # workers mark it before their next contest, and keep it until the mark after this
        self._is_marked = True
        for each in self._workers:
            each.mark(self._steps)
        return SamplerMark(self._steps, None) if self._local is None else self._local.mark()

    def state_dict(self, mark: SamplerMark | None = None) -> dict[str, NDArray[Any]]:
        """Returns all that is needed to go on from a point in time, by default from now.

        Args:
            mark: Now, or the last one that was taken.
        """
        mark = mark or self.mark()
        states = [] if self._local is None else [self._local.state_dict(mark)]
        states += [
            each.state(mark.steps, self.obs_layout, self.action_layout) for each in self._workers
        ]
        names = [name for name in states[0] if name != "steps"]
        joint = {name: np.concatenate([state[name] for state in states]) for name in names}
        return {"steps": states[0]["steps"], **joint}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> str | None:
        """Goes on from a saved point by replaying each environment's actions since its reset.

        A worker that is lost on the way is replaced, and its environments begin new episodes.

        Returns:
            Why the environments are not exactly where they were, or None if they are.

        Raises:
            EnvironmentFault: An environment of a worker failed too often.
        """
        parts = _split_state(state, self._shares)
        self._steps = int(state["steps"][0])
        found: list[str | None] = []
        own = None if self._local is None else parts.pop(0)
        for each, part in zip(self._workers, parts, strict=True):
            each.ask_to_load(part)
        if self._local is not None and own is not None:
            found.append(self._local.load_state_dict(own))
        found += [each.loaded() for each in self._workers]
        return "; ".join(reason for reason in found if reason is not None) or None

    def close(self) -> None:
        """Closes the environments and ends the workers."""
        end_all([each.worker for each in self._workers])
        self._workers = []
        if self._local is not None:
            self._local.close()


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


def joined(rollouts: Sequence[Rollout], first_envs: Sequence[int]) -> Rollout:
    """Returns one rollout of all environments, just as one process would have made it.

    Args:
        rollouts: Shares [T, N_i] in the order of their environments.
        first_envs: Index of each share's first environment.
    """
    # by numpy, which joins small blocks in a third of torch's time
    final_at = np.concatenate([rollout.final_at.numpy() for rollout in rollouts])
    final_at[:, 1] += np.repeat(first_envs, [len(rollout.final_at) for rollout in rollouts])
    # endings stand in the order of their steps, then of their environments
    order = np.lexsort((final_at[:, 1], final_at[:, 0]))
    episodes = [episode for rollout in rollouts for episode in rollout.episodes]

    def joint(name: str, axis: int = 1) -> NDArray[Any]:
        return np.concatenate([getattr(rollout, name).numpy() for rollout in rollouts], axis)

    blocks = {name: torch.from_numpy(joint(name)) for name in _BLOCKS}
    return Rollout(
        **blocks,
        final_obs=torch.from_numpy(joint("final_obs", 0)[order]),
        final_at=torch.from_numpy(final_at[order]),
        last_obs=torch.from_numpy(joint("last_obs", 0)),
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
