"""Laws of the cross-entropy method: it is its definition, and finds what there is to find."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clipper
from clipper.algorithms.cem import CEM
from clipper.config_relatives import CEMConfig
from clipper.errors import ConfigError
from clipper.metrics import Episode
from clipper.policies.vectors import mode_parameters, read_vector
from clipper.randomness import Purpose, normal
from clipper.scoring import Score
from clipper.training_report import Report
from helpers import small_policy


class Landscape:
    """A sampler whose candidates' returns are a function of their vectors alone.

    Each plays one episode of one step, two if the function says so.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.seen: list[np.ndarray] = []

    def score(self, policy: Any, vectors: np.ndarray, episodes: int, budget: Any) -> Any:
        """Returns the function's value as the return of every candidate, in a shuffled order."""
        self.seen.append(vectors.copy())
        moments = np.zeros(1 + 2 * policy.obs_layout.size)
        found = {}
        for i in np.random.default_rng(0).permutation(len(vectors)):
            value = float(self.function(vectors[i].astype(float)))
            episode = Episode(0, int(i), value, 1, False, 0)
            found[int(i)] = Score((episode,), 1, True, moments)
        return found


def cem(kind: str = "discrete", **settings: Any) -> CEM:
    return CEM(small_policy(kind), CEMConfig().replace(num_envs=2, **settings), 2, 7)


def test_a_run_is_the_definition_by_brute_force() -> None:
    """Six generations against loops in Python over sorted lists: candidates, means and variances.

    x = mean + sqrt(var + extra^2) z; the best tenth by return; their mean and their mean squared
    distance from it, number by number.
    """
    search = cem(
        population_size=30, elite_fraction=0.2, initial_std=0.7, extra_std="linear:0.5:0.1"
    )
    size = len(search.mean)
    start = read_vector(mode_parameters(search.policy)).tolist()
    mean, variance = list(start), [0.7**2] * size

    def height(x: np.ndarray) -> float:
        return -float(((x - 0.3) ** 2).sum()) + math.sin(5 * x[0])

    landscape = Landscape(height)
    for generation in range(6):
        progress = generation / 6
        metrics = search.iterate(landscape, progress).metrics
        extra = 0.5 + (0.1 - 0.5) * progress
        noise = normal(7, Purpose.CANDIDATE, np.arange(30), generation, size)
        candidates = [
            [
                np.float32(mean[k] + math.sqrt(variance[k] + extra**2) * float(noise[c, k]))
                for k in range(size)
            ]
            for c in range(30)
        ]
        np.testing.assert_allclose(landscape.seen[-1], np.array(candidates), rtol=1e-6, atol=1e-7)
        ranked = sorted(candidates, key=lambda x: -height(np.array(x, dtype=float)))
        elite = ranked[:6]
        mean = [math.fsum(float(x[k]) for x in elite) / 6 for k in range(size)]
        variance = [math.fsum((float(x[k]) - mean[k]) ** 2 for x in elite) / 6 for k in range(size)]
        np.testing.assert_allclose(search.mean, mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(search.variance, variance, rtol=1e-5, atol=1e-9)
        heights = [height(np.array(x, dtype=float)) for x in ranked]
        assert metrics["search/score_mean"] == pytest.approx(np.mean(heights), rel=1e-5)
        assert metrics["search/score_elite"] == pytest.approx(np.mean(heights[:6]), rel=1e-5)
        assert metrics["search/score_best"] == pytest.approx(heights[0], rel=1e-5)
        assert metrics["schedule/extra_std"] == pytest.approx(extra)
        # the agent is the mean
        np.testing.assert_allclose(
            read_vector(mode_parameters(search.policy)).numpy(), mean, rtol=1e-6, atol=1e-7
        )


def test_the_top_of_a_hill_is_found() -> None:
    """On -|x - t|^2 the mean ends within a hundredth of the top, from a distance of about 1 each."""
    search = cem(population_size=200, initial_std=1.0, extra_std="linear:0.1:0")
    top = np.random.default_rng(1).normal(size=len(search.mean))
    landscape = Landscape(lambda x: -float(((x - top) ** 2).sum()))
    for generation in range(80):
        search.iterate(landscape, generation / 80)
    assert np.abs(search.mean - top).max() < 0.01


def test_without_extra_variance_it_may_stop_short() -> None:
    """Negative control: with 20 candidates and no extra variance the search collapses on the way."""
    errors = {}
    for extra in ("0", "linear:0.2:0"):
        search = cem(population_size=20, initial_std=0.3, extra_std=extra)
        top = search.mean + 2.0
        landscape = Landscape(lambda x, top=top: -float(((x - top) ** 2).sum()))
        for generation in range(300):
            search.iterate(landscape, generation / 300)
        errors[extra] = np.abs(search.mean - top).mean()
    assert errors["linear:0.2:0"] < 0.5 * errors["0"]


@pytest.mark.parametrize(
    ("size", "fraction", "expected"), [(40, 0.1, 4), (10, 0.25, 2), (10, 0.01, 1), (7, 1.0, 7)]
)
def test_the_size_of_the_elite(size: int, fraction: float, expected: int) -> None:
    """The fraction of the population, rounded, and one at least."""
    search = cem(population_size=size, elite_fraction=fraction)
    metrics = search.iterate(Landscape(lambda x: float(x[0])), 0.0).metrics
    assert metrics["search/num_elites"] == expected


def test_of_equals_the_earlier_are_taken() -> None:
    """A return that all share does not depend on how a sort breaks ties."""
    search = cem(population_size=10, elite_fraction=0.3)
    landscape = Landscape(lambda x: 1.0)
    search.iterate(landscape, 0.0)
    np.testing.assert_allclose(search.mean, landscape.seen[0][:3].astype(float).mean(0))


@pytest.mark.parametrize("kind", ["discrete", "box", "multi_discrete", "multi_binary"])
def test_it_searches_what_the_most_likely_action_depends_on(kind: str) -> None:
    """The value head and the standard deviations stay, to the bit; all the rest moves."""
    search = cem(kind)
    before = {n: p.detach().clone() for n, p in search.policy.named_parameters()}
    search.iterate(Landscape(lambda x: float(x.sum())), 0.0)
    for name, parameter in search.policy.named_parameters():
        is_searched = "critic" not in name and name != "log_std"
        assert torch.equal(parameter, before[name]) != is_searched, name


def run(**settings: Any) -> tuple[clipper.CEM, list[Report]]:
    reports: list[Report] = []
    plain = {
        "preset": "none",
        "seed": 3,
        "population_size": 6,
        "hidden_sizes": (4,),
        "num_envs": 3,
        "eval_every": 0,
    }
    env = settings.pop("env", "Pendulum-v1")
    agent = clipper.CEM(env, **{**plain, **settings})
    agent.train(progress=False, callback=reports.append)
    return agent, reports


@pytest.mark.parametrize("total", [2 * 1200, 2 * 1200 + 1, 2 * 1200 + 700, 1])
def test_the_run_ends_at_the_very_step(total: int) -> None:
    """Six episodes of 200 steps are a generation; what is left of the budget is spent to the step.

    Nothing is learnt from a generation that the end cuts: those that finished are the short ones.
    """
    agent, reports = run(total_timesteps=total, extra_std=0.3)
    assert agent.step == total
    whole = [report for report in reports if "search/score_mean" in report.metrics]
    assert len(whole) == total // 1200
    steps = [report.step for report in reports]
    assert steps[: total // 1200] == [1200 * (i + 1) for i in range(total // 1200)]
    if total > 2400:
        cut, _ = run(total_timesteps=2400, extra_std=0.3)
        there = dict(cut.policy.named_parameters())
        for name, parameter in agent.policy.named_parameters():
            assert torch.equal(parameter, there[name]), name


def test_episodes_are_numbered_as_if_played_in_their_order() -> None:
    """The step an episode ended at counts all before it; the last is at most the run's."""
    agent, reports = run(env="CartPole-v1", total_timesteps=2000)
    episodes = [episode for report in reports for episode in report.episodes]
    before = 0
    for report in reports:
        for first, second in itertools.pairwise([before, *(e.step for e in report.episodes)]):
            assert first < second
        before = report.step
    assert all(e.step <= agent.step for e in episodes)
    assert sum(e.episode_length for e in episodes) <= agent.step == 2000


def test_observations_are_normalised_by_all_that_was_seen() -> None:
    """The normaliser's count is the steps taken, and its mean lies where the pendulum was."""
    agent, _ = run(total_timesteps=3000)
    normalizer = agent.policy.normalizer
    assert normalizer is not None
    moments = normalizer.moments.numpy()
    assert moments[0] == 3000
    variance = moments[4:] / 3000
    # cos and sin of an angle, and a speed up to 8
    assert np.all(variance > [0.01, 0.01, 0.5])
    assert np.all(variance < [1.0, 1.0, 64.0])


def test_going_on_is_possible_beyond_the_budget() -> None:
    """`train` with a larger number goes on from the step that was reached."""
    agent, _ = run(total_timesteps=1500)
    agent.train(2600, progress=False)
    assert agent.step == 2600


@pytest.mark.parametrize(
    "name", ["learning_rate", "gamma", "num_steps", "value_hidden_sizes", "log_std_init", "vf_coef"]
)
def test_settings_of_other_algorithms_are_refused(name: str) -> None:
    """CEM has no step size, no discount and no value function."""
    with pytest.raises(ConfigError, match=f"no setting '{name}'"):
        clipper.CEM("CartPole-v1", **{name: 1})


def test_a_search_begins_at_the_weights_it_is_given(tmp_path: Path) -> None:
    """The first generation is drawn around them, from a file of another run and after loading."""
    settings = {"hidden_sizes": (4,), "eval_every": 0, "population_size": 8, "num_envs": 2}
    first = clipper.CEM("CartPole-v1", preset="none", seed=3, **settings)
    first.save(tmp_path / "first.safetensors")
    other = clipper.CEM("CartPole-v1", preset="none", seed=4, **settings)
    other.init_from(tmp_path / "first.safetensors")
    loaded = clipper.load(tmp_path / "first.safetensors")
    wanted = read_vector(mode_parameters(first.policy)).double().numpy()
    for agent in (other, loaded):
        assert np.array_equal(agent._run.algorithm.mean, wanted)
        agent.close()
    first.close()


def test_every_environment_has_a_candidate() -> None:
    """With fewer candidates than environments the last steps would be shared out to nobody."""
    with pytest.raises(ConfigError, match="population_size must be at least num_envs = 8"):
        CEMConfig().replace(population_size=4, num_envs=8)
