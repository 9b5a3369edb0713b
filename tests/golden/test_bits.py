"""What short runs learn, to the bit: a change that is to change no number leaves these as they are.

The environments compute in whole numbers and the first weights are fractions of them, so that what
is pinned is Clipper's own arithmetic: it is the same on every machine with the same instruction set.
"""

from __future__ import annotations

import hashlib
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import clipper
from clipper.engine import kernels
from clipper.training_report import Report
from helpers import DictEnv

COMMON: dict[str, Any] = {
    "preset": "none",
    "seed": 4,
    "num_envs": 3,
    "num_steps": 40,
    "num_epochs": 3,
    "minibatch_size": 24,
    "hidden_sizes": (20,),
    "total_timesteps": 5 * 120,
    "eval_every": 0,
    "learning_rate": "linear:1e-2:0",
}


class Grid(gymnasium.Env[Any, Any]):
    """A point on a grid of whole numbers that every number of an action moves, whatever its space.

    Actions are rounded to quarters before they count. An episode terminates far from the origin and
    is truncated after 17 steps.
    """

    def __init__(self, action_space: spaces.Space[Any], dtype: Any = np.float32) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.action_space = action_space
        self.dtype = dtype

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.x, self.y, self.clock = seed % 5 - 2, seed % 7 - 3, 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        moves = [round(4 * float(a)) for a in np.asarray(action).reshape(-1)]
        self.clock += 1
        self.x += sum(moves[0::2]) - 1
        self.y += sum(moves[1::2]) - self.x % 3
        is_far = abs(self.x) > 12 or abs(self.y) > 12
        reward = 1.0 - (abs(self.x) + abs(self.y)) / 8
        return self._obs(), reward, is_far, self.clock == 17, {"is_success": not is_far}

    def _obs(self) -> Any:
        return np.array([self.x / 4, self.y / 4, self.clock / 16], dtype=self.dtype)


def box(low: float, high: float, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, (2,), dtype)


RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "discrete": (lambda: Grid(spaces.Discrete(3)), {}),
    "multi_discrete": (lambda: Grid(spaces.MultiDiscrete([2, 3])), {"clip_value": 0.2}),
    "multi_binary": (lambda: Grid(spaces.MultiBinary(2)), {"shared_torso": True}),
    "box": (lambda: Grid(box(-1, 1)), {"normalize_obs": True, "normalize_reward": True}),
    "box_scaled": (lambda: Grid(box(-0.5, 2), np.float64), {"recompute_advantages": True}),
    "box_unbounded": (lambda: Grid(box(-np.inf, np.inf)), {"target_kl": 0.05}),
    "dict": (DictEnv, {"normalize_obs": True, "hidden_sizes": (20, 20)}),
}
# of each variant of the kernels: episodes and parameters
EXPECTED: dict[str, dict[str, str]] = {
    "avx512": {
        "discrete": "a01b4b7008 35da907cec",
        "multi_discrete": "89ef7d8033 20d0cbcc1c",
        "multi_binary": "71c513bcdc 489720a98f",
        "box": "786afd5f57 5206dbc23c",
        "box_scaled": "a74f99ed62 00893653be",
        "box_unbounded": "5ebebe6e0a d1a192e043",
        "dict": "b1cabb08d4 3b859a3e22",
    },
    "avx2": {
        "discrete": "a01b4b7008 eb378da990",
        "multi_discrete": "89ef7d8033 2032e44560",
        "multi_binary": "71c513bcdc c074f6d090",
        "box": "786afd5f57 a5c75f03b9",
        "box_scaled": "a74f99ed62 af7a698428",
        "box_unbounded": "5ebebe6e0a d4cb7a4320",
        "dict": "b1cabb08d4 e71a80e214",
    },
    "sse2": {
        "discrete": "a01b4b7008 0ff005288a",
        "multi_discrete": "89ef7d8033 6066f8b75f",
        "multi_binary": "71c513bcdc 5a9b2801ee",
        "box": "786afd5f57 71627ba783",
        "box_scaled": "a74f99ed62 b6341da248",
        "box_unbounded": "5ebebe6e0a 1ff09d4c34",
        "dict": "b1cabb08d4 3884e13169",
    },
}


def hashed(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:10]


def learnt(name: str, workers: int) -> str:
    """Returns a short hash of the episodes of a run, and one of what it ends with."""
    make, changes = RUNS[name]
    agent = clipper.PPO(make, workers=workers, **{**COMMON, **changes})
    with torch.no_grad():
        for p in agent.policy.network.parameters():
            p.copy_((torch.arange(p.numel()) * 37 % 101 - 50).reshape(p.shape) / 128)
    episodes: list[bytes] = []

    def keep(report: Report) -> None:
        episodes.append(repr(report.episodes).encode())

    agent.train(progress=False, callback=keep)
    state = agent.policy.state_dict() | agent._run.algorithm.engine.state_dict()
    arrays = [tensor.numpy().tobytes() for tensor in state.values()]
    agent.close()
    return f"{hashed(*episodes)} {hashed(*arrays)}"


def has(variant: str) -> bool:
    return kernels.ABSENCE is None and variant in kernels.compiled.variants()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("variant", EXPECTED)
def test_what_is_learnt_is_the_same_to_the_bit(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five iterations end with the parameters, moments, statistics and episodes that they ended with."""
    if not has(variant):
        pytest.skip(f"this machine cannot run {variant}")
    monkeypatch.setenv(kernels.VARIANT_VARIABLE, variant)
    assert learnt(name, workers=0) == EXPECTED[variant][name]


@pytest.mark.skipif(not has("sse2"), reason="bits are pinned for the variants of x86")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["discrete", "dict"])
def test_workers_learn_the_same_bits(name: str, workers: int) -> None:
    """However the environments are shared out."""
    assert learnt(name, workers) == EXPECTED[kernels.choose_variant()][name]
