"""What is measured: every row with the settings that all libraries share, and its goals.

Imported by every runner, in any of the environments: the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STEPS = 100_000
"""Steps from a fresh agent that a training row takes, rounded up to whole rollouts."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters that every library is given; each runner reads them back and compares.

    Attributes:
        env: Gymnasium id.
        normalize: Observations and rewards are divided by running statistics.
        value_weight: Weight of (V - target)^2 in the loss: SB3's vf_coef, half of Clipper's.
        hidden_sizes: Of the actor and of the critic, which share nothing.
    """

    env: str
    num_envs: int
    num_steps: int
    num_epochs: int
    minibatch_size: int
    normalize: bool = False
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.01
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    hidden_sizes: tuple[int, ...] = (64, 64)

    @property
    def rollout_size(self) -> int:
        """Rows of one rollout."""
        return self.num_envs * self.num_steps

    def steps(self, wanted: int) -> int:
        """Returns the steps of a run of at least two rollouts and `wanted` steps."""
        return self.rollout_size * max(-(-wanted // self.rollout_size), 2)

    def updates(self, steps: int) -> int:
        """Returns the optimiser steps of a run of that many steps."""
        return steps // self.rollout_size * self.updates_per_rollout

    @property
    def updates_per_rollout(self) -> int:
        """Optimiser steps after every rollout."""
        return self.num_epochs * (self.rollout_size // self.minibatch_size)


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Bounds that Clipper's figure must keep; None where there is none.

    Attributes:
        alone: Least share of the speed of the environments alone.
        peers: Least multiple of the fastest peer's speed.
        sbx: Least multiple of sbx's speed.
        least: Least value.
        most: Greatest value.
        scaling: Least multiple of its own speed without workers.
    """

    alone: float | None = None
    peers: float | None = None
    sbx: float | None = None
    least: float | None = None
    most: float | None = None
    scaling: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the benchmark.

    Attributes:
        kind: Which measure of the runners it is.
        title: What stands in the table.
        libraries: Who runs it; `alone` is the environments with actions drawn beforehand.
        cores: Cores a measurement may use.
        options: What else a runner must know.
    """

    kind: str
    title: str
    unit: str
    settings: Settings
    libraries: tuple[str, ...]
    goals: Goals = Goals()
    cores: int = 1
    options: dict[str, int | str] = field(default_factory=dict)


_CARTPOLE = Settings(env="CartPole-v1", num_envs=8, num_steps=128, num_epochs=4, minibatch_size=256)
_CARTPOLE_ZOO = Settings(
    env="CartPole-v1", num_envs=8, num_steps=32, num_epochs=20, minibatch_size=256
)
_CHEETAH = Settings(
    env="HalfCheetah-v5", num_envs=1, num_steps=2048, num_epochs=10, minibatch_size=64,
    normalize=True, ent_coef=0.0,
)  # fmt: skip
_LANDER = Settings(
    env="LunarLander-v3", num_envs=16, num_steps=1024, num_epochs=4, minibatch_size=64
)
ROWS = {
    "CartPole-v1": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE,
        title="CartPole-v1, 8 envs x 128 steps, 4 epochs of 256",
        libraries=("alone", "clipper", "sb3", "sbx"),
        goals=Goals(alone=0.65, peers=8),
    ),
    "CartPole-v1-zoo": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE_ZOO,
        title="CartPole-v1, 8 x 32, 20 epochs of 256",
        libraries=("alone", "clipper", "sb3", "sbx"),
        goals=Goals(sbx=6),
    ),
    "HalfCheetah-v5": Row(
        kind="training", unit="steps/s", settings=_CHEETAH,
        title="HalfCheetah-v5, 1 x 2048, 10 epochs of 64, normalised",
        libraries=("alone", "clipper", "sb3", "sbx"),
        goals=Goals(alone=0.75, peers=14),
    ),
    "LunarLander-v3": Row(
        kind="training", unit="steps/s", settings=_LANDER,
        title="LunarLander-v3, 16 x 1024, 4 epochs of 64",
        libraries=("alone", "clipper", "sb3", "sbx"),
        goals=Goals(alone=0.86, peers=3.5),
    ),
}  # fmt: skip
