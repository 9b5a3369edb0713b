"""The native generator is the one of randomness.py, and native actions have the right distribution.

Tests of fit run on fixed seeds; ALPHA is the rate at which a right sampler would fail on others.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clipper.engine import kernels
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, normal, permutation, philox, uniform
from helpers import learner, small_policy

pytestmark = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))
VARIANTS = kernels.compiled.variants() if kernels.ABSENCE is None else []
ALPHA = 1e-3
SIZE = 40_000
word = st.integers(0, 2**32 - 1)
seeds = st.integers(0, 2**64 - 1)
steps = st.one_of(st.integers(0, 100), st.integers(2**32 - 3, 2**32 + 3), st.integers(0, 2**40))


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(kernels.VARIANT_VARIABLE, request.param)
    return str(request.param)


def fast_policy(kind: str) -> ActorCritic:
    policy = small_policy(kind, dtype=torch.float32)
    learner(policy, engine="native")
    return policy


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            0xFFFFFFFF_FFFFFFFF,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, int, int, int], key: int, answer: tuple[int, ...]
) -> None:
    """Philox4x32-10 on the known-answer vectors of Random123 (Salmon et al. 2011), kat_vectors."""
    assert tuple(kernels.compiled.philox(key, counter)) == answer


@given(seeds, st.tuples(word, word, word, word))
def test_philox_is_the_same_in_both_engines(seed: int, counter: tuple[int, int, int, int]) -> None:
    """For any key and counter."""
    expected = philox(seed, np.array(counter, dtype=np.uint64))
    assert kernels.compiled.philox(seed, counter) == expected.tolist()


@given(seeds, steps, st.integers(1, 4), st.integers(1, 4), st.sampled_from(["discrete", "box"]))
@settings(max_examples=50)
def test_the_noise_of_actions_is_the_same_in_both_engines(
    seed: int, first_step: int, num_steps: int, num_envs: int, kind: str
) -> None:
    """To the bit: uniform numbers by construction, normal ones because float64 is rounded once."""
    found = fast_policy(kind).noise(seed, Purpose.ACTION, first_step, num_steps, num_envs)
    draw, size = (normal, 2) if kind == "box" else (uniform, 1)
    steps = np.arange(first_step, first_step + num_steps)[:, None]
    expected = draw(seed, Purpose.ACTION, np.arange(num_envs), steps, size)
    np.testing.assert_array_equal(found, expected)


def test_many_normal_numbers_are_the_same_in_both_engines() -> None:
    """A million of them: the two float64 libraries may differ in the last bit, float32 does not."""
    found = np.empty((1000, 100, 10), np.float32)
    kernels.compiled.noise(5, Purpose.ACTION, 0, True, found)
    expected = normal(5, Purpose.ACTION, np.arange(100), np.arange(1000)[:, None], 10)
    np.testing.assert_array_equal(found, expected)


@given(seeds, st.integers(0, 20), steps, st.integers(1, 3000))
@settings(max_examples=50)
def test_the_order_of_rows_is_the_same_in_both_engines(
    seed: int, epoch: int, iteration: int, size: int
) -> None:
    """A permutation, and the very one that `epoch_order` gives."""
    found = np.empty(size, np.int64)
    kernels.compiled.permutation(seed, Purpose.SHUFFLE, epoch, iteration, found)
    np.testing.assert_array_equal(found, permutation(seed, Purpose.SHUFFLE, epoch, iteration, size))


def drawn(kind: str) -> tuple[np.ndarray, torch.Tensor]:
    """Returns many native actions at one observation, and the distribution's parameters there."""
    policy = fast_policy(kind)
    obs = np.tile(np.array([[0.3, -1.2, 0.8]], np.float32), (SIZE, 1))
    noise = policy.noise(11, Purpose.ACTION, 0, SIZE, 1)[:, 0]
    with torch.no_grad():
        params = policy(torch.from_numpy(obs[:1]))[0][0].double()
    return policy.act(obs, torch.from_numpy(noise)), params


@pytest.mark.parametrize(("kind", "sizes"), [("discrete", [3]), ("multi_discrete", [2, 3])])
def test_categories_are_drawn_as_often_as_they_should(
    variant: str, kind: str, sizes: list[int]
) -> None:
    """Chi-square of the counts of every choice against the softmax of its logits."""
    actions, params = drawn(kind)
    for index, logits in enumerate(params.split(sizes)):
        counts = np.bincount(actions[:, index], minlength=len(logits))
        expected = SIZE * torch.softmax(logits, 0).numpy()
        assert stats.chisquare(counts, expected).pvalue > ALPHA / len(sizes)


def test_bits_are_drawn_as_often_as_they_should(variant: str) -> None:
    """A binomial test of every bit against the logistic function of its log-odds."""
    actions, params = drawn("multi_binary")
    for index, p in enumerate(torch.sigmoid(params).tolist()):
        count = int(actions[:, index].sum())
        assert stats.binomtest(count, SIZE, p).pvalue > ALPHA / len(params)


def test_numbers_are_drawn_from_the_normal_distribution(variant: str) -> None:
    """Kolmogorov and Smirnov's test of every number against its mean and standard deviation."""
    actions, params = drawn("box")
    means, log_stds = params.chunk(2)
    for index, (mean, log_std) in enumerate(zip(means.tolist(), log_stds.tolist(), strict=True)):
        found = stats.kstest(actions[:, index], stats.norm(mean, np.exp(log_std)).cdf)
        assert found.pvalue > ALPHA / len(means)


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary", "box"])
def test_actions_are_those_of_torch(variant: str, kind: str) -> None:
    """The same noise gives the same action, drawn or most likely, but where rounding decides."""
    policy, exact = fast_policy(kind), small_policy(kind)
    rng = np.random.default_rng(3)
    obs = rng.normal(size=(2000, 3)).astype(np.float32)
    noise = policy.noise(2, Purpose.ACTION, 0, 2000, 1)[:, 0]
    for given_noise in (torch.from_numpy(noise), None):
        found, expected = policy.act(obs, given_noise), exact.act(obs, given_noise)
        assert found.shape == expected.shape
        if kind == "box":
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        else:
            assert found.dtype == expected.dtype
            assert (found != expected).mean() <= 1e-3
