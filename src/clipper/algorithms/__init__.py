"""The name of an algorithm in, what trains a policy out; each is one file here, imported at need."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from clipper.config import Config
    from clipper.metrics import Iteration
    from clipper.policies.actor_critic import ActorCritic
    from clipper.profiling import Profiler
    from clipper.sampler import Sampler


class Algorithm(Protocol):
    """What a run asks of an algorithm.

    Attributes:
        policy: What is trained, in place.
        config: Hyperparameters; a run that goes on with another budget sets them anew.
        profiler: What the parts of an iteration are timed with.
    """

    policy: ActorCritic
    config: Any
    profiler: Profiler

    def iterate(self, sampler: Sampler, progress: float) -> Iteration:
        """Collects, learns, and returns what happened.

        Args:
            sampler: Runs the policy in its environments.
            progress: Share of the run that is done, 0 to 1; schedules depend on it.
        """
        ...

    def use_threads(self, num_threads: int) -> None:
        """Lets updates use so many threads, 1 or 2; the bits are the same."""
        ...

    def engine_name(self) -> str:
        """Returns what computes, as runs are marked with: `reference`, `native avx2`."""
        ...

    def describe_engine(self) -> str:
        """Returns the line that names the engine, and why if it is not the native one."""
        ...

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns copies of all that changes during training, by part; one part is `policy`."""
        ...

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets what `state_dict` returned."""
        ...


_HOMES = {
    "ppo": ("clipper.algorithms.ppo", "PPO"),
    "a2c": ("clipper.algorithms.a2c", "A2C"),
    "acer": ("clipper.algorithms.acer", "ACER"),
    "vpg": ("clipper.algorithms.vpg", "VPG"),
    "trpo": ("clipper.algorithms.trpo", "TRPO"),
    "cem": ("clipper.algorithms.cem", "CEM"),
}


def build_algorithm(name: str, policy: ActorCritic, config: Config, seed: int) -> Algorithm:
    """Returns the algorithm of that name, ready to train a policy.

    Args:
        name: As in `clipper.configs.CONFIGS`.
        policy: Trained in place.
        config: Its settings.
        seed: The run's seed; minibatches are a function of it.
    """
    module, kind = _HOMES[name]
    algorithm: Algorithm = getattr(import_module(module), kind)(
        policy, config, config.num_envs, seed
    )
    return algorithm
