"""Laws of the engine that leaves the network to torch and the loss to the kernels."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch

from clipper.algorithms.ppo import PPO
from clipper.config import Estimator
from clipper.config_ppo import Objective
from clipper.engine import kernels
from clipper.engine.mixed import MixedEngine, covers
from clipper.errors import NumericsError
from helpers import ACTION_SPACES, flat_parameters, learner, random_rollout, small_policy

pytestmark = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))

CASES: dict[str, dict[str, Any]] = {
    **{f"head {kind}": {"kind": kind} for kind in ACTION_SPACES},
    **{
        f"objective {name}": {"objective": name}
        for name in get_args(Objective)
        if not name.startswith("kl")
    },
    **{f"advantage {name}": {"advantage": name} for name in get_args(Estimator)},
    "clip_value": {"clip_value": 0.2},
    "target_kl": {"target_kl": 0.001},
    "no max_grad_norm": {"max_grad_norm": None},
    "small max_grad_norm": {"max_grad_norm": 0.05},
    "advantages as they are": {"normalize_advantage": "none"},
    "recompute_advantages": {"recompute_advantages": True, "kind": "box"},
    "one minibatch": {"minibatch_size": 64},
}


def mixed(ppo: PPO) -> PPO:
    """Returns the learner with this engine in the place of the one it has."""
    assert covers(ppo.policy, ppo.config) is None
    ppo.engine = MixedEngine(ppo.policy, ppo.config)
    return ppo


@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_autograd_in_float64(case: str) -> None:
    """Three epochs of minibatches end at the parameters and numbers that torch finds in float64."""
    settings = {"num_epochs": 3, "learning_rate": 1e-3, **CASES[case]}
    kind = settings.pop("kind", "discrete")
    found = []
    for dtype in (torch.float64, torch.float32):
        policy = small_policy(kind, dtype=dtype)
        ppo = learner(policy, engine="reference", **settings)
        if dtype is torch.float32:
            ppo = mixed(ppo)
        before = flat_parameters(policy)
        metrics = ppo.improve(random_rollout(policy), 0.0)
        found.append((flat_parameters(policy).double(), before.double(), metrics))
    (exact, start, expected), (rounded, _, metrics) = found
    moved = float((exact - start).abs().max())
    assert moved > 1e-4
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.01 * moved + 1e-6)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name


def test_a_fixed_deviation_and_frozen_layers_stay() -> None:
    """What is not to be learned is left alone; all else moves."""
    policy = small_policy("box", dtype=torch.float32)
    assert policy.log_std is not None
    policy.log_std.requires_grad_(False)
    frozen = next(policy.network.parameters()).requires_grad_(False)
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    mixed(learner(policy, engine="reference")).improve(random_rollout(policy), 0.0)
    after = policy.state_dict()
    same = {k for k in before if torch.equal(before[k], after[k])}
    name = next(k for k, v in policy.named_parameters() if v is frozen)
    assert same == {"log_std", name}


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    """NaN in what the network puts out is an error of ours, and the parameters are as before."""
    policy = small_policy("discrete", dtype=torch.float32)
    ppo = mixed(learner(policy, engine="reference", minibatch_size=64))
    rollout = random_rollout(policy)
    rollout.rewards[0, 0] = math.inf
    before = flat_parameters(policy)
    with pytest.raises(NumericsError, match="at update 1"):
        ppo.improve(rollout, 0.0)
    assert torch.equal(flat_parameters(policy), before)


def test_what_is_left_to_torch_is_named() -> None:
    """A KL penalty, float64 and deviations that depend on the state are torch's."""
    single = small_policy("box", dtype=torch.float32)
    ppo = learner(single, engine="reference", objective="kl_fixed")
    assert covers(single, ppo.config) == "the objective is kl_fixed"
    double = small_policy("box")
    assert covers(double, learner(double).config) == "the parameters are float64"
