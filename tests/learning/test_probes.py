"""Training on environments whose values and best actions are known: one part of the method each.

gamma is 0.9 throughout. Five seeds each; a tolerance of 1 % is what the optimiser may leave.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import probe_envs as probes
import pytest
from probe_agents import probability, trained, value

SEEDS = pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))]
)


@SEEDS
def test_constant_reward(seed: int) -> None:
    """Reward 1, then the end: V = 1."""
    assert value(trained(probes.ConstantReward, seed), probes.ONE) == pytest.approx(1.0, rel=0.01)


@SEEDS
def test_reward_seen_in_the_observation(seed: int) -> None:
    """The reward is the observation: V(1) = 1 and V(-1) = -1."""
    agent = trained(probes.ObservationReward, seed)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.01)
    assert value(agent, -probes.ONE) == pytest.approx(-1.0, rel=0.01)


@SEEDS
def test_discount_over_two_steps(seed: int) -> None:
    """Reward 1 at the second step: V(second) = 1 and V(first) = 0.9."""
    agent = trained(probes.TwoSteps, seed)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.01)
    assert value(agent, probes.ONE * 0) == pytest.approx(0.9, rel=0.01)


@SEEDS
def test_right_action(seed: int) -> None:
    """Action 1 is worth 1, action 0 -1: it is found, and V is p - (1 - p) of the policy's own p."""
    agent = trained(probes.ActionReward, seed, ent_coef=0.0)
    right = probability(agent, 1.0, 1)
    assert right > 0.98
    assert value(agent, probes.ONE) == pytest.approx(2 * right - 1, abs=0.02)


@SEEDS
def test_right_action_depends_on_the_observation(seed: int) -> None:
    """Action 1 where the observation is 1, action 0 where it is -1."""
    agent = trained(probes.BothReward, seed, ent_coef=0.0)
    assert probability(agent, 1.0, 1) > 0.98
    assert probability(agent, -1.0, 0) > 0.98
    assert value(agent, probes.ONE) == pytest.approx(1.0, abs=0.05)
    assert value(agent, -probes.ONE) == pytest.approx(1.0, abs=0.05)


@SEEDS
@pytest.mark.parametrize("limit", [1, 2, 8, 64])
def test_truncation_is_no_death(limit: int, seed: int) -> None:
    """Reward 1 for ever, cut after any number of steps: V = 1 / (1 - 0.9) = 10.

    Counted as death, V would be at most 1, 1.8, 4.7 and 8.8.
    """
    agent = trained(probes.Forever, seed, max_episode_steps=limit)
    assert value(agent, probes.ONE) == pytest.approx(10.0, rel=0.01)


@SEEDS
@pytest.mark.parametrize("limit", [1, 2, 8])
def test_termination_is_death(limit: int, seed: int) -> None:
    """Reward 1 for n steps and a true end: with k steps left V = (1 - 0.9^k) / 0.1."""
    agent = trained(partial(probes.Countdown, limit), seed)
    for left in range(1, limit + 1):
        expected = (1 - 0.9**left) / 0.1
        assert value(agent, left - 1) == pytest.approx(expected, rel=0.01)


@SEEDS
def test_value_of_the_true_final_observation(seed: int) -> None:
    """A cut is worth the observation it ended in (10), not the one after the reset (-21)."""
    agent = trained(probes.Trap, seed, learning_rate="linear:3e-2:0")
    assert value(agent, 1) == pytest.approx(10.0, rel=0.01)
    assert value(agent, 0) == pytest.approx(-21.0, rel=0.01)


@SEEDS
def test_actions_are_held_in_their_box(seed: int) -> None:
    """The best action is on the bounds: it is found, and none outside ever reaches the environment."""
    agent = trained(probes.Bounds, seed, ent_coef=0.0)
    np.testing.assert_allclose(agent.act(probes.ONE), [5.0, 10.0])
    assert agent.evaluate(5).mean == pytest.approx(2.0)


@SEEDS
def test_actions_numbered_from_five(seed: int) -> None:
    """Of the actions 5, 6 and 7 the middle one is right, and no other number reaches the env."""
    agent = trained(probes.Numbered, seed, ent_coef=0.0)
    assert agent.act(probes.ONE) == 6
    assert probability(agent, 1.0, 1) > 0.95  # the policy counts from 0
