"""Parameters that are frozen after an agent was made: they stay, whichever engine learns the rest."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clipper
from clipper.algorithms.a2c import A2C
from clipper.algorithms.ppo import PPO
from clipper.checkpoint import read_checkpoint, write_checkpoint
from clipper.config_a2c import A2CConfig
from clipper.engine import kernels
from clipper.engine.native import NativeEngine
from clipper.engine.reference import ReferenceEngine
from clipper.errors import ConfigError, FileError
from clipper.policies.actor_critic import ActorCritic
from helpers import learner, random_rollout, small_policy

needs_native = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))
ENGINES = ["reference", pytest.param("auto", marks=needs_native)]
PARTS = ["log_std", "network.actor", "network.critic", "network.actor.0.weight"]
SMALL: dict[str, Any] = {"preset": "none", "num_envs": 2, "hidden_sizes": (8,)}


class Own(nn.Module):
    """A user's module, whose loss is computed apart from it."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(obs_size, num_outputs), nn.Linear(obs_size, 1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(obs), self.critic(obs)


def freeze(policy: nn.Module, part: str) -> set[str]:
    """Freezes what a name begins with; returns the names of the parameters."""
    found = {name: p for name, p in policy.named_parameters() if name.startswith(part)}
    assert found
    for parameter in found.values():
        parameter.requires_grad_(False)
    return set(found)


def moved(policy: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Returns the names of the parameters that are not what they were."""
    return {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}


def now(policy: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def improved(ppo: PPO) -> None:
    ppo.improve(random_rollout(ppo.policy), 0.0)


def adam(ppo: PPO) -> torch.optim.Adam:
    """Returns torch's Adam with the settings of PPO's."""
    config = ppo.config
    parameters = list(ppo.policy.parameters())
    return torch.optim.Adam(parameters, lr=3e-4, betas=config.adam_betas, eps=config.adam_eps)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_frozen_stays_and_the_rest_is_learnt(engine: str, part: str) -> None:
    """At once, and after updates whose momentum would carry it on; thawed it is learnt again."""
    for num_before in (0, 2):
        policy = small_policy("box", dtype=torch.float32)
        ppo = learner(policy, engine=engine)
        for _ in range(num_before):
            improved(ppo)
        names, before = freeze(policy, part), now(policy)
        improved(ppo)
        improved(ppo)
        assert moved(policy, before) == set(before) - names
        for parameter in policy.parameters():
            parameter.requires_grad_(True)
        before = now(policy)
        improved(ppo)
        assert moved(policy, before) == set(before)


@pytest.mark.parametrize("part", PARTS)
def test_the_rest_is_learnt_as_by_torch(part: str) -> None:
    """Against torch's own Adam and clipping, which pass over parameters without a gradient."""
    policy = small_policy("box")
    ppo = learner(policy, num_epochs=1, minibatch_size=64, engine="reference", learning_rate=3e-4)
    copied = learner(copy.deepcopy(policy), num_epochs=1, minibatch_size=64, engine="reference")
    optimizer = adam(copied)
    for is_frozen in (False, True):
        if is_frozen:
            freeze(policy, part)
            freeze(copied.policy, part)
        rollout = random_rollout(policy)
        ppo.improve(rollout, 0.0)
        optimizer.zero_grad()
        batch = copied.judge(rollout, copied.policy.normalize(rollout.obs))
        copied.loss(batch, ppo.config.clip_range.at(0.0))[0].backward()
        nn.utils.clip_grad_norm_(copied.policy.parameters(), ppo.config.max_grad_norm or 0.0)
        optimizer.step()
        torch.testing.assert_close(now(policy), now(copied.policy), rtol=1e-9, atol=1e-12)


@needs_native
@pytest.mark.parametrize("part", PARTS)
def test_both_engines_learn_the_same_rest(part: str) -> None:
    """From the same momentum, to the rounding of the two."""
    found = []
    for engine in ("auto", "reference"):
        policy = small_policy("box", dtype=torch.float32)
        ppo = learner(policy, engine=engine)
        improved(ppo)
        freeze(policy, part)
        improved(ppo)
        found.append(now(policy))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@needs_native
def test_the_line_at_the_start_says_who_learns() -> None:
    """Torch while something is frozen, the native engine before and after."""
    policy = small_policy("box", dtype=torch.float32)
    ppo = learner(policy)
    alone = ppo.describe_engine()
    assert policy.log_std is not None
    policy.log_std.requires_grad_(False)
    assert ppo.describe_engine() == f"{alone} acts, torch learns (some parameters were frozen)"
    assert ppo.engine_name().startswith("native ")
    assert ppo.engine_name() != ppo.engine.describe()
    policy.log_std.requires_grad_(True)
    assert ppo.describe_engine() == alone
    assert ppo.engine_name() == ppo.engine.describe()
    assert isinstance(ppo.engine, NativeEngine)


@needs_native
def test_who_insists_on_the_native_engine_is_told() -> None:
    """As when layers are frozen before."""
    ppo = learner(small_policy("box", dtype=torch.float32), engine="native")
    freeze(ppo.policy, "log_std")
    with pytest.raises(ConfigError, match="is native, and some parameters were frozen"):
        improved(ppo)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_frozen_is_refused(engine: str) -> None:
    """There would be nothing to learn."""
    ppo = learner(small_policy("box", dtype=torch.float32), engine=engine)
    freeze(ppo.policy, "")
    with pytest.raises(ConfigError, match="all are frozen"):
        improved(ppo)


def test_what_was_frozen_at_first_cannot_be_thawed() -> None:
    """The optimiser has no place for it, and leaving it as it is would be silent."""
    policy = small_policy("box", dtype=torch.float32)
    freeze(policy, "network.actor.0.weight")
    ppo = learner(policy)
    assert isinstance(ppo.engine, ReferenceEngine)
    policy.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"network\.actor\.0\.weight requires gradients now"):
        improved(ppo)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("part", PARTS)
def test_a2c_leaves_it_alone(engine: str, part: str) -> None:
    """Its gradient is computed in torch then."""
    policy: ActorCritic = small_policy("box", dtype=torch.float32)
    config = A2CConfig().replace(num_envs=4, num_steps=16, engine=engine)
    a2c = A2C(policy, config, 4, 0)
    a2c.improve(random_rollout(policy), 1e-3)
    names, before = freeze(policy, part), now(policy)
    a2c.improve(random_rollout(policy), 1e-3)
    assert moved(policy, before) == set(before) - names
    is_native = a2c.engine_name().startswith("native")
    assert ("(some parameters were frozen)" in a2c.describe_engine()) == is_native


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "ACER"])
def test_an_agent_that_was_made_leaves_it_alone(algorithm: str, engine: str) -> None:
    """From the outside, as users do it."""
    settings = {"num_steps": 16} | ({"minibatch_size": 32} if algorithm == "PPO" else {})
    agent = getattr(clipper, algorithm)("CartPole-v1", engine=engine, **SMALL, **settings)
    names, before = freeze(agent.policy, "network.actor.0"), now(agent.policy)
    agent.train(640, progress=False)
    assert moved(agent.policy, before) == set(before) - names


@pytest.mark.parametrize("part", ["log_std", "network.actor"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_of_the_users_leaves_it_alone(engine: str, part: str) -> None:
    """With the loss in C++ too, and after updates whose momentum would carry it on."""
    settings = {"num_steps": 16, "minibatch_size": 32, "engine": engine, "module": Own}
    agent = clipper.PPO("Pendulum-v1", **SMALL, **settings)
    agent.train(64, progress=False)
    names, before = freeze(agent.policy, part), now(agent.policy)
    agent.train(128, progress=False)
    assert moved(agent.policy, before) == set(before) - names


@pytest.mark.parametrize("algorithm", ["VPG", "TRPO", "CEM"])
def test_others_refuse(algorithm: str) -> None:
    """They move the parameters that they took at first, as one vector."""
    settings: dict[str, Any] = {"num_steps": 16, "minibatch_size": 32}
    if algorithm == "CEM":
        settings = {"population_size": 4}
    agent = getattr(clipper, algorithm)("CartPole-v1", **SMALL, **settings)
    freeze(agent.policy, "network.actor.0.weight")
    with pytest.raises(ConfigError, match=r"frozen after .* but network\.actor\.0\.weight is"):
        agent.train(64, progress=False)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_a_resumed_run_keeps_what_was_frozen(algorithm: str, engine: str, tmp_path: Path) -> None:
    """Resumed from its folder it ends with the bits of the run that nothing stopped, and exactly."""
    kind = getattr(clipper, algorithm)
    settings = {"num_steps": 16} | ({"minibatch_size": 32} if algorithm == "PPO" else {})
    for run_dir in (None, tmp_path / "run"):
        agent = kind("CartPole-v1", engine=engine, seed=3, eval_every=0, **SMALL, **settings)
        names, before = freeze(agent.policy, "network.actor.0"), now(agent.policy)
        stop = (lambda report: report.step < 320) if run_dir else None
        agent.train(640, progress=False, run_dir=run_dir, callback=stop)
        if run_dir is None:
            straight = now(agent.policy)
        agent.close()
    resumed = clipper.resume(tmp_path / "run")
    assert {n for n, p in resumed.policy.named_parameters() if not p.requires_grad} == names
    resumed.train(640, progress=False)
    assert moved(resumed.policy, straight) == set()
    assert moved(resumed.policy, before) == set(before) - names
    assert resumed.inexact is None
    resumed.close()


@pytest.mark.parametrize("frozen", ["network.actor.0.weight", [1], ["nothing.like.it"], {}])
def test_what_is_said_to_be_frozen_is_checked(frozen: Any, tmp_path: Path) -> None:
    """A file that names no parameters of the policy is refused."""
    agent = clipper.PPO("CartPole-v1", num_steps=16, minibatch_size=32, **SMALL)
    agent.train(64, progress=False, run_dir=tmp_path)
    agent.close()
    checkpoint, _ = read_checkpoint(tmp_path / "checkpoints")
    write_checkpoint(
        tmp_path / "checkpoints",
        replace(checkpoint, state={**checkpoint.state, "frozen": frozen}),
        keep=1,
    )
    with pytest.raises(FileError, match="frozen"):
        clipper.resume(tmp_path)
