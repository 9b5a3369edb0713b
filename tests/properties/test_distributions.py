"""Log-probabilities, entropies, KL and samples of the action distributions.

Oracles: torch.distributions in float64 (another implementation), Monte Carlo, and tests of fit.
Tests of fit run on fixed seeds; ALPHA is the rate at which a right sampler would fail on others.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from clipper.action_layout import ActionLayout
from clipper.policies.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    distribution_for,
)
from clipper.randomness import Purpose, normal, uniform

ALPHA = 1e-3
NUM_DRAWS = 20_000
HEADS = (2, 5, 3)
OURS: dict[str, Distribution] = {
    "discrete": Categorical((4,)),
    "multi_discrete": Categorical(HEADS),
    "multi_binary": Bernoulli(3),
    "box": DiagonalGaussian(2),
}
KINDS = sorted(OURS)


def theirs(kind: str, params: Tensor) -> list[torch.distributions.Distribution]:
    """Returns torch's independent parts of the same distribution."""
    if kind in ("discrete", "multi_discrete"):
        sizes = [4] if kind == "discrete" else list(HEADS)
        return [TorchCategorical(logits=head) for head in params.split(sizes, -1)]
    if kind == "multi_binary":
        return [Independent(TorchBernoulli(logits=params), 1)]
    mean, log_std = params.chunk(2, -1)
    return [Independent(Normal(mean, log_std.exp()), 1)]


def their_log_prob(kind: str, params: Tensor, actions: Tensor) -> Tensor:
    parts = theirs(kind, params)
    if kind in ("discrete", "multi_discrete"):
        return sum(p.log_prob(actions[..., k]) for k, p in enumerate(parts))  # type: ignore[return-value]
    return parts[0].log_prob(actions.double())


def draw_params(kind: str, rows: int, seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, OURS[kind].num_params)
    params = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "box":
        params[:, 2:] = params[:, 2:].clamp(-5, 2)  # log standard deviations
    return params


def noise_for(ours: Distribution, rows: int, seed: int = 0) -> Tensor:
    draw = normal if ours.noise == "normal" else uniform
    return torch.from_numpy(draw(seed, Purpose.ACTION, np.arange(rows), 0, ours.noise_size))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_numbers_equal_torchs(kind: str, seed: int, scale: float) -> None:
    """log_prob, entropy, KL(old || new) and mode are torch.distributions' in float64."""
    ours = OURS[kind]
    old, new = draw_params(kind, 8, seed, scale), draw_params(kind, 8, seed + 1, scale)
    actions = ours.sample(old, noise_for(ours, 8, seed).double())
    torch.testing.assert_close(ours.log_prob(new, actions), their_log_prob(kind, new, actions))
    entropy = sum(p.entropy() for p in theirs(kind, new))
    torch.testing.assert_close(ours.entropy(new), entropy, rtol=1e-7, atol=1e-8)
    pairs = zip(theirs(kind, old), theirs(kind, new), strict=True)
    kl = sum(kl_divergence(p, q) for p, q in pairs)
    # torch's softplus(x) is x above 20, which leaves out e^-20 = 2e-9 of every bit
    torch.testing.assert_close(ours.kl(old, new), kl, rtol=1e-9, atol=1e-8)
    assert torch.all(ours.kl(old, new) >= -1e-8)
    assert ours.kl(old, old).abs().max() < 1e-12
    # the mode is more likely than anything that was sampled
    mode = ours.mode(new)
    assert torch.all(ours.log_prob(new, mode) >= ours.log_prob(new, actions) - 1e-12)


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary"])
def test_kl_and_entropy_are_sums_over_all_actions(kind: str) -> None:
    """KL = sum p (log p - log q) and H = -sum p log p over every action there is, one by one."""
    ours = OURS[kind]
    sizes = {"discrete": (4,), "multi_discrete": HEADS, "multi_binary": (2, 2, 2)}[kind]
    every = torch.tensor(list(itertools.product(*map(range, sizes))))
    old, new = draw_params(kind, 1, 3, 2.0), draw_params(kind, 1, 4, 2.0)
    log_p, log_q = (ours.log_prob(x.expand(len(every), -1), every) for x in (old, new))
    p = log_p.exp()
    assert float(p.sum()) == pytest.approx(1.0)
    assert float(ours.kl(old, new)) == pytest.approx(float((p * (log_p - log_q)).sum()))
    assert float(ours.entropy(old)) == pytest.approx(float(-(p * log_p).sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_kl_and_entropy_are_means_over_samples(kind: str) -> None:
    """KL = E_old[log old - log new], H = E_old[-log old]: own samples, own log-probabilities.

    Five standard errors: a right pair of sampler and density fails once in 1e6.
    """
    ours = OURS[kind]
    rows = 200_000
    old, new = (draw_params(kind, 1, s, 0.5).expand(rows, -1) for s in (5, 6))
    actions = ours.sample(old, noise_for(ours, rows).double())
    log_old, log_new = ours.log_prob(old, actions), ours.log_prob(new, actions)
    for terms, exact in ((log_old - log_new, ours.kl(old, new)), (-log_old, ours.entropy(old))):
        error = float(terms.std()) / rows**0.5
        assert abs(float(terms.mean()) - float(exact[0])) <= 5 * error


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_stay_finite_at_extremes(kind: str) -> None:
    """Certain policies, as after long training, have finite numbers and gradients in float32."""
    ours = OURS[kind]
    if kind == "box":
        params = torch.tensor([[0.0, 1e4, -15.0, 15.0]], requires_grad=True)
    else:
        signs = torch.tensor([(-1.0) ** k for k in range(ours.num_params)])
        params = (1e4 * signs)[None].requires_grad_()
    action = ours.mode(params.detach())
    for number in (
        ours.log_prob(params, action),
        ours.entropy(params),
        ours.kl(params.detach(), params),
    ):
        assert torch.isfinite(number).all()
        (grad,) = torch.autograd.grad(number.sum(), params, allow_unused=True)
        assert grad is not None
        assert torch.isfinite(grad).all()


# --- sampling: a right sampler fails each of these with probability ALPHA on a random seed ---------


def test_categories_come_as_often_as_they_should() -> None:
    """Chi-square of one head's counts against its probabilities."""
    params = torch.tensor([1.0, -1.0, 0.3, 0.0])
    ours = OURS["discrete"]
    chosen = ours.sample(params.expand(NUM_DRAWS, -1), noise_for(ours, NUM_DRAWS))
    counts = np.bincount(chosen[:, 0].numpy(), minlength=4)
    expected = NUM_DRAWS * torch.softmax(params.double(), -1).numpy()
    assert stats.chisquare(counts, expected).pvalue > ALPHA


def test_heads_and_bits_are_independent() -> None:
    """Chi-square of the joint counts against the product of the heads' (bits') probabilities."""
    for kind, sizes in (("multi_discrete", HEADS), ("multi_binary", (2, 2, 2))):
        ours = OURS[kind]
        params = draw_params(kind, 1, 9, 0.5)[0]
        rows = params.float().expand(NUM_DRAWS, -1)
        chosen = ours.sample(rows, noise_for(ours, NUM_DRAWS)).numpy()
        counts = np.bincount(np.ravel_multi_index(chosen.T, sizes), minlength=int(np.prod(sizes)))
        if kind == "multi_discrete":
            heads = [torch.softmax(p, -1).numpy() for p in params.split(list(sizes))]
        else:
            heads = [np.array([1 - p, p]) for p in torch.sigmoid(params).tolist()]
        joint = np.einsum("a,b,c->abc", *heads).reshape(-1)
        assert stats.chisquare(counts, NUM_DRAWS * joint).pvalue > ALPHA


def test_gaussian_samples_are_normal_and_uncorrelated() -> None:
    """Kolmogorov-Smirnov of every number against N(mean, std), and no correlation between them."""
    ours = OURS["box"]
    params = torch.tensor([0.5, -2.0, -1.0, 0.7])
    samples = ours.sample(params.expand(NUM_DRAWS, -1), noise_for(ours, NUM_DRAWS)).numpy()
    for column, mean, log_std in zip(samples.T, (0.5, -2.0), (-1.0, 0.7), strict=True):
        assert stats.kstest(column, "norm", args=(mean, np.exp(log_std))).pvalue > ALPHA
    assert stats.pearsonr(*samples.T).pvalue > ALPHA


@pytest.mark.parametrize("noise", [0.0, 1.0 - 2.0**-24], ids=["lowest", "highest"])
def test_the_ends_of_the_noise_choose_a_category_that_exists(noise: float) -> None:
    """The lowest noise takes the first category that is possible, the highest the last; in range."""
    for sizes in ((2,), (3,), (7,), (1000,)):
        ours = Categorical(sizes)
        for seed in range(20):
            params = torch.randn(50, sizes[0], generator=torch.Generator().manual_seed(seed))
            chosen = ours.sample(params, torch.full((50, 1), noise))
            assert chosen.min() >= 0
            assert chosen.max() < sizes[0]
        # nor is the last one drawn where it has probability 0
        impossible = torch.randn(2000, sizes[0], generator=torch.Generator().manual_seed(1))
        impossible[:, -1] = -200.0
        if len(impossible[0]) > 1:
            chosen = ours.sample(impossible, torch.full((2000, 1), noise))
            assert chosen.max() < sizes[0] - 1
    # the first category has probability 0: 0 noise must not choose it
    assert Categorical((2,)).sample(torch.tensor([[-1e9, 0.0]]), torch.zeros(1, 1)).item() == 1


def test_every_action_space_has_its_distribution() -> None:
    """Discrete and MultiDiscrete: heads of logits; MultiBinary: log-odds; Box: means and deviations."""
    cases = [
        (spaces.Discrete(4, start=7), Categorical, 4, 1, 4),
        (spaces.MultiDiscrete([2, 3]), Categorical, 5, 2, 5),
        (spaces.MultiBinary([2, 3]), Bernoulli, 6, 6, 6),
        (spaces.Box(-1, 1, (2, 2)), DiagonalGaussian, 8, 4, 4),
    ]
    for space, kind, num_params, noise_size, num_outputs in cases:
        ours = distribution_for(ActionLayout(space))
        assert isinstance(ours, kind)
        assert (ours.num_params, ours.noise_size) == (num_params, noise_size)
        assert ours.num_outputs == num_outputs
