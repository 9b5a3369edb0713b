"""Advantages, returns and value targets against double loops over their definitions in float64.

The oracles follow MATHS.md term by term, in Python floats: n counts the steps from t to the end of
the episode or the rollout, whichever is first, and only termination forfeits the future.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from clipper.advantages import (
    discounted_suffix_sum,
    estimate,
    explained_variance,
    gae,
    n_step_returns,
    normalize_advantages,
    reward_to_go,
    td_errors,
    total_return,
)

NUM_CASES = 2_000
Rows = list[list[float]]


@dataclass
class Case:
    """A random rollout: tensors for the library, nested lists for the oracle."""

    rewards: Tensor
    values: Tensor
    next_values: Tensor
    terminated: Tensor
    truncated: Tensor
    gamma: float
    gae_lambda: float

    @classmethod
    def draw(cls, rng: np.random.Generator, max_steps: int = 40) -> Case:
        """Returns a case; one in ten has no endings, all, or both flags at once."""
        shape = (int(rng.integers(1, max_steps + 1)), int(rng.integers(1, 5)))
        rate_terminated, rate_truncated = rng.choice([0.0, 0.05, 0.3, 1.0], size=2)
        terminated, truncated = (
            rng.random(shape) < rate_terminated,
            rng.random(shape) < rate_truncated,
        )
        rewards, values, next_values = (
            torch.from_numpy(rng.normal(size=shape) * 10 ** rng.uniform(-2, 2)) for _ in range(3)
        )
        gamma, gae_lambda = (float(x) for x in rng.choice([0.0, 1.0, rng.random(), 0.99], size=2))
        ends = torch.from_numpy(terminated), torch.from_numpy(truncated)
        return cls(rewards, values, next_values, *ends, gamma, gae_lambda)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.terminated, self.truncated

    def steps_left(self, t: int, i: int) -> int:
        """n: steps from t to the end of the episode or of the rollout."""
        for last in range(t, len(self.rewards)):
            if self.terminated[last, i] or self.truncated[last, i]:
                return last - t + 1
        return len(self.rewards) - t


def as_lists(case: Case) -> tuple[Rows, Rows, Rows, list[list[bool]], list[list[bool]]]:
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    return tuple(getattr(case, name).tolist() for name in names)  # type: ignore[return-value]


def define(case: Case, k_limit: int) -> tuple[Rows, Rows, Rows, Rows]:
    """Returns delta, GAE, reward-to-go and the return of at most `k_limit` steps, by definition."""
    r, v, v_next, terminated, truncated = as_lists(case)
    gamma, decay = case.gamma, case.gamma * case.gae_lambda
    T, N = len(r), len(r[0])
    out: tuple[Rows, ...] = tuple([[0.0] * N for _ in range(T)] for _ in range(4))
    deltas, advantages, to_go, k_step = out
    for i in range(N):
        for t in range(T):
            future = 0.0 if terminated[t][i] else v_next[t][i]
            deltas[t][i] = r[t][i] + gamma * future - v[t][i]
        for t in range(T):
            total = returned = cut_return = 0.0
            for step in range(T - t):
                s = t + step
                total += decay**step * deltas[s][i]
                returned += gamma**step * r[s][i]
                is_end = terminated[s][i] or truncated[s][i] or s == T - 1
                bootstrap = 0.0 if terminated[s][i] else gamma ** (step + 1) * v_next[s][i]
                if step < k_limit:
                    cut_return = returned
                    if is_end or step == k_limit - 1:
                        cut_return += bootstrap
                if is_end:
                    returned += bootstrap
                    break
            advantages[t][i], to_go[t][i], k_step[t][i] = total, returned, cut_return
    return deltas, advantages, to_go, k_step


def assert_close(found: Tensor, expected: Rows) -> None:
    # sums of up to 40 terms of size 1e3 in another order: rounding stays far below 1e-9
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("chunk", range(4))
def test_estimators_equal_their_definitions(chunk: int) -> None:
    """TD error, GAE, reward-to-go and k-step return are their sums, on 2,000 random rollouts.

    T is 1 to 40, N 1 to 4, gamma and lambda reach 0 and 1, steps may end both ways at once.
    """
    rng = np.random.default_rng(chunk)
    for _ in range(NUM_CASES // 4):
        case = Case.draw(rng)
        k = int(rng.integers(1, len(case.rewards) + 4))
        deltas, advantages, to_go, k_step = define(case, k)
        r, v, v_next, gamma = case.rewards, case.values, case.next_values, case.gamma
        assert_close(td_errors(r, v, v_next, case.terminated, gamma), deltas)
        assert_close(gae(r, v, v_next, *case.ends, gamma, case.gae_lambda), advantages)
        assert_close(reward_to_go(r, v_next, *case.ends, gamma), to_go)
        assert_close(n_step_returns(r, v_next, *case.ends, gamma, k), k_step)


@pytest.mark.parametrize("chunk", range(4))
def test_total_return_is_the_sum_over_the_whole_episode(chunk: int) -> None:
    """Each row of an episode that begins and ends in the rollout has its discounted return.

    The oracle walks through every environment episode by episode; others have 0 and do not count.
    """
    rng = np.random.default_rng(chunk)
    for _ in range(NUM_CASES // 8):
        case = Case.draw(rng)
        r, _, v_next, terminated, truncated = as_lists(case)
        T, N = len(r), len(r[0])
        begins = rng.random(N) < 0.5
        expected = [[0.0] * N for _ in range(T)]
        counted = [[False] * N for _ in range(T)]
        for i in range(N):
            first = 0 if begins[i] else None
            for t in range(T):
                if not (terminated[t][i] or truncated[t][i]):
                    continue
                if first is not None:
                    rows = range(first, t + 1)
                    whole = math.fsum(case.gamma ** (s - first) * r[s][i] for s in rows)
                    if not terminated[t][i]:
                        whole += case.gamma ** len(rows) * v_next[t][i]
                    for s in rows:
                        expected[s][i], counted[s][i] = whole, True
                first = t + 1
        found, is_complete = total_return(
            case.rewards, case.next_values, *case.ends, torch.from_numpy(begins), case.gamma
        )
        assert_close(found, expected)
        assert is_complete.tolist() == counted


def test_value_targets_of_every_estimator() -> None:
    """A_t + V(s_t) for gae, td and n_step; the reward-to-go otherwise. Its own A_t for each.

    The oracles are the double loops of `define`, with k = 3.
    """
    rng = np.random.default_rng(5)
    for _ in range(100):
        case = Case.draw(rng)
        deltas, advantages, to_go, k_step = (
            torch.tensor(rows, dtype=torch.float64) for rows in define(case, 3)
        )
        v = case.values
        expected = {
            "gae": (advantages, advantages + v),
            "td": (deltas, deltas + v),
            "n_step": (k_step - v, k_step),
            "reward_to_go": (to_go, to_go),
            "reward_to_go_baseline": (to_go - v, to_go),
        }
        begins = torch.from_numpy(rng.random(v.shape[1]) < 0.5)
        whole = total_return(case.rewards, case.next_values, *case.ends, begins, case.gamma)
        for name in [*expected, "total_return"]:
            a, targets, counted = estimate(
                name, case.rewards, v, case.next_values, *case.ends, begins,
                gamma=case.gamma, gae_lambda=case.gae_lambda, num_steps=3,
            )  # fmt: skip
            if name == "total_return":
                torch.testing.assert_close(a, whole[0])
                torch.testing.assert_close(targets, to_go, rtol=1e-9, atol=1e-9)
                assert counted is not None
                assert torch.equal(counted, whole[1])
                continue
            torch.testing.assert_close(a, expected[name][0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(targets, expected[name][1], rtol=1e-9, atol=1e-9)
            assert counted is None


def test_total_return_worked_out() -> None:
    """Four steps: the end of an episode from before, a whole one of two steps, and a begun one."""
    # gamma 0.5, rewards 1, 2, 4, 8; ends after rows 0 and 2; the second episode is rows 1 and 2
    #   terminated at its end:  2 + 0.5 * 4 = 4
    #   truncated with V(s'_2) = 8:  2 + 0.5 * (4 + 0.5 * 8) = 6
    rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    next_values = torch.full((4, 1), 8.0)
    none, ends = torch.zeros(4, 1, dtype=torch.bool), torch.tensor([[1], [0], [1], [0]]).bool()
    begins = torch.tensor([False])
    found, counted = total_return(rewards, next_values, ends, none, begins, 0.5)
    assert found[:, 0].tolist() == [0.0, 4.0, 4.0, 0.0]
    assert counted[:, 0].tolist() == [False, True, True, False]
    found, _ = total_return(rewards, next_values, none, ends, begins, 0.5)
    assert found[:, 0].tolist() == [0.0, 6.0, 6.0, 0.0]
    # had the first episode begun with the rollout, its one step would count: 1
    found, counted = total_return(rewards, next_values, ends, none, ~begins, 0.5)
    assert found[:, 0].tolist() == [1.0, 4.0, 4.0, 0.0]
    assert counted[:, 0].tolist() == [True, True, True, False]


def test_gae_is_the_mixture_of_k_step_advantages() -> None:
    """GAE = (1 - lambda) sum_{k<n} lambda^(k-1) A^(k) + lambda^(n-1) A^(n), with finite n.

    The sum telescopes because within an episode V(s'_t) is the same number as V(s_{t+1}).
    """
    rng = np.random.default_rng(100)
    for _ in range(200):
        case = Case.draw(rng, max_steps=12)
        r, v, v_next, lam = case.rewards, case.values, case.next_values, case.gae_lambda
        T, N = r.shape
        goes_on = ~(case.terminated | case.truncated)[:-1]
        v_next[:-1] = torch.where(goes_on, v[1:], v_next[:-1])
        # A^(k) of every row, k = 1 .. T; beyond n the episode's end cuts it and it is not used
        k_step = [n_step_returns(r, v_next, *case.ends, case.gamma, k) - v for k in range(1, T + 1)]
        mixed = torch.zeros_like(r)
        for t, i in itertools.product(range(T), range(N)):
            n = case.steps_left(t, i)
            for k in range(1, n):
                mixed[t, i] += (1 - lam) * lam ** (k - 1) * k_step[k - 1][t, i]
            mixed[t, i] += lam ** (n - 1) * k_step[n - 1][t, i]
        found = gae(r, v, v_next, *case.ends, case.gamma, lam)
        torch.testing.assert_close(found, mixed, rtol=1e-9, atol=1e-9)


def test_two_steps_worked_out() -> None:
    """A rollout small enough to be done by hand, one env truncated and one terminated at its end."""
    # gamma 0.5, lambda 0.5, V(s) = 1, 2 in both envs; V(s'_0) = 2, V(s'_1) = 4; rewards 1, 3
    #   truncated:  delta_1 = 3 + 0.5 * 4 - 2 = 3      delta_0 = 1 + 0.5 * 2 - 1 = 1
    #   terminated: delta_1 = 3 - 2 = 1                delta_0 = 1
    #   A_1 = delta_1, A_0 = delta_0 + 0.25 A_1: 1.75 and 1.25
    #   reward-to-go: R_1 = 3 + 0.5 * 4 = 5 and 3, R_0 = 1 + 0.5 R_1 = 3.5 and 2.5
    both = torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    values = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    next_values = torch.tensor([[2.0, 2.0], [4.0, 4.0]])
    terminated = torch.tensor([[False, False], [False, True]])
    truncated = torch.tensor([[False, False], [True, False]])
    found = gae(both, values, next_values, terminated, truncated, 0.5, 0.5)
    assert found.tolist() == [[1.75, 1.25], [3.0, 1.0]]
    returns = reward_to_go(both, next_values, terminated, truncated, 0.5)
    assert returns.tolist() == [[3.5, 2.5], [5.0, 3.0]]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_must_not_count_does_not_leak(poison: float) -> None:
    """The value after a termination, and all of a later episode, change nothing even if not finite.

    0 x NaN is NaN: an estimator that multiplies by a mask fails here.
    """
    rng = np.random.default_rng(7)
    for _ in range(100):
        case = Case.draw(rng, max_steps=20)
        T = len(case.rewards)
        end = int(rng.integers(0, T))
        kind = case.terminated if rng.random() < 0.5 else case.truncated
        kind[end] = True  # in every env
        r, v, v_next = case.rewards, case.values, case.next_values
        k = int(rng.integers(1, T + 2))
        dirty = [x.clone() for x in (r, v, v_next)]
        for x in dirty:
            x[end + 1 :] = poison
        dirty[2][case.terminated] = poison

        def estimates(
            r: Tensor, v: Tensor, v_next: Tensor, case: Case = case, k: int = k
        ) -> Tensor:
            found = (
                gae(r, v, v_next, *case.ends, case.gamma, case.gae_lambda),
                reward_to_go(r, v_next, *case.ends, case.gamma),
                n_step_returns(r, v_next, *case.ends, case.gamma, k),
                td_errors(r, v, v_next, case.terminated, case.gamma),
                total_return(r, v_next, *case.ends, torch.ones(r.shape[1]).bool(), case.gamma)[0],
            )
            return torch.stack(found)[:, : end + 1]  # noqa: B023

        assert torch.equal(estimates(*dirty), estimates(r, v, v_next))


@given(
    st.integers(1, 70).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(-10, 10), min_size=n, max_size=n),
            st.lists(st.sampled_from([0.0, 0.5, 1.0, -0.9]), min_size=n, max_size=n),
        )
    )
)
def test_suffix_sum_equals_the_recursion(rows: tuple[list[float], list[float]]) -> None:
    """y_t = x_t + decay_t y_{t+1}: log2(T) doubling passes give what T steps back in time give."""
    xs, decays = rows
    expected, later = [], 0.0
    for x, decay in zip(reversed(xs), reversed(decays), strict=True):
        later = x + decay * later
        expected.append([later])
    found = discounted_suffix_sum(
        torch.tensor(xs, dtype=torch.float64)[:, None],
        torch.tensor(decays, dtype=torch.float64)[:, None],
    )
    assert_close(found, expected[::-1])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_normalized_advantages(advantages: list[float]) -> None:
    """(A - mean) / (std + 1e-8) with the sample standard deviation."""
    mean, std = statistics.fmean(advantages), statistics.stdev(advantages)
    expected = torch.tensor([(a - mean) / (std + 1e-8) for a in advantages], dtype=torch.float64)
    found = normalize_advantages(torch.tensor(advantages, dtype=torch.float64))
    # a batch that hardly varies has a deviation of pure rounding: 1e3 * 2^-53 / 1e-8 = 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4 if std < 1e-6 else 1e-6)


def test_one_advantage_is_not_normalized() -> None:
    """One row has no standard deviation and is returned as it is, not as NaN."""
    assert normalize_advantages(torch.tensor([3.0])).tolist() == [3.0]


@given(value=st.floats(-1e6, 1e6, width=32), count=st.integers(2, 300))
def test_equal_advantages_are_no_signal(value: float, count: int) -> None:
    """They become 0, not the rounding of their float32 mean divided by 1e-8."""
    assert not normalize_advantages(torch.full((count,), value)).any()


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=50),
)
def test_rows_that_do_not_count_are_left_out(rows: list[tuple[float, bool]]) -> None:
    """Mean and deviation are those of the rows that count; the others get 0 whatever they hold."""
    advantages = torch.tensor([a if ok else math.nan for a, ok in rows], dtype=torch.float64)
    counted = torch.tensor([ok for _, ok in rows])
    found = normalize_advantages(advantages, counted)
    assert torch.equal(found[~counted], torch.zeros_like(found[~counted]))
    torch.testing.assert_close(found[counted], normalize_advantages(advantages[counted]))


def test_explained_variance() -> None:
    """1 - Var[target - V] / Var[target]: 1 if perfect, 0 for a constant, NaN if nothing varies."""
    targets = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    # Var[target] = (4 + 1 + 0 + 9) / 4 = 3.5 about the mean 3
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(torch.full_like(targets, 9.0), targets) == 0.0
    # a constant offset does not matter
    assert explained_variance(targets + 5.0, targets) == 1.0
    # V = 0.5 target: Var[0.5 target] / Var[target] = 0.25
    assert explained_variance(0.5 * targets, targets) == pytest.approx(0.75)
    # V = -target: Var[2 target] / Var[target] = 4
    assert explained_variance(-targets, targets) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(targets, torch.ones(2, 2)))


def test_shapes_are_checked_while_tests_run() -> None:
    """A rollout whose parts differ in shape breaks an annotation: the import hook is at work."""
    four = torch.zeros(4, 1)
    ends = torch.zeros(4, 1, dtype=torch.bool)
    with pytest.raises(TypeCheckError):
        gae(four, four, torch.zeros(3, 1), ends, ends, 0.9, 0.9)
    with pytest.raises(TypeCheckError):
        gae(four, four, four, ends.float(), ends, 0.9, 0.9)
