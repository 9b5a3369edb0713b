"""The presets of the classic tasks reach what they promise, from seeds that nothing was tuned on."""

from __future__ import annotations

import pytest

import clipper


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [20, 21, 22])
@pytest.mark.parametrize(
    ("env", "worst"),
    [
        ("CartPole-v1", 475.0),
        ("Acrobot-v1", -90.0),
        ("Pendulum-v1", -220.0),
        ("MountainCarContinuous-v0", 85.0),
        ("LunarLander-v3", 200.0),
    ],
)
def test_a_preset_learns_its_task(env: str, worst: float, seed: int) -> None:
    """The last agent of a preset's whole run has the mean return that its worst seed may have.

    The thresholds are those of `benchmarks/returns`: mean of 100 fresh episodes, most likely action.
    """
    agent = clipper.PPO(env, seed=seed, eval_every=0)
    agent.train(progress=False)
    assert agent.evaluate(100).mean >= worst
