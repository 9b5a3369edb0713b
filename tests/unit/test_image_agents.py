"""Laws of agents that see images, from the environment to the file and back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import clipper
from clipper.errors import ConfigError, FileError, SpaceError
from pixels import Catch, CatchBeside

TINY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 32,
    "minibatch_size": 64,
    "num_epochs": 2,
    "total_timesteps": 256,
    "eval_every": 0,
    "cnn_features": 16,
}
FORMS = ("last", "first", "plane", "float", "dict")


def agent_for(form: str, **settings: Any) -> clipper.PPO:
    return clipper.PPO(partial(Catch, form), seed=2, **{**TINY, **settings})


@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_back_the_agent(form: str, tmp_path: Path) -> None:
    """Whatever its images look like, an agent acts and scores the same out of its file."""
    agent = agent_for(form)
    agent.train(progress=False)
    agent.save(tmp_path / "agent.safetensors")
    loaded = clipper.load(tmp_path / "agent.safetensors", env=partial(Catch, form))
    assert loaded.evaluate(20) == agent.evaluate(20)
    env = Catch(form)
    observations = [env.reset(seed=seed)[0] for seed in range(6)]
    singles = [agent.act(obs) for obs in observations]
    assert singles == [loaded.act(obs) for obs in observations]
    if form == "dict":
        batch = {k: np.stack([obs[k] for obs in observations]) for k in observations[0]}
    else:
        batch = np.stack(observations)
    assert agent.act(batch).tolist() == singles


def test_pixels_stay_bytes_from_the_environment_to_the_update() -> None:
    """Rollouts, last observations and minibatches are uint8; the row of a plane is 100 bytes."""
    agent = agent_for("plane")
    sampler, _ = agent._playground.ready(agent.policy)
    rollout = sampler.collect(agent.policy, 20)
    agent.close()
    for block in (rollout.obs, rollout.final_obs, rollout.last_obs):
        assert block.dtype == torch.uint8
        assert block.shape[-1] == 100
    assert agent.policy.normalize(rollout.obs).dtype == torch.uint8
    assert int(rollout.obs.max()) == 255
    # the ball is in the row that the step says, and in no other but the paddle's
    first = rollout.obs[:9, 0].reshape(9, 10, 10)
    assert all(int(first[t, t].max()) == 255 for t in range(9))


def test_workers_collect_the_same_pixels() -> None:
    """Two processes see the environments that one sees, at the first steps to the byte."""
    settings = {"policy_gain": 0.0}  # actions by noise alone, which batch sizes do not round
    rollouts = []
    for workers in (0, 1):
        agent = agent_for("dict", workers=workers, **settings)
        sampler, _ = agent._playground.ready(agent.policy)
        rollouts.append(sampler.collect(agent.policy, 40))
        agent.close()
    for name in ("obs", "actions", "rewards", "terminated", "final_obs", "last_obs"):
        assert torch.equal(*(getattr(rollout, name) for rollout in rollouts)), name
    torch.testing.assert_close(rollouts[0].values, rollouts[1].values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "ACER", "VPG", "TRPO", "CEM"])
def test_every_algorithm_takes_images(algorithm: str) -> None:
    """All of them train on an image beside a number, and say how they take it."""
    sizes = {k: TINY[k] for k in ("num_envs", "cnn_features", "eval_every")}
    if algorithm == "CEM":
        sizes |= {"population_size": 4, "num_score_episodes": 1}
    agent = getattr(clipper, algorithm)(CatchBeside, seed=1, **sizes)
    before = {k: v.clone() for k, v in agent.policy.state_dict().items()}
    agent.train(total_timesteps=1200, progress=False)
    after = agent.policy.state_dict()
    moved = [k for k in before if "encoder" in k and not torch.equal(before[k], after[k])]
    assert moved
    lines = "\n".join(agent.describe())
    assert "camera: an image of 10 x 10 pixels, 1 channel (last axis), divided by 255" in lines
    assert "a small CNN" in lines
    assert "observations are images" in agent.describe_engine()


def test_films_are_made_of_agents_that_see_pixels(tmp_path: Path) -> None:
    """`record` plays what `evaluate` plays."""
    agent = agent_for("first")
    returns = agent.record(tmp_path / "catch.gif", episodes=3)
    assert returns == list(agent.evaluate(3).returns)
    assert (tmp_path / "catch.gif").stat().st_size > 500


def test_a_flat_layout_is_a_vector_for_the_native_engine() -> None:
    """`image_layout flat` makes of the pixels what a vector is: normalised, and an MLP's."""
    agent = agent_for("last", image_layout="flat")
    assert agent.policy.obs_layout.row_type is np.float32
    assert agent.policy.normalizer is not None
    assert "observation: Box[10, 10, 1] is flattened to 100 numbers" in agent.describe()
    agent.train(progress=False)


def test_the_layout_is_kept_in_the_file(tmp_path: Path) -> None:
    """A file of a run with a given layout opens with it, without being told again."""
    agent = agent_for("last", image_layout="channels_first")
    assert agent.policy.obs_layout.images[0].image.network_shape == (10, 10, 1)
    agent.train(progress=False)
    agent.save(tmp_path / "agent.safetensors")
    loaded = clipper.load(tmp_path / "agent.safetensors", env=partial(Catch, "last"))
    assert loaded.policy.obs_layout.images[0].image.network_shape == (10, 10, 1)
    assert loaded.evaluate(5) == agent.evaluate(5)


def test_weights_of_another_image_are_refused(tmp_path: Path) -> None:
    """A file's network must fit; the message names a tensor and both shapes."""
    agent_for("last").save(tmp_path / "agent.safetensors")
    other = agent_for("last", cnn_features=8)
    with pytest.raises(FileError, match="must hold the tensors of this policy"):
        other.init_from(tmp_path / "agent.safetensors")


def test_a_module_that_wants_rows_is_told_what_it_gets() -> None:
    """The law names the shapes of images in the order that torch has them."""

    def rows(obs_size: Any, num_outputs: int) -> nn.Module:
        return nn.Linear(3, num_outputs)

    with pytest.raises(ConfigError, match=r"for observations \[M, 1, 10, 10\]"):
        agent_for("last", module=rows)
    with pytest.raises(ConfigError, match=r"\{camera: \[M, 1, 10, 10\], paddle: \[M, 1\]\}"):
        agent_for("dict", module=rows)


def test_wrong_pixels_are_refused() -> None:
    """`act` takes what the space has: another size is an error that names both."""
    agent = agent_for("last")
    with pytest.raises(SpaceError, match=r"\(10, 10, 1\)"):
        agent.act(np.zeros((9, 10, 1), np.uint8))
