"""Every objective and every advantage estimator learns the probes that PPO with its defaults learns."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import probe_envs as probes
import pytest
from probe_agents import probability, trained, value

from clipper.config import Estimator
from clipper.config_ppo import Objective

SEEDS = pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
every_objective = pytest.mark.parametrize("objective", get_args(Objective))
every_estimator = pytest.mark.parametrize("advantage", get_args(Estimator))


@SEEDS
@every_objective
def test_right_action_depends_on_the_observation(objective: str, seed: int) -> None:
    """Action 1 where the observation is 1, action 0 where it is -1; worth 1 each."""
    agent = trained(probes.BothReward, seed, ent_coef=0.0, objective=objective)
    assert probability(agent, 1.0, 1) > 0.95
    assert probability(agent, -1.0, 0) > 0.95
    assert value(agent, probes.ONE) == pytest.approx(1.0, abs=0.1)


@SEEDS
@every_objective
def test_right_continuous_action(objective: str, seed: int) -> None:
    """The best action is on the bounds, with a Gaussian policy."""
    agent = trained(probes.Bounds, seed, ent_coef=0.0, objective=objective)
    np.testing.assert_allclose(agent.act(probes.ONE), [5.0, 10.0])


@SEEDS
@every_estimator
def test_right_action_for_a_later_reward(advantage: str, seed: int) -> None:
    """Action 1 at the first step, whose reward comes at the second; V(1) = 1 and V(-1) = -1."""
    agent = trained(probes.LaterReward, seed, ent_coef=0.0, advantage=advantage)
    assert probability(agent, 0.0, 1) > 0.95
    assert value(agent, probes.ONE) == pytest.approx(1.0, abs=0.05)


@SEEDS
@every_estimator
def test_values(advantage: str, seed: int) -> None:
    """Reward 1 at the second step, gamma 0.9: V(second) = 1 and V(first) = 0.9, whatever the targets."""
    agent = trained(probes.TwoSteps, seed, advantage=advantage)
    assert value(agent, probes.ONE) == pytest.approx(1.0, rel=0.02)
    assert value(agent, probes.ONE * 0) == pytest.approx(0.9, rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "kl_adaptive"},
        {"objective": "pg", "advantage": "total_return"},
        {"objective": "spo", "advantage": "n_step"},
    ],
    ids=str,
)
def test_in_torch_too(settings: dict[str, Any]) -> None:
    """The reference engine learns it with objectives and estimators in combination."""
    agent = trained(
        probes.LaterReward, 0, ent_coef=0.0, engine="reference", total_timesteps=4_000, **settings
    )
    assert probability(agent, 0.0, 1) > 0.9
