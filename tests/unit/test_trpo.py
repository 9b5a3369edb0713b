"""Laws of TRPO's step: never beyond the trust region, along the natural gradient, V apart from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clipper
from clipper.algorithms.trpo import TRPO
from clipper.config_relatives import TRPOConfig
from clipper.errors import ConfigError, InvariantBreach, NumericsError
from clipper.rollout import Batch
from helpers import ACTION_SPACES, flat_parameters, random_rollout, small_policy


def setup(kind: str = "discrete", seed: int = 0, **settings: Any) -> tuple[TRPO, Batch]:
    """Returns TRPO around a float64 policy and the judged rows of a random rollout."""
    policy = small_policy(kind, seed=seed)
    trpo = TRPO(policy, TRPOConfig().replace(num_steps=16, num_envs=4, **settings), 4, seed)
    return trpo, trpo.judge(random_rollout(policy, seed=seed))


def kl_and_gain(trpo: TRPO, batch: Batch, old_params: Tensor) -> tuple[float, float]:
    """Returns KL(old || new) and the surrogate's rise by torch's own distributions."""
    policy, kind = trpo.policy, trpo.policy.action_layout.kind
    with torch.no_grad():
        params = policy.distribution_params(batch.obs)

    def made(rows: Tensor) -> Any:
        if kind == "discrete":
            return torch.distributions.Categorical(logits=rows)
        mean, log_std = rows.chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        return torch.distributions.Independent(normal, 1)

    actions = batch.actions[:, 0] if kind == "discrete" else batch.actions
    old, new = made(old_params), made(params)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    ratio = (new.log_prob(actions) - old.log_prob(actions)).exp()
    return (
        float(torch.distributions.kl_divergence(old, new).mean()),
        float((ratio * advantages).mean() - advantages.mean()),
    )


def test_what_acted_in_bfloat16_is_judged_again() -> None:
    """The step is taken in full precision, from probabilities of full precision: the ratio is 1."""
    agent = clipper.TRPO(
        "Pendulum-v1", preset="none", precision="bf16", policy_gain=1.0, log_std_init=-2.5,
        num_envs=4, num_steps=256, total_timesteps=2048, hidden_sizes=(32,), eval_every=0, seed=3,
    )  # fmt: skip
    errors: list[float] = []
    agent.train(
        progress=False,
        callback=lambda report: errors.append(report.metrics["policy/first_ratio_error"]),
    )
    agent.close()
    assert errors == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["discrete", "box"])
@pytest.mark.parametrize("max_kl", [1e-4, 0.01, 0.3, 5.0])
def test_a_step_gains_within_the_trust_region_or_is_not_taken(kind: str, max_kl: float) -> None:
    """By torch's own distributions: KL <= delta and a rise, or the very parameters it began with.

    Small steps are taken; where the quadratic model means nothing, some are not.
    """
    outcomes = set()
    for seed in range(12):
        trpo, batch = setup(kind, seed, max_kl=max_kl, cg_damping=0.0, num_line_search_tries=2)
        before = flat_parameters(trpo.policy)
        old_params = trpo.policy.distribution_params(batch.obs).detach()
        metrics = trpo.improve(batch)
        kl, gain = kl_and_gain(trpo, batch, old_params)
        taken = metrics["policy/step_fraction"] > 0
        outcomes.add(taken)
        assert metrics["policy/kl"] == pytest.approx(kl, abs=1e-12)
        assert metrics["policy/surrogate_gain"] == pytest.approx(gain, abs=1e-12)
        assert kl <= max_kl
        assert gain > 0 if taken else torch.equal(flat_parameters(trpo.policy), before)
    assert True in outcomes or max_kl > 0.01
    assert False in outcomes or max_kl < 1.0


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_a_failed_line_search_leaves_every_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no point is accepted, parameters are those of before to the bit, -0 and all."""
    trpo, batch = setup(kind)
    before = flat_parameters(trpo.policy)
    looked_at: list[Tensor] = []
    write = trpo.actor.write

    def spy(vector: Tensor) -> None:
        looked_at.append(vector)
        write(vector)

    monkeypatch.setattr(trpo.actor, "write", spy)
    # by torch's distribution nothing is ever near enough
    monkeypatch.setattr(
        trpo.policy.distribution, "kl", lambda old, new: (old - new).square().sum(-1) + 1.0
    )
    metrics = trpo.improve(batch)
    assert len(looked_at) == 11  # ten points, and back
    assert not torch.equal(looked_at[0], looked_at[-1])
    assert torch.equal(flat_parameters(trpo.policy), before)
    assert metrics["policy/step_fraction"] == metrics["policy/kl"] == 0.0
    assert metrics["policy/line_search_tries"] == 10


def test_nothing_to_gain_is_no_step() -> None:
    """Advantages of 0 have no gradient: no step, no division by 0."""
    trpo, batch = setup(normalize_advantage="none")
    before = flat_parameters(trpo.policy)
    batch.advantages.zero_()
    metrics = trpo.improve(batch)
    assert torch.equal(flat_parameters(trpo.policy), before)
    assert (metrics["loss/grad_norm"], metrics["policy/line_search_tries"]) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_the_step_is_along_the_natural_gradient(kind: str) -> None:
    """(F + damping)^-1 g with F written out as the second derivative of the mean KL."""
    trpo, batch = setup(kind, max_kl=1e-8, num_cg_iterations=200)
    policy, actor = trpo.policy, trpo.actor
    start = actor.read()
    params = policy.distribution_params(batch.obs)
    slopes = actor.gradient(
        policy.distribution.kl(params.detach(), params).mean(), create_graph=True
    )
    fisher = np.stack([actor.gradient(slope, retain_graph=True).numpy() for slope in slopes])
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    log_probs = policy.distribution.log_prob(params, batch.actions)
    gradient = actor.gradient((log_probs * advantages).mean()).numpy()
    expected = np.linalg.solve(fisher + 0.1 * np.eye(len(fisher)), gradient)
    trpo.improve(batch)
    found = (actor.read() - start).numpy()
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.9999
    # as long as the model of the KL allows; damping counts as curvature
    model = 0.5 * found @ (fisher + 0.1 * np.eye(len(fisher))) @ found
    assert model == pytest.approx(1e-8, rel=1e-3)


@pytest.mark.parametrize("shared_torso", [False, True])
def test_policy_and_value_function_move_apart(shared_torso: bool) -> None:
    """The step leaves V's own parameters, the value epochs those of the policy, to the bit."""
    policy = small_policy("discrete", shared_torso=shared_torso)
    config = TRPOConfig().replace(num_steps=16, num_envs=4, minibatch_size=16)
    trpo = TRPO(policy, config, 4, 0)
    rollout = random_rollout(policy)
    head = {n: p for n, p in policy.named_parameters() if "critic" in n}
    rest = {n: p for n, p in policy.named_parameters() if "critic" not in n}

    def copies(group: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in group.items()}

    def moved(group: dict[str, Tensor], before: dict[str, Tensor]) -> set[bool]:
        return {not torch.equal(p, before[n]) for n, p in group.items()}

    before_head, before_rest = copies(head), copies(rest)
    trpo.improve(trpo.judge(rollout))
    assert moved(head, before_head) == {False}
    assert moved(rest, before_rest) == {True}
    after_step = copies(rest)

    class OneRollout:
        def collect(self, *args: Any, **kwargs: Any) -> Any:
            return random_rollout(policy, seed=1)

    monkey = trpo.improve
    trpo.improve = lambda batch: {}  # type: ignore[method-assign]
    trpo.iterate(OneRollout(), 0.0)  # type: ignore[arg-type]
    trpo.improve = monkey  # type: ignore[method-assign]
    assert moved(rest, after_step) == {False}
    assert moved(head, before_head) == {True}


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    """Advantages that overflowed are an error before anything moves."""
    trpo, batch = setup(normalize_advantage="none")
    before = flat_parameters(trpo.policy)
    batch.advantages[3] = float("inf")
    with pytest.raises(NumericsError, match="must be finite"):
        trpo.improve(batch)
    assert torch.equal(flat_parameters(trpo.policy), before)


def test_a_policy_that_changed_since_it_acted_is_refused() -> None:
    """The ratio is 1 before any update, or the surrogate is not what the theory says."""
    trpo, batch = setup()
    batch.log_probs.add_(0.5)
    with pytest.raises(InvariantBreach, match="ratio must be 1"):
        trpo.improve(batch)


@pytest.mark.parametrize(
    "name", ["learning_rate", "clip_range", "num_epochs", "vf_coef", "ent_coef", "adam_eps"]
)
def test_settings_of_other_algorithms_are_refused(name: str) -> None:
    """What TRPO does not use is unknown to it."""
    with pytest.raises(ConfigError, match=f"no setting '{name}'"):
        clipper.TRPO("CartPole-v1", **{name: 1})
