"""A2C, A2C with a trust region and ACER on environments whose values and best actions are known.

gamma is 0.9 throughout. Two seeds each; a tolerance of 2 % is what RMSprop may leave.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import probe_envs as probes
import pytest
import torch

import clipper
from clipper.agent import Agent

SEEDS = pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
ALGORITHMS: dict[str, tuple[type[Agent], dict[str, Any]]] = {
    "a2c": (clipper.A2C, {"rollouts_per_iteration": 20}),
    "a2c with a trust region": (
        clipper.A2C,
        {"rollouts_per_iteration": 20, "trust_region": True, "trust_region_delta": 0.1},
    ),
    "acer": (
        clipper.ACER,
        {"replay_start": 0, "replay_capacity": 1_000, "vf_coef": 1.0, "total_timesteps": 5_000},
    ),
}
_ACER = pytest.param("acer", marks=pytest.mark.slow)
EVERY = pytest.mark.parametrize("algorithm", ["a2c", "a2c with a trust region", _ACER])
# the trust region leaves the value function alone
VALUES = pytest.mark.parametrize("algorithm", ["a2c", "acer"])
CONTINUOUS = pytest.mark.parametrize("algorithm", [n for n in ALGORITHMS if n != "acer"])


def trained(algorithm: str, env: Any, seed: int, **settings: Any) -> Agent:
    """Returns an agent trained on a probe: a small network, no normaliser, step size to 0."""
    kind, own = ALGORITHMS[algorithm]
    plain: dict[str, Any] = {
        "gamma": 0.9,
        "total_timesteps": 16_000,
        "num_envs": 4,
        "num_steps": 5,
        "learning_rate": "linear:1e-2:0",
        "ent_coef": 0.0,
        "hidden_sizes": (16,),
        "normalize_obs": False,
        "normalize_reward": False,
        "eval_every": 0,
    }
    agent = kind(env, seed=seed, preset="none", **plain | own | settings)
    agent.train(progress=False)
    return agent


def value(agent: Agent, obs: Any) -> float:
    """Returns V of one observation as the environment gives it."""
    rows = agent.policy.obs_layout.rows(obs)
    return float(agent.policy.values(torch.from_numpy(rows)))


def probability(agent: Agent, obs: float, action: int) -> float:
    """Returns the probability of an action of a Discrete space."""
    rows = torch.tensor([[obs]], dtype=torch.float32)
    log_prob, _ = agent.policy.evaluate(rows, torch.tensor([[action]]))
    return float(log_prob.exp())


@VALUES
@SEEDS
def test_constant_reward(algorithm: str, seed: int) -> None:
    """Reward 1, then the end: V = 1."""
    agent = trained(algorithm, probes.ConstantReward, seed)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.02)


@VALUES
@SEEDS
def test_reward_seen_in_the_observation(algorithm: str, seed: int) -> None:
    """The reward is the observation: V(1) = 1 and V(-1) = -1."""
    agent = trained(algorithm, probes.ObservationReward, seed)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.02)
    assert value(agent, -probes.ONE) == pytest.approx(-1.0, rel=0.02)


@VALUES
@SEEDS
def test_discount_over_two_steps(algorithm: str, seed: int) -> None:
    """Reward 1 at the second step: V(second) = 1 and V(first) = 0.9."""
    agent = trained(algorithm, probes.TwoSteps, seed)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.02)
    assert value(agent, probes.ONE * 0) == pytest.approx(0.9, rel=0.02)


@EVERY
@SEEDS
def test_right_action(algorithm: str, seed: int) -> None:
    """Action 1 is worth 1, action 0 -1: it is found, and V is p - (1 - p) of the policy's own p."""
    agent = trained(algorithm, probes.ActionReward, seed)
    right = probability(agent, 1.0, 1)
    assert right > 0.97
    assert value(agent, probes.ONE) == pytest.approx(2 * right - 1, abs=0.05)


@EVERY
@SEEDS
def test_right_action_depends_on_the_observation(algorithm: str, seed: int) -> None:
    """Action 1 where the observation is 1, action 0 where it is -1."""
    agent = trained(algorithm, probes.BothReward, seed)
    assert probability(agent, 1.0, 1) > 0.97
    assert probability(agent, -1.0, 0) > 0.97


@VALUES
@SEEDS
@pytest.mark.parametrize("limit", [1, 8])
def test_truncation_is_no_death(algorithm: str, limit: int, seed: int) -> None:
    """Reward 1 for ever, cut after any number of steps: V = 1 / (1 - 0.9) = 10.

    Counted as death, V would be at most 1 and 4.7.
    """
    agent = trained(algorithm, probes.Forever, seed, max_episode_steps=limit)
    assert value(agent, probes.ONE) == pytest.approx(10.0, rel=0.02)


@VALUES
@SEEDS
def test_termination_is_death(algorithm: str, seed: int) -> None:
    """Reward 1 for 8 steps and a true end: with k steps left V = (1 - 0.9^k) / 0.1."""
    agent = trained(algorithm, partial(probes.Countdown, 8), seed)
    for left in range(1, 9):
        expected = (1 - 0.9**left) / 0.1
        assert value(agent, left - 1) == pytest.approx(expected, rel=0.02)


@VALUES
@SEEDS
def test_value_of_the_true_final_observation(algorithm: str, seed: int) -> None:
    """A cut is worth the observation it ended in (10), not the one after the reset (-21)."""
    agent = trained(algorithm, probes.Trap, seed, learning_rate="linear:5e-2:0")
    assert value(agent, 1) == pytest.approx(10.0, rel=0.03)
    assert value(agent, 0) == pytest.approx(-21.0, rel=0.03)


@VALUES
@SEEDS
def test_actions_numbered_from_five(algorithm: str, seed: int) -> None:
    """Of the actions 5, 6 and 7 the middle one is right, and no other number reaches the env."""
    agent = trained(algorithm, probes.Numbered, seed)
    assert agent.act(probes.ONE) == 6
    assert probability(agent, 1.0, 1) > 0.95  # the policy counts from 0


@CONTINUOUS
@SEEDS
def test_actions_are_held_in_their_box(algorithm: str, seed: int) -> None:
    """The best action is on the bounds: it is found, and none outside ever reaches the environment."""
    agent = trained(algorithm, probes.Bounds, seed)
    np.testing.assert_allclose(agent.act(probes.ONE), [5.0, 10.0])
    assert agent.evaluate(5).mean == pytest.approx(2.0)
