"""Laws of the metrics: each that is written is described, and the reference lists it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import clipper
from clipper.metrics import DESCRIPTIONS
from helpers import DictEnv

NAMES = Path(__file__).parents[2] / "docs" / "reference" / "names.md"


def emitted(env: Any, **settings: Any) -> set[str]:
    """Returns the names of all metrics of a short run."""
    found: set[str] = set()
    agent = clipper.PPO(
        env, preset="none", num_envs=2, num_steps=64, minibatch_size=64, num_epochs=1,
        total_timesteps=256, eval_every=128, eval_episodes=1, max_episode_steps=20, **settings,
    )  # fmt: skip
    agent.train(progress=False, callback=lambda report: found.update(report.metrics) or True)
    return found


def test_every_metric_is_described_and_every_description_is_of_one() -> None:
    """Discrete and continuous runs together write all that is described, and nothing else.

    One with the KL penalty, and one that learns from whole episodes.
    """
    found = emitted("Pendulum-v1", normalize_reward=True, objective="kl_adaptive")
    found |= emitted(DictEnv, advantage="total_return")
    assert {name for name in found if not name.startswith("info/")} == set(DESCRIPTIONS)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_reference_lists_every_metric(name: str) -> None:
    """`docs/reference/names.md` has a row that begins with it, with its unit if it has one."""
    rows = [line for line in NAMES.read_text(encoding="utf-8").splitlines() if f"`{name}`" in line]
    table = [row.split("|")[2].strip() for row in rows if row.startswith("| `")]
    assert table
    unit, text = DESCRIPTIONS[name]
    assert text
    assert not unit or any(unit in re.split(r"[ ,]+", cell) for cell in table)
