"""Objectives and losses against their definitions, and the whole loss's gradient against differences.

Oracles: Python loops over the formulas of MATHS.md, and central finite differences in float64.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from clipper.algorithms.ppo import PPO
from clipper.config_ppo import Objective
from clipper.losses import (
    adapted_kl_coef,
    clip_fraction,
    clip_objective,
    clipped_value_loss,
    cpi_objective,
    dual_clip_objective,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_objective,
    pg_objective,
    spo_objective,
    value_loss,
)
from clipper.rollout import Batch
from helpers import ACTION_SPACES, learner, random_actions, small_policy

EPS = 0.2
KINDS = sorted(ACTION_SPACES)
numbers = st.floats(-10, 10)
ratios = st.floats(0.01, 10)


def doubles(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@given(st.lists(st.tuples(ratios, numbers), min_size=1, max_size=20), st.floats(0.01, 0.9))
def test_clip_objective(rows: list[tuple[float, float]], eps: float) -> None:
    """E[min(rho A, g(eps, A))] with g = (1 + eps) A for A >= 0 and (1 - eps) A for A < 0.

    The second form of the same objective, which knows no clip: a restatement cannot pass by chance.
    """
    expected = mean([min(rho * a, (1 + eps) * a if a >= 0 else (1 - eps) * a) for rho, a in rows])
    rho, advantages = doubles(rows).T
    assert float(clip_objective(rho, advantages, eps)) == pytest.approx(expected, abs=1e-12)


triples = st.lists(st.tuples(ratios, numbers, st.floats(0, 5)), min_size=1, max_size=20)


@given(triples, st.floats(0.01, 0.9), st.floats(1.01, 6), st.floats(0.01, 10))
def test_the_other_objectives(
    rows: list[tuple[float, float, float]], eps: float, c: float, beta: float
) -> None:
    """Row by row in Python floats: rho A; log pi A; rho A - beta KL; the floor c A; SPO's parabola."""
    rho, advantages, kl = doubles(rows).T
    plain = mean([r * a for r, a, _ in rows])
    assert float(cpi_objective(rho, advantages)) == pytest.approx(plain, abs=1e-12)
    penalised = mean([r * a - beta * d for r, a, d in rows])
    found = kl_objective(rho, advantages, kl, beta)
    assert float(found) == pytest.approx(penalised, abs=1e-12)
    # any numbers serve as log-probabilities
    assert float(pg_objective(-kl, advantages)) == pytest.approx(
        mean([-d * a for _, a, d in rows]), abs=1e-12
    )
    floored = []
    for r, a, _ in rows:
        clipped = min(r * a, (1 + eps) * a if a >= 0 else (1 - eps) * a)
        floored.append(max(clipped, c * a) if a < 0 else clipped)
    found = dual_clip_objective(rho, advantages, eps, c)
    assert float(found) == pytest.approx(mean(floored), abs=1e-12)
    parabola = mean([r * a - abs(a) * (r - 1) ** 2 / (2 * eps) for r, a, _ in rows])
    found = spo_objective(rho, advantages, eps)
    assert float(found) == pytest.approx(parabola, rel=1e-12, abs=1e-10)


def test_objectives_worked_out() -> None:
    """Two rows done by hand: rho = 4, A = -1 and rho = 0.5, A = 2, with eps = 0.2 and c = 3."""
    rho, advantages = doubles([4.0, 0.5]), doubles([-1.0, 2.0])
    #   cpi   -4 and 1                                 mean -1.5
    #   clip  min(-4, -1.2) = -4 and min(1, 1.6) = 1   mean -1.5
    #   dual  not below 3 * -1: -3 and 1               mean -1
    #   spo   -4 - 9 / 0.4 = -26.5 and 1 - 2 * 0.25 / 0.4 = -0.25
    #   kl    -4 - 0.5 * 2 = -5 and 1 - 0.5 * 4 = -1 with beta 0.5 and KL 2 and 4
    assert float(cpi_objective(rho, advantages)) == -1.5
    assert float(clip_objective(rho, advantages, 0.2)) == -1.5
    assert float(dual_clip_objective(rho, advantages, 0.2, 3.0)) == -1.0
    assert float(spo_objective(rho, advantages, 0.2)) == pytest.approx((-26.5 - 0.25) / 2)
    assert float(kl_objective(rho, advantages, doubles([2.0, 4.0]), 0.5)) == -3.0
    # log pi A = -2 * -1 + -0.5 * 2 = 1
    assert float(pg_objective(doubles([-2.0, -0.5]), advantages)) == 0.5


@pytest.mark.parametrize("advantage", [-2.0, 0.5])
def test_where_simple_policy_optimization_leads(advantage: float) -> None:
    """The gradient by rho vanishes at 1 + eps for A > 0, at 1 - eps for A < 0, and leads there."""
    best = 1 + EPS if advantage > 0 else 1 - EPS
    for rho, sign in ((best - 0.1, 1.0), (best, 0.0), (best + 0.1, -1.0)):
        ratio = doubles([rho]).requires_grad_()
        objective = spo_objective(ratio, doubles([advantage]), EPS)
        (grad,) = torch.autograd.grad(objective, ratio)
        # A - |A| (rho - 1) / eps, which is -+ |A| 0.1 / eps off the best ratio
        assert float(grad) == pytest.approx(sign * abs(advantage) * 0.1 / EPS, abs=1e-12)


@pytest.mark.parametrize(
    ("kl", "expected"),
    # d_targ = 0.03: halved below 0.02, doubled above 0.045, and left alone at and between them
    [(0.0, 1.0), (0.0199, 1.0), (0.0201, 2.0), (0.03, 2.0), (0.0449, 2.0), (0.0451, 4.0)],
)
def test_adaptive_kl_coef(kl: float, expected: float) -> None:
    """beta / 2 if d < d_targ / 1.5, 2 beta if d > 1.5 d_targ, else beta."""
    assert adapted_kl_coef(2.0, kl, 0.03) == expected


def test_adaptive_kl_coef_never_gets_stuck() -> None:
    """After any number of iterations on one side it still comes back, and float32 can hold it."""
    low = high = 1.0
    for _ in range(2_000):
        low, high = adapted_kl_coef(low, 0.0, 0.01), adapted_kl_coef(high, 1.0, 0.01)
    for beta, kl in ((low, 1.0), (high, 0.0)):
        assert 0 < float(np.float32(beta)) < math.inf
        assert adapted_kl_coef(beta, kl, 0.01) != beta


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=20), st.floats(0.01, 5))
def test_value_losses(rows: list[tuple[float, float, float]], c: float) -> None:
    """0.5 (V - target)^2, and 0.5 max of it and of the same with V's change clipped to +-c."""
    plain = mean([0.5 * (v - target) ** 2 for v, _, target in rows])
    near = [min(max(v, old - c), old + c) for v, old, _ in rows]
    clipped = mean(
        [
            0.5 * max((v - target) ** 2, (n - target) ** 2)
            for (v, _, target), n in zip(rows, near, strict=True)
        ]
    )
    v, old, target = doubles(rows).T
    assert float(value_loss(v, target)) == pytest.approx(plain, abs=1e-10)
    assert float(clipped_value_loss(v, old, target, c)) == pytest.approx(clipped, abs=1e-10)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.floats(0.01, 0.9))
def test_kl_estimators_and_clip_fraction(log_ratios: list[float], eps: float) -> None:
    """k1 = -log rho, k2 = (log rho)^2 / 2, k3 = (rho - 1) - log rho >= 0; the share outside +-eps."""
    x = doubles(log_ratios)
    assert float(kl_k1(x)) == pytest.approx(mean([-r for r in log_ratios]), abs=1e-12)
    assert float(kl_k2(x)) == pytest.approx(mean([r * r / 2 for r in log_ratios]), abs=1e-12)
    k3 = mean([(math.exp(r) - 1) - r for r in log_ratios])
    assert float(kl_k3(x)) == pytest.approx(k3, abs=1e-12)
    assert float(kl_k3(x)) >= 0
    outside = mean([float(math.exp(r) < 1 - eps or math.exp(r) > 1 + eps) for r in log_ratios])
    # a ratio within rounding of the edge may fall on either side
    at_edge = any(abs(abs(math.exp(r) - 1) - eps) < 1e-12 for r in log_ratios)
    assert at_edge or float(clip_fraction(x.exp(), eps)) == pytest.approx(outside, abs=1e-12)


def test_kl_estimators_estimate_the_kl() -> None:
    """k1 and k3 have the mean KL(old || new) when actions are drawn from old; k2 nearly so.

    1e6 draws from N(0, 1), new N(0.2, 1): KL = 0.2^2 / 2 = 0.02. The deviation of k1 is 0.2, its
    standard error 2e-4; k3's is smaller. Five standard errors: a right estimator fails once in 1e6.
    """
    a = doubles(np.random.default_rng(0).normal(size=1_000_000))
    log_ratio = -0.5 * (a - 0.2) ** 2 + 0.5 * a**2
    assert float(kl_k1(log_ratio)) == pytest.approx(0.02, abs=5 * 2e-4)
    assert float(kl_k3(log_ratio)) == pytest.approx(0.02, abs=5 * 3e-5)
    # E[(log rho)^2] / 2 = (0.02^2 + 0.2^2) / 2 = 0.0202: biased, in the second order
    assert float(kl_k2(log_ratio)) == pytest.approx(0.0202, abs=5 * 3e-5)


def test_clip_objective_has_no_gradient_exactly_where_it_must_not() -> None:
    """d/d rho is 0 where A > 0, rho > 1 + eps or A < 0, rho < 1 - eps, and A / M everywhere else."""
    advantages, rho = torch.meshgrid(
        doubles([-2.0, -0.5, 0.5, 2.0]), torch.linspace(0.05, 2.0, 391).double(), indexing="ij"
    )
    inside_kink = ((rho - 0.8).abs() < 1e-9) | ((rho - 1.2).abs() < 1e-9)
    advantages, rho = advantages[~inside_kink], rho[~inside_kink].requires_grad_()
    (grad,) = torch.autograd.grad(clip_objective(rho, advantages, EPS), rho)
    is_cut = ((advantages > 0) & (rho > 1 + EPS)) | ((advantages < 0) & (rho < 1 - EPS))
    assert is_cut.any()
    assert (~is_cut).any()
    assert torch.equal(grad[is_cut], torch.zeros_like(grad[is_cut]))
    torch.testing.assert_close(grad[~is_cut], advantages[~is_cut] / len(rho))


def test_dual_clip_objective_has_no_gradient_exactly_where_it_must_not() -> None:
    """As the clip, and also where A < 0, rho > c; elsewhere it is the clip's."""
    advantages, rho = torch.meshgrid(
        doubles([-2.0, -0.5, 0.5, 2.0]), torch.linspace(0.05, 5.0, 496).double(), indexing="ij"
    )
    at_kink = torch.stack([(rho - kink).abs() < 1e-9 for kink in (0.8, 1.2, 3.0)]).any(0)
    advantages, rho = advantages[~at_kink], rho[~at_kink].requires_grad_()
    (grad,) = torch.autograd.grad(dual_clip_objective(rho, advantages, EPS, 3.0), rho)
    is_cut = ((advantages > 0) & (rho > 1 + EPS)) | ((advantages < 0) & (rho < 1 - EPS))
    is_cut |= (advantages < 0) & (rho > 3)
    assert torch.equal(grad[is_cut], torch.zeros_like(grad[is_cut]))
    torch.testing.assert_close(grad[~is_cut], advantages[~is_cut] / len(rho))


# --- the whole loss -------------------------------------------------------------------------------

# a ratio on each side of the clip range, well away from its edges
RATIOS = {"below": (0.5, 0.7), "inside": (0.9, 1.1), "above": (1.3, 1.9)}
CELLS = list(itertools.product((-1.0, 1.0), RATIOS))


def cells_batch(ppo: PPO, kind: str, seed: int = 0, repeats: int = 3) -> Batch:
    """Returns rows in every cell of (sign of A) x (side of the clip), and of the value clip."""
    rng = np.random.default_rng(seed)
    signs, sides = zip(*CELLS * repeats, strict=True)
    M = len(signs)
    obs = torch.from_numpy(rng.normal(size=(M, 3)))
    actions = random_actions(kind, (M,), rng)
    with torch.no_grad():
        params, values = ppo.policy(obs)
        log_probs = ppo.policy.distribution.log_prob(params, actions)
    wanted = doubles([rng.uniform(*RATIOS[side]) for side in sides])
    # changes of V within and beyond the value clip of 0.3; targets on both sides and away from ties
    # the distributions that acted are others than those of the log-probabilities: any may be compared
    old_params = params + doubles(rng.normal(0, 0.5, size=tuple(params.shape)))
    change = doubles(rng.permutation(np.resize([-0.7, -0.1, 0.1, 0.7], M)))
    towards = doubles(rng.permutation(np.resize([-2.0, -1.3, 1.3, 2.0], M)))
    return Batch(
        obs=obs,
        actions=actions,
        log_probs=log_probs - wanted.log(),
        values=values - change,
        # half of them positive, so that normalising does not change a sign
        advantages=doubles(signs) * doubles(rng.uniform(0.5, 2.0, size=M)),
        value_targets=values + towards,
        old_params=old_params,
    )


def normalized(batch: Batch, how: str) -> Tensor:
    a = batch.advantages
    return a if how == "none" else (a - a.mean()) / a.std()


def cells_hit(ppo: PPO, batch: Batch, how: str) -> set[tuple[float, str]]:
    """Returns the cells in which rows truly lie."""
    params, _ = ppo.policy(batch.obs)
    rho = (ppo.policy.distribution.log_prob(params, batch.actions) - batch.log_probs).exp()
    sides = ["below" if r < 1 - EPS else "above" if r > 1 + EPS else "inside" for r in rho.tolist()]
    return set(zip(normalized(batch, how).sign().tolist(), sides, strict=True))


def value_branches_hit(ppo: PPO, batch: Batch, c: float) -> set[str]:
    """Returns which of the two values counts in the clipped value loss, and where they are one."""
    _, v = ppo.policy(batch.obs)
    near = batch.values + (v - batch.values).clamp(-c, c)
    far = (v - batch.value_targets).abs() - (near - batch.value_targets).abs()
    names = {1.0: "own", -1.0: "clipped", 0.0: "same"}
    # rounding of V_old + (V - V_old) apart
    return {names[s] for s in torch.where(far.abs() < 1e-12, 0.0, far).sign().tolist()}


def central_differences(ppo: PPO, batch: Batch, h: float = 1e-5) -> Tensor:
    found = []
    with torch.no_grad():
        for parameter in ppo.policy.parameters():
            flat = parameter.view(-1)
            for i in range(len(flat)):
                here = flat[i].item()
                flat[i] = here + h
                above = float(ppo.loss(batch, EPS)[0])
                flat[i] = here - h
                below = float(ppo.loss(batch, EPS)[0])
                flat[i] = here
                found.append((above - below) / (2 * h))
    return doubles(found)


def gradient(ppo: PPO, batch: Batch) -> Tensor:
    parts = torch.autograd.grad(
        ppo.loss(batch, EPS)[0], list(ppo.policy.parameters()), allow_unused=True
    )
    sizes = [p.numel() for p in ppo.policy.parameters()]
    return torch.cat(
        [
            torch.zeros(n).double() if g is None else g.reshape(-1)
            for g, n in zip(parts, sizes, strict=True)
        ]
    )


@pytest.mark.parametrize("shared_torso", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("clip_value", [None, 0.3], ids=["free", "clip_value"])
@pytest.mark.parametrize("how", ["minibatch", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_whole_loss(
    kind: str, how: str, clip_value: float | None, shared_torso: bool
) -> None:
    """-L^{CLIP+VF+S} has the gradient that central differences give, in every cell of the clip."""
    policy = small_policy(kind, shared_torso=shared_torso)
    ppo = learner(
        policy, ent_coef=0.05, vf_coef=0.7, normalize_advantage=how, clip_value=clip_value
    )
    batch = cells_batch(ppo, kind)
    assert cells_hit(ppo, batch, how) == set(CELLS)
    if clip_value is not None:
        assert value_branches_hit(ppo, batch, clip_value) == {"own", "clipped", "same"}
    expected = central_differences(ppo, batch)
    # differences err by h^2 x third derivative = 1e-10, and 1e-16 / h = 1e-11 by rounding
    torch.testing.assert_close(gradient(ppo, batch), expected, rtol=1e-6, atol=1e-8)
    assert float(expected.norm()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", get_args(Objective))
def test_gradient_of_every_objective(name: str, kind: str) -> None:
    """The whole loss with each objective has the gradient that central differences give."""
    own = {"dual_clip": 1.5} if name == "dual_clip" else {}
    own |= {"kl_coef": 3.0} if name.startswith("kl") else {}
    ppo = learner(small_policy(kind), objective=name, ent_coef=0.05, vf_coef=0.7, **own)
    batch = cells_batch(ppo, kind)
    assert cells_hit(ppo, batch, "minibatch") == set(CELLS)
    expected = central_differences(ppo, batch)
    # SPO's parabola is steep beyond the range, and its third derivative larger
    torch.testing.assert_close(gradient(ppo, batch), expected, rtol=1e-6, atol=1e-7)
    assert float(expected.norm()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_every_objective_worked_out(kind: str) -> None:
    """The reported policy loss is minus each objective's mean, from torch's own distributions.

    Ratios and the exact KL are those of torch.distributions; the sums are Python's.
    """
    for name in get_args(Objective):
        own = {"kl_coef": 3.0} if name.startswith("kl") else {}
        ppo = learner(small_policy(kind), objective=name, normalize_advantage="none", **own)
        batch = cells_batch(ppo, kind)
        with torch.no_grad():
            params, _ = ppo.policy(batch.obs)
        assert batch.old_params is not None
        log_p = sum(
            part.log_prob(actions) for part, actions in torch_parts(kind, params, batch.actions)
        )
        pairs = zip(
            torch_parts(kind, batch.old_params, batch.actions),
            torch_parts(kind, params, batch.actions),
            strict=True,
        )
        kl = sum(torch.distributions.kl_divergence(p, q) for (p, _), (q, _) in pairs)
        rho = (log_p - batch.log_probs).exp()
        terms = []
        columns = (rho, batch.advantages, log_p, kl)
        for r, a, lp, d in zip(*(column.tolist() for column in columns), strict=True):
            clipped = min(r * a, (1 + EPS) * a if a >= 0 else (1 - EPS) * a)
            terms.append(
                {
                    "clip": clipped,
                    "cpi": r * a,
                    "pg": lp * a,
                    "kl_fixed": r * a - 3.0 * d,
                    "kl_adaptive": r * a - 3.0 * d,
                    "dual_clip": max(clipped, 3.0 * a) if a < 0 else clipped,
                    "spo": r * a - abs(a) * (r - 1) ** 2 / (2 * EPS),
                }[name]
            )
        assert float(ppo.loss(batch, EPS)[1][1]) == pytest.approx(-mean(terms), rel=1e-6), name


def torch_parts(kind: str, params: Tensor, actions: Tensor) -> list[tuple[Any, Tensor]]:
    """Returns torch's independent distributions of a policy's rows, and the actions of each."""
    if kind == "box":
        means, log_std = params.chunk(2, -1)
        normals = torch.distributions.Normal(means, log_std.exp())
        return [(torch.distributions.Independent(normals, 1), actions.double())]
    if kind == "multi_binary":
        bits = torch.distributions.Bernoulli(logits=params)
        return [(torch.distributions.Independent(bits, 1), actions.double())]
    sizes = [3] if kind == "discrete" else [2, 3]
    heads = [torch.distributions.Categorical(logits=head) for head in params.split(sizes, -1)]
    return [(head, actions[:, k]) for k, head in enumerate(heads)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sign", "side"), CELLS)
def test_policy_gradient_of_each_cell(kind: str, sign: float, side: str) -> None:
    """One row moves the policy unless the clip cuts it off, and then by exactly nothing."""
    ppo = learner(small_policy(kind), ent_coef=0.0, vf_coef=0.0, normalize_advantage="none")
    whole = cells_batch(ppo, kind, repeats=1)
    row = CELLS.index((sign, side))
    columns = {k: v for k, v in vars(whole).items() if v is not None}
    batch = Batch(**{name: column[row : row + 1] for name, column in columns.items()})
    assert cells_hit(ppo, batch, "none") == {(sign, side)}
    found = gradient(ppo, batch)
    if (sign, side) in {(1.0, "above"), (-1.0, "below")}:
        assert torch.equal(found, torch.zeros_like(found))
    else:
        assert float(found.norm()) > 1e-3
        torch.testing.assert_close(found, central_differences(ppo, batch), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip_value", [None, 0.3], ids=["free", "clip_value"])
def test_the_report_of_the_loss(clip_value: float | None) -> None:
    """Every reported number is its definition, and the loss is -objective + c1 value - c2 entropy."""
    ppo = learner(
        small_policy("discrete"),
        ent_coef=0.05,
        vf_coef=0.7,
        normalize_advantage="minibatch",
        clip_value=clip_value,
    )
    batch = cells_batch(ppo, "discrete")
    M = len(batch.advantages)
    with torch.no_grad():
        logits, v = ppo.policy(batch.obs)
    log_p = torch.distributions.Categorical(logits=logits)
    rho = (log_p.log_prob(batch.actions[:, 0]) - batch.log_probs).exp().tolist()
    a = normalized(batch, "minibatch").tolist()
    objective = mean(
        [
            min(r * x, (1 + EPS) * x if x >= 0 else (1 - EPS) * x)
            for r, x in zip(rho, a, strict=True)
        ]
    )
    errors = []
    for i in range(M):
        value, old, target = (float(x[i]) for x in (v, batch.values, batch.value_targets))
        near = value if clip_value is None else min(max(value, old - 0.3), old + 0.3)
        errors.append(0.5 * max((value - target) ** 2, (near - target) ** 2))
    entropy = float(log_p.entropy().mean())
    k3 = mean([(r - 1) - math.log(r) for r in rho])
    # of each three rows one is inside the clip range
    expected = {
        "total": -objective + 0.7 * mean(errors) - 0.05 * entropy,
        "policy": -objective,
        "value": mean(errors),
        "entropy": entropy,
        "approx_kl": k3,
        "clip_fraction": 2 / 3,
        "ratio_error": max(abs(r - 1) for r in rho),
    }
    loss, report = ppo.loss(batch, EPS)
    assert float(loss.detach()) == pytest.approx(expected["total"], rel=1e-6)
    # the added 1e-8 of the normalisation is not in `normalized`
    assert report.tolist() == pytest.approx(list(expected.values()), rel=1e-6)


def test_shapes_are_checked_while_tests_run() -> None:
    """Columns that would broadcast, [M] against [M, 1], break an annotation and do not pass."""
    with pytest.raises(TypeCheckError):
        value_loss(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(TypeCheckError):
        clip_objective(torch.zeros(4), torch.zeros(3), 0.2)
