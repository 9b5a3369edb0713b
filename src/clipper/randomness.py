"""Random numbers as a function of what they are for: a seed and a counter in, numbers out.

Nothing here has a state. A draw is fixed by (run seed, purpose, env index, step, draw index), so
that results do not depend on how environments are split over processes, and nothing but the
counters must be saved to resume. The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]


class Purpose(IntEnum):
    """What a number is drawn for; the first word of the counter."""

    ACTION = 1
    EPISODE_SEED = 2
    SHUFFLE = 3
    INITIAL_WEIGHTS = 4
    EVALUATION_SEED = 5
    EVALUATION_ACTION = 6
    BOOTSTRAP = 7
    SELECTION_SEED = 8
    SELECTION_ACTION = 9
    USER_ACTION = 10
    REPLAY = 12
    CANDIDATE = 13


_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(seed: int, counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns four words of 32 random bits for every counter (Philox4x32-10).

    Args:
        seed: The key, 0 to 2^64 - 1.
        counter: Four words below 2^32 along the last axis, shape [..., 4].
    """
    key0, key1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ np.uint64(key0),
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ np.uint64(key1),
            product0 & _LOW,
        )
        key0, key1 = (key0 + _WEYL[0]) & 0xFFFFFFFF, (key1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def words(seed: int, purpose: Purpose, env: object, step: object, size: int) -> NDArray[np.uint64]:
    """Returns `size` words of 32 bits for every pair of env and step, shape [..., size].

    The counter is (purpose, env, step, draw) with one draw for every four words; bits of `step`
    above 32 go into the upper half of the purpose's word.

    Args:
        seed: The run's seed, 0 to 2^64 - 1.
        purpose: What the numbers are for.
        env: Integers, broadcast against `step`.
        step: Integers from 0.
        size: Words wanted for each.
    """
    envs, steps = np.broadcast_arrays(
        np.asarray(env, dtype=np.uint64), np.asarray(step, dtype=np.uint64)
    )
    draws = -(-size // 4)
    counter = np.empty((*envs.shape, draws, 4), dtype=np.uint64)
    counter[..., 0] = np.uint64(purpose) + ((steps >> _32) << np.uint64(16))[..., None]
    counter[..., 1] = envs[..., None]
    counter[..., 2] = (steps & _LOW)[..., None]
    counter[..., 3] = np.arange(draws, dtype=np.uint64)
    return philox(seed, counter).reshape(*envs.shape, draws * 4)[..., :size]


def uniform(
    seed: int, purpose: Purpose, env: object, step: object, size: int
) -> NDArray[np.float32]:
    """Returns numbers uniform in [0, 1) with 24 bits, float32 [..., size]; arguments of `words`."""
    bits = words(seed, purpose, env, step, size) >> np.uint64(8)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def normal(
    seed: int, purpose: Purpose, env: object, step: object, size: int
) -> NDArray[np.float32]:
    """Returns standard normal numbers by Box and Muller's method, float32 [..., size].

    Words 2i and 2i + 1 give the numbers 2i (cosine) and 2i + 1 (sine). Computed in float64 and
    rounded once, so that engines agree on the bits. Arguments of `words`.
    """
    pairs = -(-size // 2)
    unit = (words(seed, purpose, env, step, 2 * pairs).astype(np.float64) + 0.5) * 2.0**-32
    radius = np.sqrt(-2.0 * np.log(unit[..., 0::2]))
    angle = 2.0 * np.pi * unit[..., 1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(*both.shape[:-2], 2 * pairs)[..., :size].astype(np.float32)


def derived_seed(seed: int, purpose: Purpose, env: object, index: object) -> NDArray[np.int64]:
    """Returns seeds for other generators (0 to 2^31 - 1), one for every env and index."""
    return (words(seed, purpose, env, index, 1)[..., 0] >> np.uint64(1)).astype(np.int64)


def permutation(
    seed: int, purpose: Purpose, stream: int, index: int, size: int
) -> NDArray[np.int64]:
    """Returns a random order of 0 .. size - 1: the ranks of 64-bit words, ties by position.

    Args:
        seed: The run's seed.
        purpose: What the order is for.
        stream: First number that tells orders apart, for example the epoch.
        index: Second number, for example the iteration.
        size: How many items are ordered.
    """
    bits = words(seed, purpose, stream, index, 2 * size)
    return np.argsort((bits[0::2] << _32) | bits[1::2], kind="stable")


class EpisodeSeeds:
    """The seed of every episode of every env, computed in blocks because resets are frequent.

    Args:
        seed: The run's seed.
        purpose: Training and each kind of evaluation have seeds of their own.
    """

    _BLOCK = 256

    def __init__(self, seed: int, purpose: Purpose = Purpose.EPISODE_SEED) -> None:
        self.seed = seed
        self.purpose = purpose
        self._blocks: dict[int, tuple[int, list[int]]] = {}

    def of(self, env: int, episode: int) -> int:
        """Returns the seed (0 to 2^31 - 1) that `reset` gets for an episode of an env."""
        start = episode - episode % self._BLOCK
        block = self._blocks.get(env)
        if block is None or block[0] != start:
            index = np.arange(start, start + self._BLOCK)
            block = (start, derived_seed(self.seed, self.purpose, env, index).tolist())
            self._blocks[env] = block
        return block[1][episode - start]
