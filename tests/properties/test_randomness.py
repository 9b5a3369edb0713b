"""The counted generator: published answers, fit of its numbers, and what they are a function of.

Tests of fit run on fixed seeds; ALPHA is the rate at which a right generator would fail on others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipper.randomness import (
    EpisodeSeeds,
    Purpose,
    derived_seed,
    normal,
    permutation,
    philox,
    uniform,
    words,
)

ALPHA = 1e-3
Draw = Callable[..., Any]
small = st.integers(0, 50)


def hexes(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    """Philox4x32-10 on the known-answer vectors of Random123 (Salmon et al. 2011), kat_vectors."""
    low, high = hexes(key)
    found = philox(low | high << 32, np.array(hexes(counter), dtype=np.uint64))
    assert found.tolist() == hexes(answer)


def test_the_counter_is_purpose_env_step_draw() -> None:
    """`words` is Philox at counters (purpose, env, step, draw), four words a draw.

    Bits of the step above 32 stand in the upper half of the first word.
    """
    seed, env, step = 0x0123456789ABCDEF, 5, (3 << 32) + 9
    first = int(Purpose.SHUFFLE) + (3 << 16)
    counters = np.array([[first, env, 9, draw] for draw in (0, 1, 2)], dtype=np.uint64)
    expected = philox(seed, counters).reshape(-1)[:10]
    assert words(seed, Purpose.SHUFFLE, env, step, 10).tolist() == expected.tolist()


@pytest.mark.parametrize("draw", [words, uniform, normal])
@given(
    seed=st.integers(0, 2**63 - 1),
    envs=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    steps=st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
    size=st.integers(1, 9),
)
def test_numbers_do_not_depend_on_what_they_are_drawn_with(
    draw: Draw, seed: int, envs: list[int], steps: list[int], size: int
) -> None:
    """A block over envs and steps holds the very numbers each env and step gets alone.

    And the first numbers of a larger draw are the smaller draw: nothing depends on the batching.
    """
    block = draw(seed, Purpose.ACTION, np.array(envs)[None], np.array(steps)[:, None], size)
    assert block.shape == (len(steps), len(envs), size)
    for (t, step), (i, env) in itertools.product(enumerate(steps), enumerate(envs)):
        assert np.array_equal(block[t, i], draw(seed, Purpose.ACTION, env, step, size))
    # normals come in pairs, so an odd draw is a prefix too
    longer = draw(seed, Purpose.ACTION, envs[0], steps[0], size + 3)
    assert np.array_equal(block[0, 0], longer[:size])


def test_no_two_draws_are_the_same() -> None:
    """Every seed, purpose, env, step and draw has words of its own.

    4,800 blocks of 64 bits: two equal ones by chance have probability 4800^2 / 2^65 < 1e-12.
    """
    seen = set()
    seeds = (0, 1, 1 << 32, (1 << 63) - 1)
    steps = (0, 1, 2, 1 << 32, (1 << 32) + 1)
    for seed, purpose, env, step in itertools.product(seeds, Purpose, range(6), steps):
        row = words(seed, purpose, env, step, 8).tolist()
        seen.update((row[k], row[k + 1]) for k in range(0, 8, 2))
    assert len(seen) == len(seeds) * len(Purpose) * 6 * len(steps) * 4


def test_uniform_numbers_are_uniform() -> None:
    """In [0, 1), Kolmogorov-Smirnov over steps, and each of 24 bits is 1 half of the time."""
    u = uniform(3, Purpose.ACTION, np.arange(8)[None], np.arange(2_500)[:, None], 2).reshape(-1)
    assert u.dtype == np.float32
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert stats.kstest(u, "uniform").pvalue > ALPHA
    bits = (u.astype(np.float64) * 2**24).astype(np.int64)
    assert np.array_equal(bits / 2**24, u)
    ones = [int((bits >> k & 1).sum()) for k in range(24)]
    # Bonferroni over 24 bits
    assert min(stats.binomtest(n, len(bits)).pvalue for n in ones) > ALPHA / 24


def test_the_largest_word_is_below_one() -> None:
    """(2^32 - 1) / 2^32 rounds to 1 in float32; 24 bits do not: the highest is 1 - 2^-24."""
    word = np.uint64(2**32 - 1)
    assert np.float32(word >> np.uint64(8)) * np.float32(2.0**-24) == 1.0 - 2.0**-24
    u = uniform(0, Purpose.ACTION, 0, np.arange(200_000), 8)
    assert u.max() < 1.0


def test_normal_numbers_are_normal() -> None:
    """Kolmogorov-Smirnov against N(0, 1), tails included, and the pairs of Box and Muller are
    uncorrelated in value and in square."""
    z = normal(4, Purpose.ACTION, np.arange(4)[None], np.arange(5_000)[:, None], 2)
    assert z.dtype == np.float32
    flat = z.reshape(-1)
    assert stats.kstest(flat, "norm").pvalue > ALPHA
    # more than 3 deviations away: 0.27 %
    beyond = int((np.abs(flat) > 3).sum())
    assert stats.binomtest(beyond, len(flat), 2 * stats.norm.sf(3)).pvalue > ALPHA
    first, second = z[..., 0].reshape(-1), z[..., 1].reshape(-1)
    assert stats.pearsonr(first, second).pvalue > ALPHA
    assert stats.pearsonr(first**2, second**2).pvalue > ALPHA


def test_neighbours_are_independent() -> None:
    """Numbers of neighbouring envs, steps, seeds and purposes are uncorrelated."""
    n = 20_000
    steps = np.arange(n)

    def numbers(seed: int = 1, purpose: Purpose = Purpose.ACTION, env: int = 0, by: int = 0) -> Any:
        return uniform(seed, purpose, env, steps + by, 1)[:, 0]

    base = numbers()
    others = {
        "env": numbers(env=1),
        "step": numbers(by=1),
        "seed": numbers(seed=2),
        "purpose": numbers(purpose=Purpose.EVALUATION_ACTION),
    }
    for other in others.values():
        assert not np.array_equal(base, other)
        assert stats.pearsonr(base, other).pvalue > ALPHA / len(others)


@given(seed=small, stream=small, index=small, size=st.integers(1, 200))
def test_a_permutation_has_every_item_once(seed: int, stream: int, index: int, size: int) -> None:
    """An order of 0 .. size - 1, and the same one for the same arguments."""
    order = permutation(seed, Purpose.SHUFFLE, stream, index, size)
    assert sorted(order.tolist()) == list(range(size))
    assert np.array_equal(order, permutation(seed, Purpose.SHUFFLE, stream, index, size))


def test_permutations_are_uniform() -> None:
    """Each of the 24 orders of four items is as frequent as any other: chi-square."""
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for epoch, iteration in itertools.product(range(10), range(480)):
        counts[tuple(permutation(0, Purpose.SHUFFLE, epoch, iteration, 4).tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > ALPHA


def test_orders_of_epochs_and_iterations_differ() -> None:
    """Epoch and iteration do not stand for each other: (1, 2) and (2, 1) have orders of their own."""
    orders = {
        tuple(permutation(seed, Purpose.SHUFFLE, epoch, iteration, 50).tolist())
        for seed, epoch, iteration in itertools.product((0, 1), range(5), range(5))
    }
    assert len(orders) == 50


def test_episode_seeds() -> None:
    """One seed of 31 bits per env and episode, the same in any order of asking and for any block.

    5,000 seeds of 2^31: about 5000^2 / 2^32 = 0.006 pairs agree by chance.
    """
    seeds = EpisodeSeeds(7)
    asked = {(env, ep): seeds.of(env, ep) for env in range(5) for ep in range(1_000)}
    assert all(0 <= seed < 2**31 for seed in asked.values())
    assert len(set(asked.values())) == len(asked)
    fresh = EpisodeSeeds(7)
    for env, episode in [(4, 999), (0, 256), (0, 255), (4, 0), (2, 512)]:
        assert fresh.of(env, episode) == asked[env, episode]
        alone = derived_seed(7, Purpose.EPISODE_SEED, env, episode)
        assert int(alone) == asked[env, episode]
    assert EpisodeSeeds(7, Purpose.EVALUATION_SEED).of(0, 0) != asked[0, 0]
    assert EpisodeSeeds(8).of(0, 0) != asked[0, 0]
