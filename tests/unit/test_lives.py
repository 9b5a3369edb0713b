"""Laws of lost lives and of signs: what is learnt from differs, the game stays what it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import clipper
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import env_source
from clipper.errors import ConfigError, EnvironmentFault
from clipper.faults import FaultLedger
from clipper.randomness import EpisodeSeeds
from clipper.rollout import Rollout
from clipper.sampler import LocalSampler
from helpers import small_policy
from pixels import Lives

STEPS = 30


def sampler_of(counts: bool) -> LocalSampler:
    source = env_source(Lives).with_settings({"terminal_on_life_loss": counts})
    return local_sampler(source, range(2), 0, "gymnasium")


def collected(sampler: LocalSampler, num_steps: int = STEPS) -> Rollout:
    return sampler.collect(small_policy("discrete", obs_size=1, dtype=torch.float32), num_steps)


@pytest.mark.parametrize("counts", [True, False])
def test_a_lost_life_ends_an_episode_for_the_learner_alone(counts: bool) -> None:
    """Rows 3 and 7 of twelve cost a life, row 11 the game; records are of games of twelve steps."""
    rollout = collected(sampler_of(counts))
    every = 4 if counts else 12
    expected = np.arange(1, STEPS + 1) % every == 0
    np.testing.assert_array_equal(rollout.terminated.numpy(), np.stack([expected] * 2, 1))
    assert not rollout.truncated.any()
    assert [(e.episode_return, e.episode_length) for e in rollout.episodes] == [(60.0, 12)] * 4
    assert rollout.final_at.tolist() == [[11, 0], [11, 1], [23, 0], [23, 1]]
    # the observation goes on counting through lost lives
    np.testing.assert_array_equal(rollout.obs[:, 0, 0].numpy(), np.arange(STEPS) % 12)


def test_a_sampler_goes_on_within_a_life() -> None:
    """Stopped after six steps, with a life lost, it finds the next one in the same row."""
    whole = sampler_of(True)
    collected(whole, 6)
    state = whole.state_dict()
    expected = collected(whole, 9)
    other = sampler_of(True)
    assert other.load_state_dict(state) is None
    found = collected(other, 9)
    np.testing.assert_array_equal(found.terminated.numpy(), expected.terminated.numpy())
    np.testing.assert_array_equal(found.obs.numpy(), expected.obs.numpy())


class SpoiltLives(Lives):
    """In two of three episodes a step gives NaN: by the seed the first, the 4th, the 5th or the last."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.at = (0, (1, 4, 5, 12)[seed // 3 % 4])[seed % 3 > 0]
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, math.nan if self.count == self.at else reward, *rest


class Patient(FaultLedger):
    """Never has enough."""

    def count(self, env: int) -> bool:
        return False


def test_lives_in_episodes_that_are_dropped() -> None:
    """Rows are those of the games up to the step that went wrong, by counting alone.

    A life that went with the last good step stays an end for the learner.
    """
    source = env_source(SpoiltLives).with_settings({"terminal_on_life_loss": True})
    sampler = local_sampler(source, range(2), 0, "gymnasium", ledger=Patient())
    rollout = collected(sampler, 200)
    lengths, kinds = [], set()
    for env in range(2):
        counts, terminated, truncated, games = [], [], [], []
        episode = 0
        while len(counts) < 200:
            seed = EpisodeSeeds(0).of(env, episode)
            bad = (0, (1, 4, 5, 12)[seed // 3 % 4])[seed % 3 > 0]
            kinds.add(bad)
            good = bad - 1 if bad else 12
            counts += range(good)
            terminated += [n % 4 == 0 for n in range(1, good + 1)]
            truncated += [bool(bad) and n == good for n in range(1, good + 1)]
            if good and len(counts) <= 200:
                games.append((episode, good))
            episode += 1
        found = [getattr(rollout, k)[:, env] for k in ("obs", "terminated", "truncated")]
        assert found[0][:, 0].tolist() == counts[:200]
        assert found[1].tolist() == terminated[:200]
        # the step after the last row was not taken
        assert found[2][:-1].tolist() == truncated[:199]
        mine = [(e.index, e.episode_length) for e in rollout.episodes if e.env == env]
        assert mine == games[: len(mine)]
        assert len(mine) >= len(games) - 1
        lengths += [length for _, length in mine]
    assert kinds == {0, 1, 4, 5, 12}
    assert set(lengths) == {12, 3, 4, 11}


def test_an_environment_must_count_lives() -> None:
    """One that does not is told, and which setting to change."""
    agent = clipper.PPO("CartPole-v1", terminal_on_life_loss=True, eval_every=0)
    with pytest.raises(EnvironmentFault, match=r"info\['lives'\]") as caught:
        agent.train(total_timesteps=100, progress=False)
    assert "terminal_on_life_loss" in str(caught.value.hint)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "VPG", "TRPO"])
def test_signs_are_learnt_from_and_returns_are_raw(algorithm: str) -> None:
    """Rewards of 5 become targets of 1 in the value function, but returns of 60 in the records."""
    sizes = {} if algorithm == "A2C" else {"minibatch_size": 48}
    agent = getattr(clipper, algorithm)(
        Lives, preset="none", clip_reward=True, gamma=0.0, num_envs=2, num_steps=24, eval_every=0,
        **sizes,
    )  # fmt: skip
    last: list[Any] = []
    agent.train(total_timesteps=96, progress=False, callback=last.append)
    assert last[-1].metrics["rollout/episode_return"] == 60.0
    assert last[-1].metrics["rollout/reward_mean"] == 5.0
    assert last[-1].metrics["value/target_mean"] == pytest.approx(1.0, abs=1e-5)
    assert agent.evaluate(2).mean == 60.0


def test_signs_and_scaled_rewards_exclude_each_other() -> None:
    """Two settings that contradict each other are one error."""
    with pytest.raises(ConfigError, match="normalize_reward must be false"):
        clipper.PPO("CartPole-v1", clip_reward=True, normalize_reward=True)
