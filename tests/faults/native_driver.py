"""Runs all that an extension file can do on odd shapes, with numpy alone: `native_driver.py FILE`.

For the sanitizers, which must be loaded before anything else: torch would drown them in reports.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

TASKS = {"cartpole": (4, [2]), "acrobot": (6, [3]), "mountain_car": (2, [3]), "pendulum": (3, [1])}
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
    """Returns the layers of every chain with their places, and the number of parameters.

    The first chain is a torso, whose layers all have an activation; of others the last has none.
    """
    chains = []
    for widths in sizes:
        layers = []
        for outputs_at, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            activated = not chains or outputs_at < len(widths) - 1
            layers.append((inputs, outputs, start, start + inputs * outputs, int(activated)))
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
    steps, shape = 13, (13, 3)
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
    ends = rng.random((2, *shape)) < 0.2
    final_at = np.argwhere(ends.any(0))
    final_obs = np.zeros((len(final_at), obs_size), np.float32)
    policy.next_values(values, final_obs, final_at, obs[-1], next_values)
    policy.evaluate(obs, None, None, values)
    rewards = rng.normal(size=shape).astype(np.float32)
    rollout = native.Rollout(
        obs, actions, log_probs, rewards, values, next_values, ends[0], ends[1], final_obs,
        final_at, obs[-1], np.array([True, False, True]),
    )  # fmt: skip
    for surrogate in range(6):  # every one with another estimator
        settings = settings_of(native, surrogate)
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
        old = rng.normal(size=(*shape, outputs)).astype(np.float32)
        differentiate(
            native, policy, rollout, settings, size, old if surrogate == 3 else None, log_std
        )
        if surrogate != 3:
            lose(native, policy, settings, actions, outputs, 6 if kind == 2 else 0)
    if not shared:
        fit(native, policy, obs, actions, rewards, chains[2])


def settings_of(native: Any, surrogate: int) -> Any:
    """Returns settings with which nothing is switched off."""
    return native.Settings(
        surrogate=surrogate, clip_range=0.2, dual_clip=3.0, kl_coef=1.0, vf_coef=0.5,
        ent_coef=0.01, clip_value=0.1, normalize_advantage=True, num_epochs=3,
        minibatch_size=13, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-5,
        max_grad_norm=0.5, target_kl=10.0, recompute_advantages=True, ratio_tolerance=0.0,
        seed=3, purpose=3, iteration=1, estimator=surrogate, gamma=0.99, gae_lambda=0.95,
        num_return_steps=3, num_threads=2,
    )  # fmt: skip


def differentiate(
    native: Any, policy: Any, rollout: Any, settings: Any, size: int, old: Any, log_std: Any
) -> None:
    """Computes gradients: of few rows and of many, of all of which the targets are asked for."""
    report, grad, targets = np.empty(7), np.empty(size, np.float32), np.empty(39, np.float32)
    for order in (np.array([38]), np.arange(38, -1, -1)):
        native.gradient(policy, rollout, settings, order, report, grad)
        assert np.isfinite(grad).all()
        assert np.isfinite(report).all()
    native.gradient(policy, rollout, settings, order, report, grad, value_targets=targets)
    assert np.isfinite(targets).all()
    if old is None:
        return
    old_log_std = None if log_std is None else log_std + np.float32(0.1)
    native.gradient(policy, rollout, settings, order[:5], report, grad, old, old_log_std, targets)
    assert np.isfinite(grad).all()


def lose(native: Any, policy: Any, settings: Any, actions: Any, outputs: int, learned: int) -> None:
    """Computes the loss of what another network put out, and steps down a gradient."""
    rng = np.random.default_rng(outputs)
    rows = actions.shape[0] * actions.shape[1]
    numbers = [rng.normal(size=rows).astype(np.float32) for _ in range(4)]
    report = np.empty(7)
    for counted in (None, np.arange(rows) % 3 > 0):
        columns = native.Columns(actions, *numbers, counted)
        for order in (np.array([rows - 1]), np.arange(rows)[::-1].copy(), np.arange(rows)[:17]):
            params = rng.normal(size=(len(order), outputs)).astype(np.float32)
            values = params[:, 0].copy()
            grads = np.empty_like(params), np.empty_like(values), np.empty(learned, np.float32)
            native.loss_head(policy, columns, settings, order, params, values, *grads, report)
            assert all(np.isfinite(grad).all() for grad in grads)
    vectors = np.ones((4, 37), np.float32)
    assert native.descend(policy, settings, *vectors, 0, 1.0) == np.sqrt(37)
    assert (vectors[0] < 1).all()
    kept = vectors.copy()
    assert native.descend(policy, settings, *vectors, 1, np.nan) > 0
    assert (vectors == kept).all()


def forth_and_back(native: Any, variant: str, activation: int) -> None:
    """Runs rows through layers one after another, with what is kept and without, and back."""
    rng = np.random.default_rng(activation)
    for widths in ([5, 33, 64, 7], [16, 3], [1, 17, 16]):
        (_, layers, _), size = lay_out([[], widths, []], 0)
        flat = rng.normal(0, 0.3, size).astype(np.float32)
        policy = native.Policy(
            variant, flat, widths[0], activation, ([], layers, []), 0, [widths[-1]], None, -1, None
        )
        for rows in (1, 64, 65, 200):
            x = rng.normal(size=(rows, widths[0])).astype(np.float32)
            grad_y = rng.normal(size=(rows, widths[-1])).astype(np.float32)
            y, alone = np.empty((2, *grad_y.shape), np.float32)
            kept = np.empty(native.kept_size(policy, rows), np.float32)
            native.run(policy, x, kept, y)
            native.run(policy, x, None, alone)
            assert (y == alone).all()
            grad, grad_x = np.empty(size, np.float32), np.empty_like(x)
            native.run_back(policy, x, kept, grad_y, grad_x, grad)
            native.run_back(policy, x, kept, grad_y, None, np.empty_like(grad))
            assert np.isfinite(grad).all()
            assert np.isfinite(grad_x).all()


def fit(native: Any, policy: Any, obs: Any, actions: Any, targets: Any, critic: Any) -> None:
    """Fits V, with a last minibatch that is smaller than the others."""
    size = sum(inputs * outputs + outputs for inputs, outputs, *_ in critic)
    m, v = np.zeros((2, size), np.float32)
    count, loss, is_finite, *_ = native.fit_values(
        policy, obs.reshape(39, -1), actions.reshape(39, -1), targets.reshape(39), m, v, 0,
        num_epochs=2, minibatch_size=16, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8,
        seed=3, purpose=3, iteration=0,
    )  # fmt: skip
    assert count == 2 * 3
    assert is_finite
    assert 0 < loss < np.inf


def count_and_draw(native: Any) -> None:
    """What belongs to no policy: numbers that are drawn, moments, judgements and looks at blocks."""
    # Salmon et al. 2011, the known answer for zeros
    assert native.philox(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    for size in (0, 1, 7, 1000):
        order = np.empty(size, np.int64)
        native.permutation(2**64 - 1, 3, 1, 2**40, order)
        assert sorted(order) == list(range(size))
    rng = np.random.default_rng(0)
    for columns in (1, 3, 17):
        obs = rng.normal(size=(5, 3, columns)).astype(np.float32)
        state, mean, inverse_std = np.zeros(1 + 2 * columns), *np.empty((2, columns), np.float32)
        native.merge_observations(obs, state, np.arange(columns) % 2 == 0, mean, inverse_std)
        assert state[0] == 15
        np.testing.assert_allclose(state[1 : 1 + columns], obs.mean((0, 1)), atol=1e-6)
        high = obs.max((0, 1))
        assert native.first_outside(obs, obs.min((0, 1)), high) == -1
        obs[-1, -1, -1] = high[-1] + 1
        assert native.first_outside(obs, obs.min((0, 1)), high) == obs.size - 1
        assert native.are_finite([obs, np.empty(0, np.float32), mean])
        obs[-1, -1, -1] = -np.inf
        assert not native.are_finite([mean, obs])
    for shape, estimator in itertools.product(((1, 1), (13, 3)), range(6)):
        rewards, values, next_values = rng.normal(size=(3, *shape)).astype(np.float32)
        ends, begins = rng.random((2, *shape)) < 0.2, np.ones(shape[1], np.bool_)
        found = np.empty((2, *shape), np.float32)
        native.estimate(
            estimator, rewards, values, next_values, *ends, begins, 0.99, 0.95, 3, *found,
            np.empty(shape, np.bool_),
        )  # fmt: skip
        assert np.isfinite(found).all()


def play(native: Any, task: Path) -> None:
    """Collects, steps, replays and fails in the environments of a library: 2 actions or 3, or Box."""
    obs_size, sizes = TASKS[task.stem]
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
    assert batch.collect(act, obs, columns[2], *flags, np.zeros(2, np.int64), None)
    final_obs = np.empty((len(batch.endings()), obs_size), np.float32)
    batch.final_obs(final_obs)
    assert len(final_obs) == flags.any(0).sum() >= 3 * envs
    assert batch.step(actions[0], columns[2][0], *flags[:, 0])
    batch.reseed(0, 2**64 - 1)
    assert batch.begin(0)
    assert batch.replay(0, np.ascontiguousarray(actions[:5, 0]))
    if not is_box:
        return
    # an action that is no number, and with it an observation, which is played again with another
    batch.refuse_not_finite()
    noise[[0, 7, 7, -1], [0, 1, 2, 0]] = np.nan
    dropped, position = [], np.zeros(2, np.int64)

    def drop(t: int, i: int, in_reset: bool, reward: float) -> None:
        assert not in_reset
        assert np.isnan(reward)
        dropped.append((t, i))
        assert position.tolist() == [t, i]
        assert batch.begin(i)
        obs[t, i] = states[0][i]
        noise[t, i] = 0
        act(t)
        assert batch.step_one(
            i, actions[t, i : i + 1], *np.zeros((1, 1), np.float32), *flags[:, t, i : i + 1]
        )
        batch.begin_block()

    assert batch.collect(act, obs, columns[2], *flags, position, drop)
    assert dropped == [(0, 0), (7, 1), (7, 2), (steps - 1, 0)]
    assert np.isfinite(obs).all()


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

    blocks = (obs, actions, rewards, *flags, np.zeros(2, np.int64))
    calls = (
        lambda t: None,
        [SimpleNamespace(step=step)] * envs,
        np.array([0, 3, 0]),
        list,
        read,
        end,
    )
    found.collect(*calls, *blocks, None)
    assert np.argwhere(flags.any(0)).tolist() == [list(at) for at in ended]
    assert len(ended) > steps / 3
    dropped: list[tuple[int, int]] = []

    def spoil(action: Any) -> Any:
        return np.array([0, np.inf]), np.float32(1), False, False, {}

    def drop(t: int, i: int, reward: float) -> None:
        dropped.append((t, i))
        now[i] = reward

    spoilt = (calls[0], [SimpleNamespace(step=spoil)] * envs, *calls[2:])
    found.collect(*spoilt, *blocks, drop)
    assert dropped == list(itertools.product(range(steps), range(envs)))
    assert np.isfinite(obs).all()
    try:
        found.collect(*calls, *blocks, None)
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
        for activation in range(5):
            forth_and_back(native, variant, activation)
    count_and_draw(native)
    for name in TASKS:
        play(native, Path(sys.argv[1]).with_name(f"{name}.so"))
    for action_type in (None, np.float32, np.float64):
        loop(native, action_type)
    print("fine:", " ".join(native.variants()))


if __name__ == "__main__":
    main()
