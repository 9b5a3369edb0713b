"""Runs every kernel of an extension file on odd shapes, with numpy alone: `native_driver.py FILE`.

For the sanitizers, which must be loaded before anything else: torch would drown them in reports.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

HEADS = {"categorical": (0, [3, 2, 17]), "bernoulli": (1, [5]), "gaussian": (2, [6])}


def load(path: str) -> Any:
    """Returns the extension module of a file."""
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lay_out(sizes: list[list[int]], start: int) -> tuple[list[list[tuple[int, ...]]], int]:
    """Returns the layers of every chain with their places, and the number of parameters."""
    chains = []
    for widths in sizes:
        layers = []
        for inputs, outputs in itertools.pairwise(widths):
            layers.append((inputs, outputs, start, start + inputs * outputs))
            start += inputs * outputs + outputs
        chains.append(layers)
    return chains, start


def drive(native: Any, variant: str, head: str, activation: int, shared: bool) -> None:
    """Acts, evaluates and improves with one policy."""
    rng = np.random.default_rng(activation)
    kind, sizes = HEADS[head]
    obs_size, hidden = 5, [33, 64, 7]
    outputs, action_size = sum(sizes), len(sizes) if kind == 0 else sizes[0]
    torso = [obs_size, *hidden] if shared else [obs_size]
    rest = [] if shared else hidden
    chains, size = lay_out([torso, [torso[-1], *rest, outputs], [torso[-1], *rest, 1]], 6)
    flat = rng.normal(0, 0.3, size).astype(np.float32)
    log_std = flat[:6] if kind == 2 else None
    norm = tuple(np.full(obs_size, x, np.float32) for x in (0.1, 0.9, 10.0))
    policy = native.Policy(
        variant, flat, obs_size, activation, tuple(chains), kind, sizes, log_std,
        0 if kind == 2 else -1, norm,
    )  # fmt: skip
    steps, envs = 13, 3
    shape = (steps, envs)
    obs = rng.normal(size=(*shape, obs_size)).astype(np.float32)
    noise = np.empty((*shape, action_size), np.float32)
    native.noise(1, 1, 2**32 - 2, kind == 2, noise)
    actions = np.empty((*shape, action_size), np.float32 if kind == 2 else np.int64)
    log_probs, values, next_values = (np.empty(shape, np.float32) for _ in range(3))
    act = native.Stepper(policy, obs, noise, actions, log_probs, values)
    for t in range(steps):
        act(t)
    policy.act(obs, None, np.empty_like(actions))
    policy.evaluate(obs, actions, log_probs, values)
    policy.evaluate(obs, None, None, next_values)
    ends = rng.random((2, *shape)) < 0.2
    final_at = np.argwhere(ends.any(0))
    final_obs = np.zeros((len(final_at), obs_size), np.float32)
    rewards = rng.normal(size=shape).astype(np.float32)
    rollout = native.Rollout(
        obs, actions, log_probs, rewards, values, next_values, ends[0], ends[1], final_obs,
        final_at, obs[-1], np.array([True, False, True]),
    )  # fmt: skip
    for surrogate in range(6):  # every one with another estimator
        settings = native.Settings(
            surrogate=surrogate, clip_range=0.2, dual_clip=3.0, kl_coef=1.0, vf_coef=0.5,
            ent_coef=0.01, clip_value=0.1, normalize_advantage=True, num_epochs=3,
            minibatch_size=13, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-5,
            max_grad_norm=0.5, target_kl=10.0, recompute_advantages=True, ratio_tolerance=0.0,
            seed=3, purpose=3, iteration=1, estimator=surrogate, gamma=0.99, gae_lambda=0.95,
            num_return_steps=3, num_threads=2,
        )  # fmt: skip
        policy.evaluate(obs, actions, log_probs, values)
        done = native.improve(
            policy, rollout, settings, np.zeros_like(flat), np.zeros_like(flat), 0,
            np.empty((9, 7)), np.empty(9), *np.empty((2, 39), np.float32), np.empty(39, np.bool_),
            np.empty(3),
        )  # fmt: skip
        *counts, _, estimate_seconds, kl = done
        assert counts == [9, 9, 3, 0], done
        assert estimate_seconds > 0
        assert (kl > 0) == (surrogate == 3)
        assert np.isfinite(flat).all()


def play(native: Any, task: Path) -> None:
    """Collects, steps, replays and fails in the environments of a library: 2 actions or 3, or Box."""
    obs_size, sizes = {"cartpole": (4, [2]), "acrobot": (6, [3])}.get(task.stem, (3, [1]))
    is_box = task.stem == "pendulum"
    chains, size = lay_out([[obs_size], [obs_size, 8, sizes[0]], [obs_size, 8, 1]], 0)
    flat = np.random.default_rng(0).normal(0, 0.3, size + 1).astype(np.float32)
    policy = native.Policy(
        native.variants()[0], flat, obs_size, 0, tuple(chains), 2 if is_box else 0, sizes,
        flat[-1:] if is_box else None, -1, None,
    )  # fmt: skip
    steps, envs = 600, 3
    states = (
        np.zeros((envs, obs_size), np.float32),
        np.zeros(envs),
        *np.zeros((2, envs), np.int64),
    )
    batch = native.Envs(
        path=str(task), options="{}", max_episode_steps=150, seed=1, purpose=2, first_env=1,
        action_size=1, scale=(False, [[-2.0], [2.0], [2.0], [0.0]]) if is_box else None,
        obs=states[0], returns=states[1], lengths=states[2], episodes=states[3],
    )  # fmt: skip
    assert all(batch.begin(i) for i in range(envs))
    obs = np.empty((steps, envs, obs_size), np.float32)
    noise = np.empty((steps, envs, 1), np.float32)
    native.noise(1, 1, 0, is_box, noise, 1)
    actions = np.empty((steps, envs, 1), np.float32 if is_box else np.int64)
    columns = [np.empty((steps, envs), np.float32) for _ in range(3)]
    flags = np.zeros((2, steps, envs), np.bool_)
    act = native.Stepper(policy, obs, noise, actions, *columns[:2])
    assert batch.collect(act, obs, columns[2], *flags)
    final_obs = np.empty((len(batch.endings()), obs_size), np.float32)
    batch.final_obs(final_obs)
    assert len(final_obs) == flags.any(0).sum() >= 3 * envs
    assert batch.step(actions[0], columns[2][0], *flags[:, 0])
    assert batch.begin(0)
    assert batch.replay(0, np.ascontiguousarray(actions[:5, 0]))


def loop(native: Any, action_type: Any) -> None:
    """Collects from environments in Python: plain answers, odd ones, endings, and an error."""
    steps, envs, obs_size = 40, 3, 2
    now, returns, lengths = (
        np.zeros((envs, obs_size), np.float32),
        np.zeros(envs),
        np.zeros(envs, int),
    )
    is_box = action_type is not None
    shape = (steps, envs)
    found = native.GymLoop(
        obs=now, returns=returns, lengths=lengths, obs_type=np.dtype(np.float64),
        choices=None if is_box else [np.int64(0), np.int64(1)],
        scale=(False, [[-1.0] * 3, [1.0] * 3, [0.5] * 3, [0.1] * 3]) if is_box else None,
        action_type=np.dtype(action_type) if is_box else None, action_shape=[3, 1] if is_box else [],
    )  # fmt: skip
    actions = np.ones((*shape, 3), np.float32) if is_box else np.ones((*shape, 1), np.int64)
    rewards, obs = np.zeros(shape, np.float32), np.zeros((*shape, obs_size), np.float32)
    flags = np.zeros((2, *shape), np.bool_)
    ended: list[tuple[int, int]] = []
    count = 0

    def step(action: Any) -> Any:
        nonlocal count
        count += 1
        seen = np.arange(4.0)[::2]
        if count == 200:
            raise KeyError(count)
        return (seen, np.float32(1), count % 7 == 0, np.False_, {}) if count % 5 else [0] * 5

    def read(i: int, answer: Any) -> Any:
        now[i] = 1
        return 1.0, False, False, None

    def end(t: int, i: int, terminated: bool, info: Any) -> None:
        ended.append((t, i))
        lengths[i] = 0

    blocks = (obs, actions, rewards, *flags)
    calls = (lambda t: None, [step] * envs, np.array([0, 3, 0]), list, read, end)
    found.collect(*calls, *blocks)
    assert np.argwhere(flags.any(0)).tolist() == [list(at) for at in ended]
    assert len(ended) > steps / 3
    try:
        found.collect(*calls, *blocks)
    except KeyError:
        assert found.stepping == (200 - 1) % envs
    else:
        raise AssertionError("the error must pass through")


def main() -> None:
    """Drives every variant, head and activation."""
    native = load(sys.argv[1])
    for variant in native.variants():
        for head, activation, shared in itertools.product(HEADS, range(5), (False, True)):
            drive(native, variant, head, activation, shared)
    for name in ("cartpole", "acrobot", "pendulum"):
        play(native, Path(sys.argv[1]).with_name(f"{name}.so"))
    for action_type in (None, np.float32, np.float64):
        loop(native, action_type)
    print("fine:", " ".join(native.variants()))


if __name__ == "__main__":
    main()
