"""Laws of scoring: a candidate's return is what it would get alone, whoever steps its environment."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch

from clipper.config_ppo import PPOConfig
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import env_source
from clipper.envs.vector import VectorEnv
from clipper.errors import EnvironmentFault, NumericsError
from clipper.faults import FaultLedger
from clipper.policies.vectors import mode_parameters, read_vector, write_vector
from clipper.randomness import EpisodeSeeds
from clipper.sampler import LocalSampler
from clipper.scoring import Contest, Score
from clipper.workers import ProcessSampler
from helpers import DictEnv, flat_parameters, policy_for

ENVS: dict[str, Any] = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1", "dict": DictEnv}
SEED, NUM_ENVS = 5, 3


def vectors_for(policy: Any, count: int, seed: int = 0) -> np.ndarray:
    """Returns candidates around nothing, float32 [count, K]."""
    size = len(read_vector(mode_parameters(policy)))
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def local(env: Any, num_envs: int = NUM_ENVS) -> LocalSampler:
    return local_sampler(env_source(env), range(num_envs), SEED, "auto")


def by_hand(env: Any, policy: Any, vector: np.ndarray, seeds: list[int]) -> tuple[Any, ...]:
    """Returns returns and lengths of episodes in one fresh environment, and all observations seen."""
    made = env() if callable(env) else gymnasium.make(env)
    write_vector(mode_parameters(policy), torch.from_numpy(vector))
    returns, lengths, seen = [], [], []
    for seed in seeds:
        obs, _ = made.reset(seed=seed)
        total, length, ended = 0.0, 0, False
        while not ended:
            rows = policy.obs_layout.rows(obs)
            seen.append(rows[0].copy())
            action = policy.action_layout.to_env(policy.act(rows, None))[0]
            obs, reward, terminated, truncated, _ = made.step(action)
            total += float(reward)
            length += 1
            ended = terminated or truncated
        returns.append(total)
        lengths.append(length)
    made.close()
    return returns, lengths, np.array(seen)


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_score_is_what_the_candidate_gets_alone(name: str, engine: str) -> None:
    """Candidate c plays in environment c mod N, whose episodes' seeds count on from call to call."""
    env = ENVS[name]
    policy, alone = policy_for(env, engine), policy_for(env, engine)
    vectors = vectors_for(policy, 7)
    sampler = local(env)
    seeds = EpisodeSeeds(SEED)
    played = dict.fromkeys(range(NUM_ENVS), 0)
    for _ in range(2):
        found = sampler.score(policy, vectors, 2)
        assert list(found) == list(range(7))
        for candidate, score in found.items():
            n = candidate % NUM_ENVS
            own = [seeds.of(n, played[n] + k) for k in range(2)]
            returns, lengths, seen = by_hand(env, alone, vectors[candidate], own)
            assert score.is_complete
            assert [e.episode_return for e in score.episodes] == pytest.approx(returns, rel=1e-12)
            assert [e.episode_length for e in score.episodes] == lengths
            assert [e.env for e in score.episodes] == [n, n]
            assert [e.index for e in score.episodes] == [played[n], played[n] + 1]
            assert score.num_steps == sum(lengths) == len(seen)
            assert score.mean_return == pytest.approx(np.mean(returns), rel=1e-12)
            count, mean, m2 = np.split(score.moments, [1, 1 + seen.shape[1]])
            assert count == [len(seen)]
            np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(
                m2, seen.astype(float).var(0) * len(seen), rtol=1e-5, atol=1e-6
            )
            played[n] += 2
    sampler.close()


def same(found: dict[int, Score], expected: dict[int, Score]) -> None:
    assert list(found) == list(expected)
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        assert ours.episodes == theirs.episodes
        assert (ours.num_steps, ours.is_complete) == (theirs.num_steps, theirs.is_complete)
        np.testing.assert_array_equal(ours.moments, theirs.moments)


@pytest.mark.parametrize(
    ("name", "num_workers", "isolated"),
    [("cartpole", 1, False), ("dict", 2, False), ("pendulum", 1, True), ("dict", 3, True)],
)
@pytest.mark.parametrize("budget", [pytest.param(None, marks=pytest.mark.slow), 350])
def test_one_process_or_many_score_the_same(
    name: str, num_workers: int, isolated: bool, budget: int | None
) -> None:
    """Every episode, every moment and what a budget cuts are those of one process, call after call."""
    env = ENVS[name]
    policy = policy_for(env)
    vectors = vectors_for(policy, 7)
    alone, config = local(env), PPOConfig().replace(hidden_sizes=(8,))
    expected = [alone.score(policy, vectors, 1, budget) for _ in range(2)]
    sampler = ProcessSampler(
        env_source(env), NUM_ENVS, num_workers, SEED, policy, config, is_isolated=isolated
    )
    try:
        for scores in expected:
            same(sampler.score(policy, vectors, 1, budget), scores)
        state = sampler.state_dict()
    finally:
        sampler.close()
    for key, array in alone.state_dict().items():
        np.testing.assert_array_equal(state[key], array, err_msg=key)


def test_the_engine_steps_them_one_by_one_as_well() -> None:
    """CartPole in C++ has Gymnasium's own numbers, also when environments are stepped singly."""
    policy = policy_for("CartPole-v1")
    vectors = vectors_for(policy, 8)
    expected = local("CartPole-v1").score(policy, vectors, 2, 300)
    sampler = local_sampler(env_source("CartPole-v1"), range(NUM_ENVS), SEED, "native")
    found = sampler.score(policy, vectors, 2, 300)
    assert list(found) == list(expected)
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        assert [e.episode_return for e in ours.episodes] == [
            e.episode_return for e in theirs.episodes
        ]
        assert (ours.num_steps, ours.is_complete) == (theirs.num_steps, theirs.is_complete)
        np.testing.assert_allclose(ours.moments, theirs.moments, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 2, 3, 100, 257, 400])
def test_a_budget_is_spent_to_the_step(budget: int) -> None:
    """Pendulum's episodes have 200 steps: 5 of them would need 1,000, and each share is cut in turn.

    Environments 0, 1 and 2 have shares that differ by one at most; candidates after the one that was
    cut are missing.
    """
    policy = policy_for("Pendulum-v1")
    found = local("Pendulum-v1").score(policy, vectors_for(policy, 5), 1, budget)
    assert sum(score.num_steps for score in found.values()) == budget
    shares = [sum(s.num_steps for c, s in found.items() if c % 3 == n) for n in range(3)]
    assert max(shares) - min(shares) <= 1
    for score in found.values():
        assert score.is_complete == (score.num_steps == 200)
        assert len(score.episodes) == int(score.is_complete)
        assert score.moments[0] == score.num_steps


def test_what_is_left_of_a_budget_is_not_spent() -> None:
    """Fewer steps are taken than are allowed where the candidates need no more."""
    policy = policy_for("CartPole-v1")
    vectors = vectors_for(policy, 6)
    free = local("CartPole-v1").score(policy, vectors, 1)
    same(local("CartPole-v1").score(policy, vectors, 1, 1_000_000), free)


@pytest.mark.parametrize("budget", [None, 250])
def test_everything_is_left_as_it_was_found(budget: int | None) -> None:
    """The policy has its own parameters again; environments stand at the start of an episode."""
    policy = policy_for("Pendulum-v1")
    before = flat_parameters(policy)
    sampler = local("Pendulum-v1")
    sampler.score(policy, vectors_for(policy, 5), 1, budget)
    assert torch.equal(flat_parameters(policy), before)
    state = sampler.state_dict()
    assert state["lengths"].tolist() == [0, 0, 0]
    # and go on from there
    again = local("Pendulum-v1")
    assert again.load_state_dict(state) is None
    vectors = vectors_for(policy, 4, seed=1)
    same(again.score(policy, vectors, 1), sampler.score(policy, vectors, 1))


class Faulty(DictEnv):
    """Goes wrong in the third episode: raises, or gives what is not a number."""

    how = "raise"
    episodes = 0

    def reset(self, **keywords: Any) -> Any:
        Faulty.episodes += 1
        return super().reset(**keywords)

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        if Faulty.episodes > 3 and Faulty.how == "raise":
            raise RuntimeError("the motor is on fire")
        if Faulty.episodes > 3 and Faulty.how == "reward":
            reward = math.nan
        if Faulty.episodes > 3 and Faulty.how == "obs":
            obs = {**obs, "clock": np.array([math.inf], dtype=np.float32)}
        return obs, reward, *rest


@pytest.mark.parametrize(
    ("how", "error"),
    [("raise", EnvironmentFault), ("reward", NumericsError), ("obs", NumericsError)],
)
def test_a_fault_names_the_environment_and_gives_the_policy_back(
    how: str, error: type[Exception]
) -> None:
    """What goes wrong in a candidate's episode is found in it, and the policy is unharmed."""
    Faulty.how, Faulty.episodes = how, 0
    policy = policy_for(DictEnv)
    before = flat_parameters(policy)
    sampler = LocalSampler(VectorEnv(env_source(Faulty), 1, EpisodeSeeds(0)), 0)
    with pytest.raises(error, match="environment 0"):
        sampler.score(policy, vectors_for(policy, 9), 1)
    assert torch.equal(flat_parameters(policy), before)


class Long(gymnasium.Env[Any, Any]):
    """Shows the sum of its actions; gives NaN as the reward in each episode's step 2,500."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    taken: ClassVar[list[list[int]]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.taken.append([])
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        actions = self.taken[-1]
        actions.append(int(action))
        obs = np.sin([len(actions), sum(actions)]).astype(np.float32)
        return obs, math.nan if len(actions) == 2500 else 1.0, False, False, {}


class Patient(FaultLedger):
    """Never has enough."""

    def count(self, env: int) -> bool:
        return False


def test_a_fault_late_in_an_episode_has_all_of_its_actions() -> None:
    """Steps are scored 1,024 at a time; what plays the fault again begins at the reset.

    Two dropped episodes of 2,499 good steps each, one after the other.
    """
    Long.taken.clear()
    policy = policy_for(Long)
    envs = VectorEnv(env_source(Long), 1, EpisodeSeeds(0))
    envs.drop_episodes(Patient())
    found = LocalSampler(envs, 0).score(policy, vectors_for(policy, 1, seed=10), 2)
    assert [e.episode_length for e in found[0].episodes] == [2499, 2499]
    faults = envs.take_faults()
    assert [fault.step for fault in faults] == [2500, 2500]
    for fault, taken in zip(faults, [t for t in Long.taken if t], strict=True):
        assert 0 < sum(taken) < 2500
        assert fault.actions[:, 0].tolist() == taken


def test_shares_and_candidates_are_dealt_out_whole() -> None:
    """Every candidate belongs to one environment, and the shares of a budget sum to it."""
    contest = Contest(np.zeros((11, 2), dtype=np.float32), 1, 4, 103)
    dealt = sorted(c for env in range(4) for c in contest.candidates_of(env))
    assert dealt == list(range(11))
    assert sum(contest.share_of(env) for env in range(4)) == 103
    assert Contest(np.zeros((1, 2), dtype=np.float32), 1, 4).share_of(2) == math.inf
