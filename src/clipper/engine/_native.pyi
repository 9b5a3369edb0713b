"""The kernels in C++; see native/module.cpp. Arrays are C-contiguous and are not copied."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Layer = tuple[int, int, int, int, int]

def variants() -> list[str]: ...
def philox(seed: int, counter: tuple[int, int, int, int]) -> list[int]: ...
def noise(
    seed: int, purpose: int, first_step: int, normal: bool, out: Float32, first_env: int = 0
) -> None: ...
def merge_observations(
    obs: Float32, state: Float64, is_normalized: Bool, mean: Float32, inverse_std: Float32
) -> None: ...
def are_finite(blocks: list[Float32]) -> bool: ...
def watch_exit() -> int: ...
def end_at_second(number: int, grace_seconds: float) -> None: ...
def first_outside(obs: Float32, low: Float32, high: Float32) -> int: ...
def permutation(seed: int, purpose: int, stream: int, index: int, order: Int64) -> None: ...
def estimate(
    estimator: int,
    rewards: Float32,
    values: Float32,
    next_values: Float32,
    terminated: Bool,
    truncated: Bool,
    begins: Bool,
    gamma: float,
    gae_lambda: float,
    num_return_steps: int,
    advantages: Float32,
    value_targets: Float32,
    counted: Bool,
) -> None: ...

class Policy:
    def __init__(
        self,
        variant: str,
        flat: Float32,
        obs_size: int,
        activation: int,
        chains: tuple[list[Layer], list[Layer], list[Layer]],
        head_kind: int,
        sizes: list[int],
        log_std: Float32 | None,
        log_std_param: int,
        normalizer: tuple[Float32, Float32, Float32] | None,
    ) -> None: ...
    def act(self, obs: Float32, noise: Float32 | None, actions: NDArray[Any]) -> None: ...
    def evaluate(
        self,
        obs: Float32,
        actions: NDArray[Any] | None,
        log_probs: Float32 | None,
        values: Float32,
    ) -> None: ...
    def next_values(
        self,
        values: Float32,
        final_obs: Float32,
        final_at: Int64,
        last_obs: Float32,
        next_values: Float32,
    ) -> None: ...

class Stepper:
    def __init__(
        self,
        policy: Policy,
        obs: Float32,
        noise: Float32 | None,
        actions: NDArray[Any],
        log_probs: Float32,
        values: Float32,
    ) -> None: ...
    def __call__(self, t: int) -> None: ...

class Envs:
    def __init__(
        self,
        *,
        path: str,
        options: str,
        max_episode_steps: int,
        seed: int,
        purpose: int,
        first_env: int,
        action_size: int,
        scale: tuple[bool, list[list[float]]] | None,
        obs: Float32,
        returns: Float64,
        lengths: Int64,
        episodes: Int64,
    ) -> None: ...
    def reseed(self, env: int, seed: int) -> None: ...
    def begin(self, env: int) -> bool: ...
    def step(
        self, actions: NDArray[Any], rewards: Float32, terminated: Bool, truncated: Bool
    ) -> bool: ...
    def step_one(
        self,
        env: int,
        action: NDArray[Any],
        reward: Float32,
        terminated: Bool,
        truncated: Bool,
    ) -> bool: ...
    def collect(
        self,
        stepper: Stepper,
        obs: Float32,
        rewards: Float32,
        terminated: Bool,
        truncated: Bool,
        position: Int64,
        drop: Callable[[int, int, bool, float], None] | None,
    ) -> bool: ...
    @property
    def acting_seconds(self) -> float: ...
    def refuse_not_finite(self) -> None: ...
    def begin_block(self) -> None: ...
    def replay(self, env: int, actions: NDArray[Any]) -> bool: ...
    def endings(self) -> list[tuple[int, int, int, int, float, bool]]: ...
    def final_obs(self, out: Float32) -> None: ...
    def failure(self) -> tuple[int, bool, bytes, bool, float]: ...

class GymLoop:
    stepping: int
    def __init__(
        self,
        *,
        obs: Float32,
        returns: Float64,
        lengths: Int64,
        obs_type: np.dtype[Any] | None,
        choices: list[Any] | None,
        scale: tuple[bool, list[list[float]]] | None,
        action_type: np.dtype[Any] | None,
        action_shape: list[int],
    ) -> None: ...
    def collect(
        self,
        act: Callable[[int], None],
        envs: list[Any],
        limits: Int64,
        to_env: Callable[[NDArray[Any]], list[Any]],
        read: Callable[[int, Any], tuple[float, bool, bool, Any]],
        end: Callable[[int, int, bool, Any], None],
        obs: Float32,
        actions: NDArray[Any],
        rewards: Float32,
        terminated: Bool,
        truncated: Bool,
        position: Int64,
        drop: Callable[[int, int, float], None] | None,
    ) -> None: ...

class Rollout:
    def __init__(
        self,
        obs: Float32,
        actions: NDArray[Any],
        log_probs: Float32,
        rewards: Float32,
        values: Float32,
        next_values: Float32,
        terminated: Bool,
        truncated: Bool,
        final_obs: Float32,
        final_at: Int64,
        last_obs: Float32,
        begins: Bool,
    ) -> None: ...

class Settings:
    def __init__(
        self,
        *,
        surrogate: int,
        clip_range: float,
        dual_clip: float,
        kl_coef: float,
        vf_coef: float,
        ent_coef: float,
        clip_value: float | None,
        normalize_advantage: bool,
        num_epochs: int,
        minibatch_size: int,
        learning_rate: float,
        betas: tuple[float, float],
        eps: float,
        max_grad_norm: float | None,
        target_kl: float | None,
        recompute_advantages: bool,
        ratio_tolerance: float,
        seed: int,
        purpose: int,
        iteration: int,
        estimator: int,
        gamma: float,
        gae_lambda: float,
        num_return_steps: int,
        num_threads: int = 1,
    ) -> None: ...

class Columns:
    def __init__(
        self,
        actions: Float32 | Int64,
        log_probs: Float32,
        values: Float32,
        advantages: Float32,
        value_targets: Float32,
        counted: Bool | None,
    ) -> None: ...

def loss_head(
    policy: Policy,
    columns: Columns,
    settings: Settings,
    order: Int64,
    params: Float32,
    values: Float32,
    grad_params: Float32,
    grad_values: Float32,
    grad_log_std: Float32,
    report: Float64,
) -> None: ...
def descend(
    policy: Policy,
    settings: Settings,
    params: Float32,
    grad: Float32,
    m: Float32,
    v: Float32,
    num_updates: int,
    loss: float,
) -> float: ...
def tanh(variant: str, x: Float32, y: Float32) -> None: ...
def improve(
    policy: Policy,
    rollout: Rollout,
    settings: Settings,
    m: Float32,
    v: Float32,
    num_updates: int,
    reports: Float64,
    grad_norms: Float64,
    advantages: Float32,
    value_targets: Float32,
    counted: Bool,
    fit: Float64,
) -> tuple[int, int, int, int, bool, float, float]: ...
def fit_values(
    policy: Policy,
    obs: Float32,
    actions: NDArray[Any],
    targets: Float32,
    m: Float32,
    v: Float32,
    num_updates: int,
    *,
    num_epochs: int,
    minibatch_size: int,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    seed: int,
    purpose: int,
    iteration: int,
) -> tuple[int, float, bool, float, float]: ...
def gradient(
    policy: Policy,
    rollout: Rollout,
    settings: Settings,
    order: Int64,
    report: Float64,
    grad: Float32,
    old_params: Float32 | None = None,
    old_log_std: Float32 | None = None,
    value_targets: Float32 | None = None,
) -> None: ...
def kept_size(policy: Policy, rows: int) -> int: ...
def run(policy: Policy, x: Float32, kept: Float32 | None, y: Float32) -> None: ...
def run_back(
    policy: Policy,
    x: Float32,
    kept: Float32,
    grad_y: Float32,
    grad_x: Float32 | None,
    grad: Float32,
) -> None: ...
