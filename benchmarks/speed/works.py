"""What is measured: every row with the settings that all libraries share, and its goals.

Imported by every runner, in any of the environments: the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

STEPS = 100_000
"""Steps from a fresh agent that a training row takes, rounded up to whole rollouts."""
LEAST_SHARE = 0.95
"""Of its core that a measurement must have had; below that it is void."""
LEAST_SHARE_OF_PROCESS = 0.85
"""The same where the start of a process counts, which waits for the disk as well."""
LEAST_SCALING = 1.9
"""Of two independent loops on two cores; below that no figure about two cores means anything."""
TWO_CORES = ("loops", "workers")
"""Those that are measured on two cores."""
PEERS = ("sb3", "sbx", "tianshou", "rejax")
"""Whom Clipper is compared with."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters that every library is given; each runner reads them back and compares.

    Attributes:
        env: Gymnasium id.
        normalize: Observations and rewards are divided by running statistics.
        value_weight: Weight of (V - target)^2 in the loss: SB3's vf_coef, half of Clipper's.
        hidden_sizes: Of the actor and of the critic, which share nothing but convolutions.
        images: Observations are images, and actor and critic share the CNN of Mnih et al. 2015.
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
    images: bool = False

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
        kind: Which measure of the runners it is: `training`, `cores` (the same with and without
            worker processes), `update`, `act`, `gae`, `start`.
        title: What stands in the table.
        libraries: Who runs it; `alone` is the environments with actions drawn beforehand, `loops`
            two such loops at once, `workers` Clipper with a worker process on another core.
        options: What else Clipper is given.
        most_steps: Steps that are enough, where `STEPS` would take minutes.
    """

    kind: str
    title: str
    unit: str
    settings: Settings
    libraries: tuple[str, ...]
    goals: Goals = Goals()
    options: dict[str, int | str] = field(default_factory=dict)
    most_steps: int = STEPS


_CARTPOLE = Settings(env="CartPole-v1", num_envs=8, num_steps=128, num_epochs=4, minibatch_size=256)
_CARTPOLE_ZOO = replace(_CARTPOLE, num_steps=32, num_epochs=20)
_CHEETAH = Settings(
    env="HalfCheetah-v5", num_envs=1, num_steps=2048, num_epochs=10, minibatch_size=64,
    normalize=True, ent_coef=0.0,
)  # fmt: skip
_LANDER = Settings(
    env="LunarLander-v3", num_envs=16, num_steps=1024, num_epochs=4, minibatch_size=64
)
_PONG = Settings(
    env="ALE/Pong-v5", num_envs=8, num_steps=128, num_epochs=4, minibatch_size=256, hidden_sizes=(),
    images=True,
)  # fmt: skip
_BF16: dict[str, int | str] = {"precision": "bf16"}
_NATIVE: dict[str, int | str] = {"vectorization": "native"}
_TORCH = ("alone", "clipper", "sb3", "sbx", "tianshou")
_CORES = ("loops", "clipper", "workers")

ROWS = {
    "CartPole-v1": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE, libraries=_TORCH,
        title="CartPole-v1, 8 envs x 128 steps, 4 epochs of 256",
        goals=Goals(alone=0.65, peers=8),
    ),
    "CartPole-v1-zoo": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE_ZOO, libraries=_TORCH,
        title="CartPole-v1, 8 x 32, 20 epochs of 256",
        goals=Goals(sbx=6),
    ),
    "HalfCheetah-v5": Row(
        kind="training", unit="steps/s", settings=_CHEETAH,
        libraries=("alone", "clipper", "sb3", "sbx"),
        title="HalfCheetah-v5, 1 x 2048, 10 epochs of 64, obs and rewards normalised",
        goals=Goals(alone=0.75, peers=14),
    ),
    "LunarLander-v3": Row(
        kind="training", unit="steps/s", settings=_LANDER, libraries=_TORCH,
        title="LunarLander-v3, 16 x 1024, 4 epochs of 64",
        goals=Goals(alone=0.86, peers=3.5),
    ),
    "CartPole-v1-native": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE, libraries=("clipper", "rejax"),
        title="CartPole-v1 compiled, 8 x 128, 4 epochs of 256",
        goals=Goals(least=380_000), options=_NATIVE,
    ),
    "CartPole-v1-zoo-native": Row(
        kind="training", unit="steps/s", settings=_CARTPOLE_ZOO, libraries=("clipper", "rejax"),
        title="CartPole-v1 compiled, 8 x 32, 20 epochs of 256",
        goals=Goals(least=85_000), options=_NATIVE,
    ),
    "LunarLander-v3-cores": Row(
        kind="cores", unit="steps/s", settings=_LANDER, libraries=_CORES,
        title="LunarLander-v3, 16 x 1024, two cores", goals=Goals(scaling=1.8),
    ),
    "HalfCheetah-v5-cores": Row(
        kind="cores", unit="steps/s", libraries=_CORES,
        settings=replace(_CHEETAH, num_envs=8, num_steps=256),
        title="HalfCheetah-v5, 8 x 256, 10 epochs of 64, two cores", goals=Goals(scaling=1.7),
    ),
    "CartPole-v1-cores": Row(
        kind="cores", unit="steps/s", settings=_CARTPOLE, libraries=_CORES,
        title="CartPole-v1, 8 x 128, two cores", goals=Goals(scaling=1.6),
    ),
    "update-64": Row(
        kind="update", unit="us", settings=replace(_CARTPOLE, minibatch_size=64),
        libraries=("clipper", "sb3", "sbx", "rejax"),
        title="one update, minibatch of 64 (4 observations, 2 actions)", goals=Goals(most=50),
    ),
    "update-256": Row(
        kind="update", unit="us", settings=_CARTPOLE, libraries=("clipper", "sb3", "sbx", "rejax"),
        title="one update, minibatch of 256", goals=Goals(most=150),
    ),
    "module-256": Row(
        kind="update", unit="us", settings=_CARTPOLE, libraries=("clipper", "sb3"),
        title="one update of an own nn.Module, minibatch of 256", goals=Goals(most=500),
        options={"module": "own"},
    ),
    "Pong-v5": Row(
        kind="training", unit="steps/s", settings=_PONG, libraries=("alone", "clipper", "sb3"),
        title="ALE/Pong-v5, 8 x 128, 4 epochs of 256", goals=Goals(least=330), most_steps=8192,
    ),
    "Pong-v5-bf16": Row(
        kind="training", unit="steps/s", settings=_PONG, libraries=("clipper",),
        title="ALE/Pong-v5, the same with bfloat16 products", goals=Goals(least=500),
        options=_BF16, most_steps=8192,
    ),
    "nature-256": Row(
        kind="update", unit="us", settings=_PONG, libraries=("clipper", "sb3"),
        title="one update of the CNN of Mnih et al. 2015, minibatch of 256 (4 x 84 x 84)",
        goals=Goals(most=155_000), most_steps=4096,
    ),
    "nature-256-bf16": Row(
        kind="update", unit="us", settings=_PONG, libraries=("clipper",),
        title="the same with bfloat16 products", goals=Goals(most=90_000), options=_BF16,
        most_steps=4096,
    ),
    "act-1": Row(
        kind="act", unit="us", settings=replace(_CARTPOLE, num_envs=1, minibatch_size=64),
        libraries=("clipper", "sb3", "sbx"),
        title="action, value and log-probability for 1 env", goals=Goals(most=2),
    ),
    "act-8": Row(
        kind="act", unit="us", settings=_CARTPOLE, libraries=("clipper", "sb3", "sbx"),
        title="action, value and log-probability for 8 envs", goals=Goals(most=4),
    ),
    "gae": Row(
        kind="gae", unit="us",
        settings=replace(_CARTPOLE, num_envs=1, num_steps=2048),
        libraries=("clipper", "sb3", "tianshou"),
        title="GAE of 2048 x 1", goals=Goals(most=20),
    ),
    "start": Row(
        kind="start", unit="s", settings=_CARTPOLE,
        libraries=("clipper", "sb3", "sbx", "tianshou"),
        title="from process start to the end of the first iteration of CartPole-v1",
    ),
}  # fmt: skip
