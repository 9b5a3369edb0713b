"""Laws of the preprocessing of Atari games."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clipper
from clipper.envs.atari import MOST_STEPS, AreaResize
from clipper.envs.make import env_source, episode_limit
from commands import run_apart

NEEDS_GAMES = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason='needs pip install "clipper-rl[atari]"'
)


@given(st.data())
def test_a_pixel_is_the_mean_of_the_area_it_covers(data: Any) -> None:
    """Blown up to the common multiple of both sizes, an output pixel is the mean of its block."""
    before = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    after = tuple(data.draw(st.integers(1, side)) for side in before)
    seed = data.draw(st.integers(0, 2**31))
    picture = np.random.default_rng(seed).integers(0, 256, before, dtype=np.uint8)
    blown = picture.astype(np.float64).repeat(after[0], 0).repeat(after[1], 1)
    blocks = blown.reshape(after[0], before[0], after[1], before[1])
    expected = np.floor(blocks.mean((1, 3)) + 0.5 + 1e-9)
    found = AreaResize(before, after)(picture)  # type: ignore[arg-type]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def game(name: str = "ALE/Pong-v5", **kwargs: Any) -> Any:
    return env_source(name, env_kwargs={"repeat_action_probability": 0.0, **kwargs}).make()


@NEEDS_GAMES
def test_a_step_is_four_frames_of_which_two_are_seen() -> None:
    """Beside a raw game with the same actions: rewards summed, the larger of two frames."""
    env, raw = game(), game(frameskip=1, obs_type="grayscale")
    env.reset(seed=4)
    state = env.unwrapped.ale.cloneSystemState()
    raw.reset(seed=4)
    raw.unwrapped.ale.restoreSystemState(state)
    resize = AreaResize((210, 160), (84, 84))
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(300):
        action = int(generator.integers(env.action_space.n))
        obs, reward, terminated, truncated, info = env.step(action)
        steps = [raw.step(action) for _ in range(4)]
        assert reward == sum(step[1] for step in steps)
        frames.append(resize(np.maximum(steps[2][0], steps[3][0])))
        np.testing.assert_array_equal(obs[..., -1], frames[-1])
        if len(frames) >= 4:
            np.testing.assert_array_equal(obs, np.stack(frames[-4:], -1))
        assert env.observation_space.contains(obs)
        assert (terminated, truncated, info["lives"]) == (False, False, steps[3][4]["lives"])


@NEEDS_GAMES
def test_a_game_is_a_function_of_its_seed() -> None:
    """The same seed begins alike on a used instance, others with other numbers of idle frames."""
    env = game()
    starts = []
    for seed in (1, 1, 2, 3, 4):
        env.reset(seed=seed)
        starts.append([env.step(0)[0] for _ in range(30)][-1])
        env.step(2)
    assert np.array_equal(starts[0], starts[1])
    idle = set()
    for seed in range(40):
        env.reset(seed=seed)
        idle.add(env.unwrapped.ale.getEpisodeFrameNumber())
    assert len(idle) > 15
    assert max(idle) - min(idle) <= 29


@NEEDS_GAMES
def test_limits_and_names() -> None:
    """27,000 steps unless another limit is given; arguments of the raw game leave it raw."""
    assert episode_limit(game()) == MOST_STEPS == 27_000
    short = env_source("ALE/Pong-v5", max_episode_steps=7).make()
    short.reset(seed=0)
    ends = [short.step(0)[3] for _ in range(7)]
    assert ends == [False] * 6 + [True]
    assert game(obs_type="ram").observation_space.shape == (128,)
    assert game(frameskip=4).observation_space.shape == (210, 160, 3)
    assert game("ale_py:ALE/Pong-v5").observation_space.shape == (84, 84, 4)


@NEEDS_GAMES
def test_a_lost_life_is_an_end_in_training_alone() -> None:
    """Breakout's five lives: rows are terminated more often than games end; returns are whole games'."""
    agent = clipper.PPO("ALE/Breakout-v5", num_envs=4, seed=1, eval_every=0)
    assert agent.preset == "ALE/*"
    lines = "\n".join(agent.describe())
    assert "an image of 84 x 84 pixels, 4 channels (last axis), divided by 255" in lines
    assert "repeat_action_probability 0.25" in lines
    sampler, _ = agent._playground.ready(agent.policy)
    rollout = sampler.collect(agent.policy, 400)
    agent.close()
    assert rollout.obs.element_size() == 1
    games = len(rollout.episodes)
    assert games >= 1
    assert int(rollout.terminated.sum()) >= 5 * games
    assert all(episode.episode_length > 50 for episode in rollout.episodes)


@NEEDS_GAMES
def test_games_in_workers_are_registered_once(tmp_path: Path) -> None:
    """By their package alone: Gymnasium has nothing to warn of."""
    said = run_apart(
        "train", "ALE/Pong-v5", "--workers=1", "--num-envs=2", "--num-steps=8", "--minibatch-size=16",
        "--total-timesteps=16", "--eval-every=0", "--quiet", cwd=tmp_path,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "registry" not in said.err
