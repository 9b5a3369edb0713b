"""Laws of an examination: which episodes are played, what is counted, and what the numbers mean."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import gymnasium
import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium import spaces

import clipper
from clipper.action_layout import ActionLayout
from clipper.envs.make import EnvSource, env_source
from clipper.errors import ConfigError, EnvironmentFault, NumericsError
from clipper.evaluation import Evaluation, bootstrap_interval, evaluate
from clipper.exam import EXAM, SELECTION, play_frames
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import build_policy
from clipper.policies.networks import MLPShape
from clipper.randomness import EpisodeSeeds, Purpose, derived_seed
from clipper.spaces import ObservationLayout
from helpers import DictEnv

SEEN: list[int] = []


class Lottery(gymnasium.Env[Any, Any]):
    """An episode's length (1 to 9) and rewards are a function of its seed; actions are noted.

    Args:
        change: Turns what `step` returns into something else.
    """

    def __init__(self, change: Any = None) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = spaces.Discrete(3)
        self.change = change

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed is not None
        SEEN.append(seed)
        self.length, self.at = int(self.np_random.integers(1, 10)), 0
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        reward = float(self.np_random.normal()) + 0.5 * int(action)
        found = self.obs(), reward, self.at == self.length, False, {}
        return found if self.change is None else self.change(self, found)

    def obs(self) -> Any:
        return self.np_random.normal(size=2).astype(np.float32)


def policy_for(source: EnvSource, *, normalize_obs: bool = False) -> ActorCritic:
    """Returns a policy whose actions depend on the observation and are far from certain."""
    env = source.make()
    shape = MLPShape(
        hidden_sizes=(8,),
        value_hidden_sizes=(8,),
        activation="tanh",
        shared_torso=False,
        hidden_gain=math.sqrt(2),
        policy_gain=1.0,
        value_gain=1.0,
    )
    return build_policy(
        ObservationLayout(env.observation_space),
        ActionLayout(env.action_space),
        shape,
        module=None,
        seed=0,
        log_std_init=-0.5,
        normalize_obs=normalize_obs,
    )


def exam(make: Any = Lottery, **options: Any) -> Evaluation:
    """Returns the evaluation of a fixed small policy."""
    source = env_source(make)
    settings = {"episodes": 20, "seed": 0, "deterministic": True, **options}
    return evaluate(policy_for(source), source, **settings)


# ---- numbers -------------------------------------------------------------------------------------


def test_mean_deviation_and_interval_against_other_libraries() -> None:
    """Mean and sample deviation as in `statistics`; the interval as in SciPy's percentile bootstrap.

    Two bootstraps of 10,000 resamples differ by chance: the ends' standard error is about
    0.02 of the interval's width, so a tenth of it is five of them.
    """
    found = exam(episodes=40)
    returns = list(found.returns)
    assert len(returns) == len(found.lengths) == found.episodes == 40
    assert found.mean == pytest.approx(statistics.fmean(returns), rel=1e-12)
    assert found.std == pytest.approx(statistics.stdev(returns), rel=1e-12)
    theirs = scipy.stats.bootstrap(
        (np.array(returns),),
        np.mean,
        n_resamples=10_000,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.1 * width)
    assert found.low < found.mean < found.high


def test_one_episode_has_no_interval() -> None:
    """Neither in words nor in JSON: an interval without width would be a claim."""
    found = Evaluation(
        env="E", episodes=1, seed=3, deterministic=True, mean=2.0, std=0.0, low=2.0, high=2.0,
        returns=(2.0,), lengths=(5,),
    )  # fmt: skip
    assert str(found) == "E: return 2.0 (1 episode, deterministic, seed 3)"
    assert [found.to_json()[name] for name in ("std", "low", "high")] == [None] * 3


def test_the_interval_of_three_numbers_by_counting() -> None:
    """All 27 resamples of (0, 1, 5) can be listed; the interval's ends are the list's quantiles.

    The least mean is 0 (probability 1/27 > 2.5 %), the largest 5, and the next 11/3 (3/27): at
    95 % the ends are 0 and 5, at 90 % (5 % > 1/27 on each side) they are 1/3 and 11/3.
    """
    values = np.array([0.0, 1.0, 5.0])
    assert bootstrap_interval(values, 0) == (0.0, 5.0)
    low, high = bootstrap_interval(values, 0, level=0.9)
    assert (low, high) == pytest.approx((1 / 3, 11 / 3))


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 300 samples of 40 normal numbers about 94 % (bootstraps are a little narrow) cover 0.

    With 300 trials the standard error is 1.3 %, so 89 to 99 % is four of them.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(rng.normal(size=40), seed, resamples=1000)
        covered += low < 0 < high
    assert 0.89 <= covered / 300 <= 0.99


def test_one_episode_has_no_spread() -> None:
    """The interval of one number is that number."""
    found = exam(episodes=1)
    assert found.std == 0
    assert found.low == found.high == found.mean == found.returns[0]


def test_many_episodes_are_resampled_in_blocks() -> None:
    """Memory is bounded by blocks of a million draws, and blocks change nothing: seeds are counted.

    3,000 numbers take 30 blocks; standard error of the mean 1 / sqrt(3000) = 0.018, so the
    interval is about 1.96 * 0.018 to each side.
    """
    values = np.random.default_rng(0).normal(size=3000)
    low, high = bootstrap_interval(values, 0, resamples=2000)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(3000), rel=0.08)
    assert bootstrap_interval(values, 0, resamples=2000) == (low, high)
    assert bootstrap_interval(values, 1, resamples=2000) != (low, high)


def test_the_summary_is_json_and_a_line() -> None:
    """What is shown has the numbers, the mode and the seed, and not every episode."""
    found = exam(seed=7, deterministic=False)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    wanted = {"env", "episodes", "seed", "deterministic", "mean", "std", "low", "high"}
    assert set(data) == wanted
    assert (data["env"], data["seed"], data["deterministic"]) == ("Lottery", 7, False)
    line = str(found)
    for part in (f"{found.mean:.1f}", "95 %", "20 episodes", "stochastic", "seed 7"):
        assert part in line


# ---- episodes ------------------------------------------------------------------------------------


def test_every_episode_is_played_to_its_end_and_counts() -> None:
    """Short episodes are not favoured: each seed's length is the one it gives when played alone."""
    found = exam(episodes=30)
    env = Lottery()
    for i, seed in enumerate(derived_seed(0, EXAM.episode_seed, 0, np.arange(30)).tolist()):
        env.reset(seed=seed)
        assert found.lengths[i] == env.length


def test_episodes_have_seeds_of_their_own() -> None:
    """Every episode has another seed, and none is one that training or selection resets with."""
    SEEN.clear()
    exam(episodes=50)
    played = set(SEEN)
    assert len(SEEN) == len(played) == 50
    SEEN.clear()
    exam(episodes=50, purposes=SELECTION)
    selected = set(SEEN)
    training = EpisodeSeeds(0)
    trained = {training.of(env, episode) for env in range(16) for episode in range(50)}
    assert not played & selected
    assert not played & trained
    assert not selected & trained
    assert len(set(Purpose)) == len(Purpose)


def test_the_seed_fixes_the_episodes() -> None:
    """The same seed gives the same numbers to the last bit, another seed others."""
    assert exam(seed=3) == exam(seed=3)
    assert exam(seed=3).returns != exam(seed=4).returns
    # a longer examination begins with the same episodes
    assert exam(seed=3, episodes=25).returns[:20] == exam(seed=3).returns


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("make", [Lottery, DictEnv])
def test_how_many_play_side_by_side_changes_nothing(make: Any, deterministic: bool) -> None:
    """Episode i is a function of (seed, i), whoever plays beside it and in which environment."""
    runs = [
        exam(make, episodes=13, deterministic=deterministic, num_envs=count)
        for count in (1, 2, 5, 16)
    ]
    assert all(run == runs[0] for run in runs)


def test_an_instance_plays_all_episodes_alone() -> None:
    """A single environment gives what fresh ones give, and stays open."""

    class Closes(Lottery):
        closed = False

        def close(self) -> None:
            self.closed = True

    env = Closes()
    alone = exam(env)
    assert not env.closed
    assert alone.returns == exam().returns


def test_fresh_environments_are_closed() -> None:
    """An examination leaves nothing open, not even after a fault; at most 16 are made."""
    made: list[Any] = []

    class Closes(Lottery):
        def __init__(self, change: Any = None) -> None:
            super().__init__(change)
            self.closed = 0
            made.append(self)

        def close(self) -> None:
            self.closed += 1

    source, fault = env_source(Closes), env_source(lambda: Closes(lambda env, found: 1 / 0))
    policy = policy_for(source)
    made.clear()
    evaluate(policy, source, episodes=40, seed=0, deterministic=True)
    assert [env.closed for env in made] == [1] * 16
    made.clear()
    with pytest.raises(EnvironmentFault):
        evaluate(policy, fault, episodes=3, seed=0, deterministic=True)
    assert [env.closed for env in made] == [1] * 3


def test_an_episode_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that never ends does not make the examination endless."""
    monkeypatch.setattr("clipper.evaluation.MAX_EPISODE_STEPS", 50)
    endless = lambda env, found: (*found[:2], False, False, {})  # noqa: E731
    found = exam(lambda: Lottery(endless), episodes=3)
    assert found.lengths == (50, 50, 50)
    assert found.num_cut == 3
    assert "3 did not end and were cut after 50 steps" in str(found)


def test_a_cap_on_the_whole_examination_is_shared_by_its_episodes() -> None:
    """20 episodes within 100 steps: 5 steps each, whoever plays beside whom; the cut are counted.

    Lottery's episodes have 1 to 9 steps; one of exactly 5 ends by itself.
    """
    whole = exam()
    runs = [exam(max_steps=100, num_envs=count) for count in (1, 3, 16)]
    assert all(run == runs[0] for run in runs)
    found = runs[0]
    assert found.lengths == tuple(min(n, 5) for n in whole.lengths)
    assert found.num_cut == sum(n > 5 for n in whole.lengths) > 0
    assert "cut" in str(found)
    short = [i for i, n in enumerate(whole.lengths) if n <= 5]
    assert [found.returns[i] for i in short] == [whole.returns[i] for i in short]
    assert whole.num_cut == 0
    assert "cut" not in str(whole)
    # less than a step each is one step each
    assert set(exam(max_steps=3).lengths) == {1}


def test_a_callable_that_gives_one_instance_again_and_again_is_refused() -> None:
    """One object cannot play two episodes at once."""
    env = Lottery()
    with pytest.raises(ConfigError, match="gave the same one twice"):
        exam(lambda: env)


def test_an_environment_that_remembers_is_new_for_every_episode() -> None:
    """BipedalWalker's third reset on one instance is another than on a new one (Box2D's order).

    Here all episodes play on one environment, or on five side by side, and must be equal; its
    actions are continuous, so that the policy's outputs must be equal to the last bit as well.
    """
    source = env_source("BipedalWalker-v3", max_episode_steps=12)
    assert source.is_fresh_per_episode
    policy = policy_for(source)
    runs = [
        evaluate(policy, source, episodes=5, seed=0, deterministic=True, num_envs=count)
        for count in (1, 5)
    ]
    assert runs[0] == runs[1]


# ---- the policy ----------------------------------------------------------------------------------


class Shows(gymnasium.Env[Any, Any]):
    """Ten steps; notes each observation with the action it was answered by."""

    log: list[tuple[Any, int]]

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = spaces.Discrete(3)
        self.log = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        self.log.append((self.last, int(action)))
        self.at += 1
        return self.obs(), 0.0, False, self.at == 10, {}

    def obs(self) -> Any:
        self.last = self.np_random.normal(5.0, 3.0, size=2).astype(np.float32)
        return self.last


def test_deterministic_takes_the_most_likely_action() -> None:
    """Each action is the argmax of the policy's logits at that observation."""
    env = Shows()
    source = env_source(env)
    policy = policy_for(source)
    evaluate(policy, source, episodes=20, seed=0, deterministic=True)
    obs = torch.from_numpy(np.stack([row for row, _ in env.log]))
    with torch.no_grad():
        logits, _ = policy(policy.normalize(obs))
    assert logits.argmax(-1).tolist() == [action for _, action in env.log]
    assert len({action for _, action in env.log}) > 1


def test_stochastic_samples_with_the_policys_probabilities() -> None:
    """Over 4,000 steps each action is taken as often as the probabilities it had add up to.

    The variance of a count is the sum of p (1 - p); four standard deviations are allowed.
    """
    env = Shows()
    source = env_source(env)
    policy = policy_for(source)
    evaluate(policy, source, episodes=400, seed=0, deterministic=False)
    obs = torch.from_numpy(np.stack([row for row, _ in env.log]))
    with torch.no_grad():
        probabilities = policy(policy.normalize(obs))[0].double().softmax(-1).numpy()
    counts = np.bincount([action for _, action in env.log], minlength=3)
    expected = probabilities.sum(0)
    deviation = np.sqrt((probabilities * (1 - probabilities)).sum(0))
    assert (np.abs(counts - expected) < 4 * deviation).all()


def test_the_normaliser_is_frozen() -> None:
    """Examining an agent, in either mode, does not move its statistics or weights by a bit."""
    source = env_source(Shows)
    policy = policy_for(source, normalize_obs=True)
    rng = np.random.default_rng(0)
    policy.merge_observations(torch.from_numpy(rng.normal(50.0, 9.0, size=(64, 2, 2))).float())
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    assert policy.normalizer is not None
    mean = policy.normalizer.mean.clone()
    first = evaluate(policy, source, episodes=5, seed=0, deterministic=False)
    assert evaluate(policy, source, episodes=5, seed=0, deterministic=False) == first
    assert all(torch.equal(before[name], t) for name, t in policy.state_dict().items())
    assert torch.equal(mean, policy.normalizer.mean)


def test_the_normaliser_is_used() -> None:
    """An agent that was fitted to observations around (5, 5) sees them normalised in the exam."""
    env = Shows()
    source = env_source(env)
    policy = policy_for(source, normalize_obs=True)
    rng = np.random.default_rng(0)
    rows = rng.normal(5.0, 3.0, size=(4096, 1, 2)).astype(np.float32)
    policy.merge_observations(torch.from_numpy(rows))
    evaluate(policy, source, episodes=20, seed=0, deterministic=True)
    obs = np.stack([row for row, _ in env.log])
    normal = (obs - rows.reshape(-1, 2).mean(0)) / rows.reshape(-1, 2).std(0)
    with torch.no_grad():
        logits = policy(torch.from_numpy(normal))[0]
        raw = policy(torch.from_numpy(obs))[0]
    actions = [action for _, action in env.log]
    assert logits.argmax(-1).tolist() == actions
    assert raw.argmax(-1).tolist() != actions


def test_examining_in_the_middle_of_training_changes_nothing() -> None:
    """A run that is examined after every iteration ends in the same bits as one that is not."""
    ends = []
    for examined in (False, True):
        agent = clipper.PPO("CartPole-v1", preset="none", num_steps=32, minibatch_size=32)

        def examine(report: Any, agent: Any = agent, examined: bool = examined) -> None:
            if examined:
                agent.evaluate(2, deterministic=False)

        agent.train(32 * agent.config.num_envs * 3, progress=False, callback=examine)
        ends.append(agent.policy.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


# ---- faults --------------------------------------------------------------------------------------


def spoilt(what: Any) -> Any:
    """Returns environments whose second step goes wrong in the episodes that get so far."""

    def change(env: Lottery, found: Any) -> Any:
        return what(found) if env.at == 2 else found

    return lambda: Lottery(change)


def first_long_episode() -> tuple[int, int]:
    """Returns the first evaluation episode that has a second step, and its seed."""
    lengths = exam(episodes=20).lengths
    episode = next(i for i, length in enumerate(lengths) if length >= 2)
    return episode, int(derived_seed(0, EXAM.episode_seed, 0, episode))


def _raises(found: Any) -> Any:
    raise ZeroDivisionError("by design")


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        (_raises, EnvironmentFault, "ZeroDivisionError: by design"),
        (lambda found: (np.zeros(3), *found[1:]), EnvironmentFault, r"\(3,\)"),
        (lambda found: found[:4], EnvironmentFault, "returned 4 values, as in the old gym"),
        (lambda found: (found[0], math.nan, *found[2:]), NumericsError, "finite"),
        (
            lambda found: (np.array([0, np.inf], np.float32), *found[1:]),
            NumericsError,
            "finite",
        ),
        (
            lambda found: (np.array([np.nan, 0], np.float32), found[1], True, *found[3:]),
            NumericsError,
            "finite",
        ),
    ],
)
def test_a_fault_names_episode_step_and_seed(what: Any, kind: Any, words: str) -> None:
    """Steps are counted from 1, as in training; the seed lets the user play it again."""
    episode, seed = first_long_episode()
    with pytest.raises(kind, match=words) as caught:
        exam(spoilt(what), num_envs=1)
    assert f"evaluation episode {episode}, step 2, seed {seed}" in caught.value.message


# ---- frames --------------------------------------------------------------------------------------


class Painted(Lottery):
    """Renders its step as the picture's grey."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((4, 6, 3), self.at, dtype=np.uint8)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_film_shows_the_episodes_of_the_examination(deterministic: bool) -> None:
    """Frames from the first observation to the last; the returns are those `evaluate` gives."""
    source = env_source(Painted)
    policy = policy_for(source)
    result = evaluate(policy, source, episodes=3, seed=2, deterministic=deterministic)
    frames = list(
        play_frames(policy, source.make(), "x", episodes=3, seed=2, deterministic=deterministic)
    )
    greys = [(episode, int(frame[0, 0, 0])) for frame, episode, _ in frames]
    assert greys == [(i, at) for i, n in enumerate(result.lengths) for at in range(n + 1)]
    totals = {episode: total for _, episode, total in frames}
    assert tuple(totals.values()) == pytest.approx(result.returns)


def test_an_environment_that_does_not_render_is_told() -> None:
    """`render` returns None, or raises: a typed error that says what to do."""
    source = env_source(Lottery)
    policy = policy_for(source)

    class Mute(Lottery):
        def render(self) -> Any:
            return None

    class Raises(Lottery):
        def render(self) -> Any:
            raise RuntimeError("no display")

    for env, words in ((Mute(), "NoneType"), (Raises(), "no display")):
        frames = play_frames(policy, env, "x", episodes=1, seed=0, deterministic=True)
        with pytest.raises(EnvironmentFault, match=words):
            next(frames)


def test_a_first_observation_that_is_not_finite_is_an_error() -> None:
    """As it is in training: what the policy made of it would be no honest return."""

    class Rotten(gymnasium.Wrapper[Any, Any, Any, Any]):
        def reset(self, **keywords: Any) -> Any:
            obs, info = super().reset(**keywords)
            return np.full_like(obs, np.nan), info

    agent = clipper.PPO(lambda: Rotten(gymnasium.make("CartPole-v1")), preset="none")
    with pytest.raises(NumericsError, match="evaluation episode 0, step 0"):
        agent.evaluate(2)
    agent.close()


# ---- episodes that are left out -------------------------------------------------------------------


def _flawed(seed: int) -> str | None:
    """Returns what an episode with this seed gives that is not finite."""
    return {0: "reset", 1: "reward", 2: "obs"}.get(seed % 6)


class Flawed(Lottery):
    """By its episode's seed begins with infinity, ends with NaN as the reward or in an observation."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        assert seed is not None
        self.flaw = _flawed(seed)
        return (obs + math.inf if self.flaw == "reset" else obs), info

    def step(self, action: Any) -> Any:
        assert self.flaw != "reset"  # it is not begun
        obs, reward, terminated, *rest = super().step(action)
        if self.at * 2 >= self.length and self.flaw == "reward":
            reward, terminated = math.nan, False
        if self.at * 2 >= self.length and self.flaw == "obs":
            obs[0], terminated = math.nan, False
        return obs, reward, terminated, *rest


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("num_envs", [1, 5, 16])
def test_episodes_that_are_not_finite_are_left_out_alone(
    num_envs: int, deterministic: bool
) -> None:
    """The others have the returns that they have where nothing goes wrong, whoever plays beside them."""
    whole = exam(episodes=40, deterministic=deterministic)
    seeds = derived_seed(0, Purpose.EVALUATION_SEED, 0, np.arange(40)).tolist()
    sound = [i for i, seed in enumerate(seeds) if _flawed(seed) is None]
    assert {_flawed(seed) for seed in seeds} == {None, "reset", "reward", "obs"}
    SEEN.clear()
    found = exam(Flawed, episodes=40, deterministic=deterministic, num_envs=num_envs, drops=True)
    assert sorted(SEEN) == sorted(seeds)
    assert found.returns == tuple(whole.returns[i] for i in sound)
    assert found.lengths == tuple(whole.lengths[i] for i in sound)
    assert (found.episodes, len(found.dropped)) == (40, 40 - len(sound))
    assert found.mean == pytest.approx(statistics.fmean(found.returns), rel=1e-12)
    dropped = [i for i in range(40) if i not in sound]
    for i, told in zip(dropped, found.dropped, strict=True):
        inf = "inf (or too large for float32) in column 0"
        what = {"reset": inf, "reward": "nan as the reward", "obs": "nan in column 0"}
        assert f"gave {what[str(_flawed(seeds[i]))]}" in told
        assert f"(evaluation episode {i}, " in told


def test_no_finite_episode_at_all_is_an_error() -> None:
    """There is no mean of nothing."""

    def bad(env: Any, found: Any) -> Any:
        return found[0], math.nan, *found[2:]

    with pytest.raises(NumericsError, match=r"none of 20 was: .* gave nan as the reward"):
        exam(lambda: Lottery(bad), drops=True)
