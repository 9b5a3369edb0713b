"""The native engine against torch in float64, over random architectures, heads and settings.

Errors are relative and norm-wise. The same rollout is given to both; the reference policy is the
native one's copy in float64, so that the only difference is rounding.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipper.advantages import estimate
from clipper.algorithms.ppo import PPO
from clipper.config import Estimator
from clipper.config_ppo import Objective
from clipper.engine import kernels
from clipper.engine.native import NativeEngine
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose
from clipper.rollout import Rollout, epoch_order
from helpers import ACTION_SPACES, flat_parameters, learner, random_rollout, small_policy

pytestmark = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))
VARIANTS = kernels.compiled.variants() if kernels.ABSENCE is None else []
NUM_STEPS, NUM_ENVS = 33, 4
OBJECTIVES, ESTIMATORS = get_args(Objective), get_args(Estimator)
widths = st.lists(st.integers(1, 70), max_size=3).map(tuple)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes every engine of the test use one of the instruction sets of this machine."""
    monkeypatch.setenv(kernels.VARIANT_VARIABLE, request.param)
    return str(request.param)


@dataclass
class Pair:
    """The same policy in both engines, and a rollout of it."""

    fast: PPO
    exact: PPO
    rollout: Rollout

    @property
    def engine(self) -> NativeEngine:
        assert isinstance(self.fast.engine, NativeEngine)
        return self.fast.engine


def make_pair(network: dict[str, Any], **changes: Any) -> Pair:
    policy = small_policy(**network, dtype=torch.float32)
    if policy.normalizer is not None:
        seen = torch.randn(20, 3, network["obs_size"], generator=torch.Generator().manual_seed(7))
        policy.merge_observations(3.0 * seen + 1.0)
    exact = copy.deepcopy(policy).double()
    common = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "minibatch_size": 66, **changes}
    rollout = random_rollout(exact, num_steps=NUM_STEPS, num_envs=NUM_ENVS, obs_mean=0.5)
    fast = learner(policy, **common, engine="native")
    return Pair(fast, learner(exact, **common, engine="reference"), rollout)


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """Draws an architecture with any head."""
    shared = draw(st.booleans())
    return {
        "kind": draw(st.sampled_from(sorted(ACTION_SPACES))),
        "obs_size": draw(st.integers(1, 40)),
        "hidden_sizes": draw(widths),
        "value_hidden_sizes": () if shared else draw(widths),
        "activation": draw(st.sampled_from(["tanh", "relu", "elu", "silu", "gelu"])),
        "shared_torso": shared,
        "normalize_obs": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


@st.composite
def objectives(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draws settings of the update with one of the policy objectives."""
    advantage = draw(st.sampled_from(ESTIMATORS))
    own: dict[str, Any] = {"objective": name, "advantage": advantage}
    if name.startswith("kl"):
        own["kl_coef"] = draw(st.sampled_from([0.3, 10.0]))
    if name == "dual_clip":
        own["dual_clip"] = draw(st.sampled_from([1.1, 3.0]))
    if advantage == "n_step":
        own["advantage_steps"] = draw(st.sampled_from([1, 3, 100]))
    return own | {
        "clip_range": draw(st.sampled_from([0.05, 0.2, 0.6])),
        "vf_coef": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "ent_coef": draw(st.sampled_from([0.0, 0.01, 0.3])),
        "clip_value": draw(st.sampled_from([None, 0.05, 1.0])),
        "normalize_advantage": draw(st.sampled_from(["minibatch", "none"])),
        "max_grad_norm": draw(st.sampled_from([None, 0.05, 0.5])),
        "recompute_advantages": draw(st.booleans()),
        "normalize_reward": draw(st.booleans()),
        "gamma": draw(st.sampled_from([0.9, 1.0])),
        "gae_lambda": draw(st.sampled_from([0.0, 0.95])),
        "adam_betas": draw(st.sampled_from([(0.9, 0.999), (0.0, 0.9)])),
    }


def error(found: Tensor, expected: Tensor) -> float:
    """Returns the norm of the difference relative to that of the expected."""
    difference = float((found.double() - expected.double()).norm())
    return difference / max(float(expected.double().norm()), 1e-30)


many = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
some = settings(many, max_examples=8)  # of every objective
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


@many
@given(networks())
def test_log_probs_and_values(variant: str, network: dict[str, Any]) -> None:
    """Within 1e-5 of torch in float64."""
    pair = make_pair(network)
    log_probs, values = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
    assert error(log_probs, pair.rollout.log_probs) < 1e-5
    assert error(values, pair.rollout.values) < 1e-5
    assert torch.equal(values, pair.fast.policy.values(pair.rollout.obs))


@torch.no_grad()
def old_distribution(other: ActorCritic, obs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns another policy's parameters [B, P], and the same as the native engine keeps them."""
    params, _ = other(obs)
    if other.log_std is not None:
        log_std = other.log_std + torch.linspace(-0.5, 0.5, len(other.log_std)).double()
        mean = params[:, : len(log_std)]
        return torch.cat([mean, log_std.expand_as(mean)], -1), mean, log_std
    sizes = other.action_layout.num_categories
    if not sizes:
        return params, params, None
    heads = [torch.log_softmax(head, -1) for head in params.split(list(sizes), -1)]
    return params, torch.cat(heads, -1), None


@every_objective
@some
@given(data=st.data(), network=networks(), size=st.integers(1, NUM_STEPS * NUM_ENVS))
def test_losses_and_gradients(
    variant: str, name: str, data: st.DataObject, network: dict[str, Any], size: int
) -> None:
    """Loss, its parts and its gradient are autograd's within 1e-5, away from the old policy too.

    The distributions that the KL penalty compares with are those of another policy.
    """
    objective = data.draw(objectives(name))
    pair = make_pair(network, **objective)
    rng = np.random.default_rng(size)
    moved = replace(
        pair.rollout,
        log_probs=pair.rollout.log_probs + torch.from_numpy(rng.normal(0, 0.3, (33, 4))),
        values=pair.rollout.values + torch.from_numpy(rng.normal(0, 0.3, (33, 4))),
    )
    order = rng.permutation(moved.num_rows)[:size]
    clip_range = objective["clip_range"]
    other = make_pair(network | {"seed": network["seed"] + 1}).exact.policy
    obs = pair.exact.policy.normalize(moved.obs)
    params, old_params, old_log_std = old_distribution(other, obs.flatten(0, 1))
    batch = pair.exact.judge(moved, obs, params)
    loss, report = pair.exact.loss(next(batch.shuffled(size, order)), clip_range)
    parameters = list(pair.exact.policy.parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    expected = torch.cat([grad.reshape(-1) for grad in grads])

    rewards = pair.exact.scaled_rewards(moved)
    config = pair.fast.config
    grad, found = pair.engine.gradient(
        moved, rewards, config, clip_range, config.first_kl_coef, order, old_params, old_log_std
    )
    assert error(found, report) < 1e-5
    # a gradient that cancels out (one row, normalised) is rounding, whose scale is the loss
    assert float((grad - expected).norm()) < 1e-5 * max(float(expected.norm()), 1e-2)


@pytest.mark.parametrize("kind", sorted(ACTION_SPACES))
@pytest.mark.parametrize("name", ["clip", "dual_clip"])
def test_the_clip_cuts_exactly(variant: str, name: str, kind: str) -> None:
    """A row beyond the clip moves nothing at all: A > 0, rho > 1 + eps; A < 0, rho < 1 - eps.

    Of dual_clip also A < 0, rho > 3. Every other row moves the policy.
    """
    network = {"kind": kind, "obs_size": 4, "hidden_sizes": (9,)}
    plain = {"ent_coef": 0.0, "vf_coef": 0.0, "normalize_advantage": "none", "advantage": "td"}
    pair = make_pair(network, **plain, objective=name)
    log_probs, _ = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
    advantages = pair.fast.judge(pair.rollout, pair.rollout.obs).advantages.tolist()
    for row, rho in enumerate([0.5, 0.79, 0.81, 1.19, 1.21, 2.9, 3.1] * 18):
        ratios = torch.full_like(log_probs, rho)
        moved = replace(pair.rollout, log_probs=log_probs - ratios.log())
        grad, _ = pair.engine.gradient(
            moved, moved.rewards, pair.fast.config, 0.2, 1.0, np.array([row])
        )
        a = advantages[row]
        is_cut = (a > 0 and rho > 1.2) or (a < 0 and rho < 0.8)
        is_cut = is_cut or (name == "dual_clip" and a < 0 and rho > 3)
        assert bool((grad == 0).all()) == is_cut, (a, rho)


@every_objective
@some
@given(data=st.data(), network=networks())
def test_ten_updates(variant: str, name: str, data: st.DataObject, network: dict[str, Any]) -> None:
    """Five epochs of two minibatches end within 1e-4 of torch in float64, metrics included."""
    objective = data.draw(objectives(name))
    pair = make_pair(network, **objective, num_epochs=5, learning_rate=1e-3)
    log_probs, values = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
    own = replace(pair.rollout, log_probs=log_probs, values=values)
    found, expected = pair.fast.improve(own, 0.3), pair.exact.improve(pair.rollout, 0.3)
    assert error(flat_parameters(pair.fast.policy), flat_parameters(pair.exact.policy)) < 1e-4
    for part in ("m", "v"):
        state, exact = pair.fast.engine.state_dict(), pair.exact.engine.state_dict()
        assert error(state[part], exact[part]) < 1e-3
    assert pair.fast.engine.num_updates == pair.exact.engine.num_updates == 10
    assert found.keys() == expected.keys()
    for metric, value in expected.items():
        if metric not in ("policy/first_ratio_error", "policy/clip_fraction"):
            assert found[metric] == pytest.approx(value, rel=1e-3, abs=1e-5), metric
    assert found["policy/first_ratio_error"] == 0.0


@pytest.mark.parametrize("target_kl", [1e-3, 1e-2])
def test_the_kl_stops_at_the_same_minibatch(variant: str, target_kl: float) -> None:
    """The minibatch that has moved too far is reported and not learnt from, as in torch."""
    network = {"kind": "discrete", "obs_size": 3, "hidden_sizes": (16,)}
    pair = make_pair(network, target_kl=target_kl, num_epochs=10, learning_rate=1e-2)
    log_probs, values = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
    own = replace(pair.rollout, log_probs=log_probs, values=values)
    found, expected = pair.fast.improve(own, 0.0), pair.exact.improve(pair.rollout, 0.0)
    assert 0 < pair.exact.engine.num_updates < 20
    assert pair.fast.engine.num_updates == pair.exact.engine.num_updates
    assert error(flat_parameters(pair.fast.policy), flat_parameters(pair.exact.policy)) < 1e-4
    for name in ("policy/epochs", "policy/approx_kl"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("adam_eps", [1e-5, 1e-2])
def test_a_step_of_adam(variant: str, adam_eps: float, max_grad_norm: float | None) -> None:
    """What ten updates move is what torch.optim.Adam moves, on gradients clipped by torch.

    The larger epsilon is as large as the gradients' roots are: another place of it, before the bias
    is corrected or within the root, would halve or double the steps; so would no clipping.
    """
    how = {"num_epochs": 5, "learning_rate": 1e-3, "target_kl": None}
    network = {"kind": "discrete", "obs_size": 3, "hidden_sizes": (16,)}
    pair = make_pair(network, adam_eps=adam_eps, max_grad_norm=max_grad_norm, **how)
    exact = pair.exact
    start = flat_parameters(exact.policy)
    normalized_obs = exact.policy.normalize(pair.rollout.obs)
    batch = exact.judge(pair.rollout, normalized_obs)
    parameters = list(exact.policy.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-3, eps=adam_eps)
    for epoch in range(5):
        order = epoch_order(0, 0, epoch, pair.rollout.num_rows)
        for minibatch in batch.shuffled(66, order):
            adam.zero_grad(set_to_none=False)
            exact.loss(minibatch, exact.config.clip_range.at(0.0))[0].backward()
            if max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            adam.step()
    log_probs, values = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
    pair.fast.improve(replace(pair.rollout, log_probs=log_probs, values=values), 0.0)
    moved = flat_parameters(pair.fast.policy).double() - start
    assert error(moved, flat_parameters(exact.policy) - start) < 2e-3


@pytest.mark.parametrize("kind", sorted(ACTION_SPACES))
def test_a_row_does_not_depend_on_the_rows_beside_it(variant: str, kind: str) -> None:
    """One row at a time gives the same bits as 132 rows, in actions, log-probabilities and values."""
    network = {"kind": kind, "obs_size": 5, "hidden_sizes": (33, 64), "normalize_obs": True}
    pair = make_pair(network)
    policy, obs = pair.fast.policy, pair.rollout.obs.flatten(0, 1)
    noise = torch.rand(len(obs), policy.distribution.noise_size)
    actions = torch.from_numpy(policy.act(obs.numpy(), noise))
    log_probs, values = policy.evaluate(obs, actions)
    for size in (1, 3, 8, 40):
        parts = [slice(start, start + size) for start in range(0, len(obs), size)]
        acted = [torch.from_numpy(policy.act(obs[part].numpy(), noise[part])) for part in parts]
        judged = [policy.evaluate(obs[part], actions[part]) for part in parts]
        assert torch.equal(torch.cat(acted), actions)
        assert torch.equal(torch.cat([each[0] for each in judged]), log_probs)
        assert torch.equal(torch.cat([each[1] for each in judged]), values)


@pytest.mark.parametrize("kind", sorted(ACTION_SPACES))
def test_what_is_judged_while_acting_is_what_is_judged_afterwards(variant: str, kind: str) -> None:
    """Step by step in 3 environments: the same bits as one pass over all rows."""
    network = {"kind": kind, "obs_size": 5, "hidden_sizes": (16, 20), "normalize_obs": True}
    policy = make_pair(network).fast.policy
    obs = np.random.default_rng(1).normal(size=(7, 3, 5)).astype(np.float32)
    noise = policy.noise(4, Purpose.ACTION, 0, 7, 3)
    layout = policy.action_layout
    actions = np.zeros((7, 3, layout.size), dtype=layout.dtype)
    play = policy.play(obs, noise, actions)
    for t in range(7):
        play.act(t)
    np.testing.assert_array_equal(
        actions.reshape(21, -1),
        policy.act(obs.reshape(21, 5), torch.from_numpy(noise.reshape(21, -1))),
    )
    found = play.judgement(len(obs))
    expected = policy.evaluate(torch.from_numpy(obs), torch.from_numpy(actions))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@every_objective
@some
@given(data=st.data(), network=networks())
def test_one_thread_or_two(
    variant: str, name: str, data: st.DataObject, network: dict[str, Any]
) -> None:
    """Actor and critic side by side end in the bits of one thread: state, reports and norms."""
    objective = data.draw(objectives(name))
    ends, metrics = [], []
    for num_threads in (1, 2):
        pair = make_pair(network, **objective, num_epochs=3, learning_rate=1e-3)
        pair.engine.num_threads = num_threads
        log_probs, values = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
        own = replace(pair.rollout, log_probs=log_probs, values=values)
        metrics.append(pair.fast.improve(own, 0.3))
        ends.append(pair.fast.state_dict())
    for part in ("policy", "engine"):
        for key, tensor in ends[0][part].items():
            assert torch.equal(tensor, ends[1][part][key]), key
    np.testing.assert_equal(metrics[0], metrics[1])


def test_the_same_call_gives_the_same_bits(variant: str) -> None:
    """Two engines from the same weights end in the same bits, as do two halves of a block."""
    network = {"kind": "box", "obs_size": 7, "hidden_sizes": (64, 64), "normalize_obs": True}
    ends = []
    for _ in range(2):
        pair = make_pair(network, num_epochs=3)
        log_probs, _ = pair.fast.policy.evaluate(pair.rollout.obs, pair.rollout.actions)
        pair.fast.improve(replace(pair.rollout, log_probs=log_probs), 0.0)
        ends.append(pair.fast.state_dict())
    assert torch.equal(ends[0]["engine"]["v"], ends[1]["engine"]["v"])
    for name, tensor in ends[0]["policy"].items():
        assert torch.equal(tensor, ends[1]["policy"][name])


@given(
    st.sampled_from(ESTIMATORS),
    st.tuples(st.integers(1, 40), st.integers(1, 5)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_estimators(
    name: str, shape: tuple[int, int], gamma: float, gae_lambda: float, k: int, seed: int
) -> None:
    """The loops over steps are what advantages.py computes in passes over whole blocks."""
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    endings = [rng.random(shape) < 0.2 for _ in range(2)]
    begins = rng.random(shape[1]) < 0.5
    found, targets = np.empty(shape, np.float32), np.empty(shape, np.float32)
    counted = np.zeros(shape, np.bool_)
    kernels.compiled.estimate(
        kernels.ESTIMATORS.index(name), *columns, *endings, begins, gamma, gae_lambda, k,
        found, targets, counted,
    )  # fmt: skip
    doubles = [torch.from_numpy(column).double() for column in columns]
    bools = [torch.from_numpy(ending) for ending in endings]
    expected = estimate(
        name, *doubles, *bools, torch.from_numpy(begins),
        gamma=gamma, gae_lambda=gae_lambda, num_steps=k,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected.advantages.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(targets, expected.value_targets.numpy(), rtol=1e-4, atol=1e-4)
    if expected.counted is not None:
        np.testing.assert_array_equal(counted, expected.counted.numpy())


def test_an_action_of_nan_is_not_hidden(variant: str) -> None:
    """NaN in, NaN out: a kernel that selected it away would hide a fault."""
    pair = make_pair({"kind": "discrete", "obs_size": 3, "normalize_obs": True})
    obs = pair.rollout.obs.clone()
    obs[3, 1, 0] = torch.nan
    log_probs, values = pair.fast.policy.evaluate(obs, pair.rollout.actions)
    bad = torch.zeros(NUM_STEPS, NUM_ENVS, dtype=torch.bool)
    bad[3, 1] = True
    assert torch.equal(log_probs.isnan(), bad)
    assert torch.equal(values.isnan(), bad)


# --- the books of a rollout -----------------------------------------------------------------------


@settings(max_examples=60)
@given(
    num_steps=st.integers(1, 40),
    num_envs=st.integers(1, 5),
    size=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_observations_are_merged_to_the_bits_of_numpy(
    num_steps: int, num_envs: int, size: int, seed: int
) -> None:
    """Moments, mean and scale after three blocks are those of the normaliser alone, bit for bit."""
    columns = np.random.default_rng(seed).random(size) < 0.7
    columns[0] = True
    fast = small_policy("discrete", obs_size=size, normalize_obs=True, dtype=torch.float32)
    assert fast.normalizer is not None
    fast.normalizer.columns = columns
    alone = copy.deepcopy(fast.normalizer)
    NativeEngine(fast)
    rng = np.random.default_rng(seed)
    for shift in (0.0, 1e4, -3.0):
        block = rng.normal(shift, 2.0, (num_steps, num_envs, size)).astype(np.float32)
        fast.merge_observations(torch.from_numpy(block))
        alone.merge_block(block)
    for name in ("moments", "mean", "inverse_std"):
        found, expected = getattr(fast.normalizer, name), getattr(alone, name)
        assert found.numpy().tobytes() == expected.numpy().tobytes(), name


@settings(max_examples=30)
@given(
    num_steps=st.integers(1, 9),
    num_envs=st.integers(1, 4),
    seed=st.integers(0, 1000),
    end_rate=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_values_of_successors(num_steps: int, num_envs: int, seed: int, end_rate: float) -> None:
    """The next row's value or the last observation's, and the final observation's at an ending."""
    policy = small_policy("discrete", dtype=torch.float32)
    shape = {"num_steps": num_steps, "num_envs": num_envs, "seed": seed, "end_rate": end_rate}
    rollout = random_rollout(policy, **shape)
    at = (rollout.final_obs, rollout.final_at, rollout.last_obs)
    # an oracle by hand: every step in turn
    expected = torch.cat([rollout.values[1:], policy.values(rollout.last_obs)[None]])
    for row, (t, n) in zip(rollout.final_obs, rollout.final_at.tolist(), strict=True):
        expected[t, n] = policy.values(row[None])[0]
    torch.testing.assert_close(policy.next_values(rollout.values, *at), expected)
    NativeEngine(policy)
    torch.testing.assert_close(policy.next_values(rollout.values, *at), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 6, 22])
def test_a_number_that_is_not_finite_is_seen(at: int, bad: float) -> None:
    """Wherever it stands; the largest numbers, whose sum is infinite, are no alarm."""
    policy = small_policy("discrete", dtype=torch.float32)
    NativeEngine(policy)
    blocks = [torch.full((5,), 3e38), torch.zeros(0), torch.full((23,), -3e38)]
    assert policy.are_finite(blocks)
    blocks[2][at] = bad
    assert not policy.are_finite(blocks)
    assert not small_policy("discrete", dtype=torch.float32).are_finite(blocks)


def test_the_fit_of_constant_targets() -> None:
    """Where targets do not vary nothing can be explained; the mean is theirs, the deviation 0."""
    pair = make_pair({"kind": "discrete", "obs_size": 3}, advantage="reward_to_go", gamma=0.0)
    rollout = replace(pair.rollout, rewards=torch.full((NUM_STEPS, NUM_ENVS), 0.1))
    log_probs, values = pair.fast.policy.evaluate(rollout.obs, rollout.actions)
    metrics = pair.fast.improve(replace(rollout, log_probs=log_probs, values=values), 0.0)
    assert np.isnan(metrics["value/explained_variance"])
    assert metrics["value/target_mean"] == pytest.approx(0.1)
    assert metrics["value/target_std"] == pytest.approx(0.0, abs=1e-7)
