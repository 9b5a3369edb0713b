"""Pixels are learnt from: a small game to its best return, whatever its observations look like."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import clipper
from pixels import Catch

SETTINGS: dict[str, Any] = {
    "total_timesteps": 80_000,
    "minibatch_size": 64,
    "learning_rate": "linear:1e-3:0",
    "clip_range": 0.2,
    "eval_every": 0,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("form", "seed"),
    [("last", 0), ("last", 1), ("last", 2), ("first", 3), ("float", 4), ("dict", 5), ("dict", 6)],
)
def test_catch_is_learnt_in_pixels(form: str, seed: int) -> None:
    """Nearly every ball is caught (best return 1); with `dict`, image and number must be joined."""
    agent = clipper.PPO(partial(Catch, form), seed=seed, **SETTINGS)
    assert agent.preset.startswith("generic/images")
    agent.train(progress=False)
    assert agent.evaluate(200).mean >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("settings", [{"shared_torso": False}, {"image_layout": "flat"}])
def test_catch_is_learnt_without_sharing_and_without_convolutions(settings: Any) -> None:
    """Two encoders learn it too, and so does an MLP of the pixels."""
    if "image_layout" in settings:
        settings = {**settings, "hidden_sizes": (64, 64)}
    agent = clipper.PPO(Catch, seed=7, **SETTINGS, **settings)
    agent.train(progress=False)
    assert agent.evaluate(200).mean >= 0.95
