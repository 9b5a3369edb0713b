"""Which engine trains what, what a run says of it, and going on with another one."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import clipper
from clipper.config import Estimator
from clipper.config_ppo import Objective
from clipper.engine import kernels
from clipper.engine.native import NativeEngine
from clipper.engine.reference import ReferenceEngine
from clipper.errors import ConfigError, InvariantBreach, NumericsError
from helpers import ACTION_SPACES, DictEnv, learner, random_rollout, small_policy

needs_native = pytest.mark.skipif(kernels.ABSENCE is not None, reason=str(kernels.ABSENCE))


class OwnNetwork(nn.Module):
    """A user's module."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(obs_size, num_outputs), nn.Linear(obs_size, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.actor(obs), self.critic(obs)


CELLS: dict[str, dict[str, Any]] = {
    **{f"activation {a}": {"activation": a} for a in ("tanh", "relu", "elu", "silu", "gelu")},
    **{f"head {kind}": {"kind": kind} for kind in ACTION_SPACES},
    "no hidden layer": {"hidden_sizes": ()},
    "five hidden layers": {"hidden_sizes": (3, 50, 128, 7, 16)},
    "another value network": {"hidden_sizes": (8,), "value_hidden_sizes": (32, 5)},
    "shared torso": {"shared_torso": True, "hidden_sizes": (9, 9)},
    "normaliser": {"normalize_obs": True},
    "wide observations": {"obs_size": 300},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "clip_value": {"clip_value": 0.2},
    "target_kl": {"target_kl": 0.01},
    "no max_grad_norm": {"max_grad_norm": None},
    "advantages as they are": {"normalize_advantage": "none"},
    "recompute_advantages": {"recompute_advantages": True},
    "normalize_reward": {"normalize_reward": True},
    "schedules": {"learning_rate": "linear:1e-3:0", "clip_range": "linear:0.3:0.1"},
    **{f"objective {name}": {"objective": name} for name in get_args(Objective)},
    **{f"advantage {name}": {"advantage": name} for name in get_args(Estimator)},
    "adam": {"adam_betas": (0.5, 0.9), "adam_eps": 1e-3},
}


@needs_native
@pytest.mark.parametrize("cell", CELLS)
def test_auto_takes_the_native_engine_for_every_network_of_ours(cell: str) -> None:
    """Every architecture and head that the settings can name is covered."""
    policy = small_policy(**{"kind": "discrete", **CELLS[cell]}, dtype=torch.float32)
    assert isinstance(learner(policy).engine, NativeEngine)


@needs_native
@pytest.mark.parametrize("cell", SETTINGS)
def test_auto_takes_the_native_engine_for_every_setting(cell: str) -> None:
    """And an iteration runs with it."""
    ppo = learner(small_policy("box", dtype=torch.float32), **SETTINGS[cell])
    assert isinstance(ppo.engine, NativeEngine)
    assert np.isfinite(ppo.improve(random_rollout(ppo.policy), 0.5)["loss/total"])


@needs_native
def test_a_fixed_log_std_stays() -> None:
    """A standard deviation that is not to be learned is left alone, and all else is learned."""
    policy = small_policy("box", dtype=torch.float32)
    assert policy.log_std is not None
    policy.log_std.requires_grad_(False)
    ppo = learner(policy)
    assert isinstance(ppo.engine, NativeEngine)
    before = copy.deepcopy(policy.state_dict())
    ppo.improve(random_rollout(policy), 0.0)
    unchanged = [k for k, v in policy.state_dict().items() if torch.equal(v, before[k])]
    assert unchanged == ["log_std"]


def not_covered() -> dict[str, Any]:
    frozen = small_policy("discrete", dtype=torch.float32)
    next(frozen.network.parameters()).requires_grad_(False)
    own = clipper.PPO(DictEnv, module=OwnNetwork, num_envs=1, num_steps=16, minibatch_size=16)
    return {
        "some layers are frozen": frozen,
        "the parameters are float64": small_policy("discrete"),
        "the network is a module of the user's": own.policy,
    }


@needs_native
@pytest.mark.parametrize("reason", list(not_covered()))
def test_what_is_not_covered_is_named(reason: str) -> None:
    """Torch takes it, the loss apart if it can, the line at start says why; native is refused."""
    policy = not_covered()[reason]
    ppo = learner(policy)
    assert isinstance(ppo.engine, ReferenceEngine)
    name = "reference, in torch"
    if "float64" not in reason:
        parts = " and 1 MLP" if "frozen" in reason else ""  # the tower without the frozen one
        name = f"torch with the loss{parts} in {kernels.choose_variant()}"
    assert ppo.describe_engine() == f"engine: {name}, 1 thread ({reason})"
    asked = learner(policy, engine="reference").describe_engine()
    assert asked == "engine: reference, in torch, 1 thread (it was asked for)"
    with pytest.raises(ConfigError, match=reason):
        learner(policy, engine="native")


def test_clipper_is_imported_without_the_extension() -> None:
    """No module asks for the kernels before it is known that there are some."""
    code = (
        "import sys; sys.modules['clipper.engine._native'] = None; import clipper; "
        "agent = clipper.PPO('CartPole-v1', num_envs=1, num_steps=8, minibatch_size=8); "
        "agent.train(8, progress=False); print(agent.describe_engine())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "engine: reference" in said.stdout
    assert "the native engine was not built" in said.stdout


def test_without_the_extension_the_reference_engine_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An install without a compiler trains all the same and says why it is slower."""
    monkeypatch.setattr(kernels, "ABSENCE", "it was not built")
    agent = clipper.PPO("CartPole-v1", num_envs=2, num_steps=16, minibatch_size=16)
    assert agent.engine == "reference"
    line = "engine: reference, in torch, 1 thread (it was not built)"
    assert agent.describe_engine() == line
    agent.train(64)
    assert capsys.readouterr().err.splitlines()[0] == line


@needs_native
def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names those that there are."""
    monkeypatch.setenv(kernels.VARIANT_VARIABLE, "mmx")
    with pytest.raises(ConfigError, match=r"CLIPPER_NATIVE_VARIANT must be one of .*, but is mmx"):
        learner(small_policy("discrete", dtype=torch.float32))


@needs_native
def test_a_ratio_that_is_not_one_is_refused() -> None:
    """The law holds to the bit, and a breach changes nothing."""
    ppo = learner(small_policy("discrete", dtype=torch.float32))
    rollout = random_rollout(ppo.policy)
    before = ppo.state_dict()
    with pytest.raises(InvariantBreach, match="ratio must be 1"):
        ppo.improve(replace(rollout, log_probs=rollout.log_probs * (1 + 1e-6)), 0.0)
    assert torch.equal(ppo.state_dict()["engine"]["m"], before["engine"]["m"])
    assert ppo.engine.num_updates == 0


@needs_native
def test_a_gradient_that_is_not_finite_is_refused() -> None:
    """With the update's number, and the parameters as they were before it."""
    ppo = learner(small_policy("discrete", dtype=torch.float32), normalize_advantage="none")
    rollout = random_rollout(ppo.policy)
    rewards = rollout.rewards.clone()
    rewards[5, 2] = torch.inf
    with pytest.raises(NumericsError, match=r"must be finite, but are .* at update 1"):
        ppo.improve(replace(rollout, rewards=rewards), 0.0)
    assert all(torch.isfinite(p).all() for p in ppo.policy.parameters())


@needs_native
def test_parameters_live_once() -> None:
    """What is written into the module's tensors is what the engine acts with, and the other way."""
    policy = small_policy("box", dtype=torch.float32)
    ppo = learner(policy)
    obs = torch.randn(6, 3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.5)
        params, values = policy(policy.normalize(obs))
    np.testing.assert_allclose(policy.values(obs), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policy.act(obs.numpy(), None), params[:, :2], rtol=1e-5, atol=1e-6)
    before = [p.clone() for p in policy.parameters()]
    ppo.improve(random_rollout(policy), 0.0)
    assert not any(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


@needs_native
@pytest.mark.parametrize("how", ["copy", "double"])
def test_a_copy_or_another_type_is_not_accelerated(how: str) -> None:
    """Their parameters are not the engine's, so torch computes for them."""
    policy = small_policy("discrete", dtype=torch.float32)
    learner(policy)
    other = copy.deepcopy(policy) if how == "copy" else policy.double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert float(other.values(torch.ones(1, 3))) == 0.0


def begin(tmp_path: Path, **settings: Any) -> Path:
    agent = clipper.PPO("CartPole-v1", num_envs=2, num_steps=16, minibatch_size=16, **settings)
    agent.train(320, run_dir=tmp_path / "run", progress=False)
    return tmp_path / "run"


@needs_native
@pytest.mark.parametrize(("first", "then"), [("native", "reference"), ("reference", "native")])
def test_a_run_goes_on_with_another_engine(tmp_path: Path, first: str, then: str) -> None:
    """Moments and counts are taken over, and the run is marked as not exact, with the reason."""
    path = begin(tmp_path, engine=first)
    before = json.loads((path / "config.json").read_text())["engine"]
    agent = clipper.resume(path, engine=then)
    assert agent.engine.startswith(then)
    assert agent._run.algorithm.engine.num_updates == 320 // 16 * agent.config.num_epochs
    change = f"the engine changed from {before} to {agent.engine} at step 320"
    assert agent.inexact == change
    agent.train(640, progress=False)
    config = json.loads((path / "config.json").read_text())
    assert (config["engine"], config["config"]["engine"]) == (agent.engine, then)
    assert change in (path / "log.txt").read_text()


@needs_native
def test_a_run_goes_on_with_another_instruction_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits are promised for each instruction set alone, so a change of it is reported."""
    variants = kernels.compiled.variants()
    if len(variants) < 2:
        pytest.skip("this machine has one instruction set")
    path = begin(tmp_path)
    monkeypatch.setenv(kernels.VARIANT_VARIABLE, variants[-1])
    agent = clipper.resume(path)
    change = f"from native {variants[0]} to native {variants[-1]}"
    assert agent.inexact == f"the engine changed {change} at step 320"
    agent.train(640, progress=False)
    assert agent.inexact.startswith("the engine changed")


@needs_native
def test_action_spaces_of_every_kind_learn_with_it() -> None:
    """`clipper.PPO` on nested observations: the engine sees rows of numbers, whatever they were."""
    agent = clipper.PPO(DictEnv, num_envs=2, num_steps=16, minibatch_size=16, engine="native")
    assert isinstance(agent.policy.obs_layout.space, spaces.Dict)
    agent.train(64, progress=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@needs_native
def test_a_fork_learns_without_the_thread_that_it_has_not() -> None:
    """The second thread of an update stays behind in the parent; the child does not wait for it."""
    code = """
    import os, sys, clipper
    agent = clipper.PPO("CartPole-v1", preset="none", num_envs=2, num_steps=64, minibatch_size=32,
                        eval_every=0)
    agent._run.algorithm.use_threads(2)
    agent.train(256, progress=False)
    child = os.fork()
    agent._run.algorithm.use_threads(2)
    agent.train(512, progress=False)
    if not child:
        os._exit(int(agent.step != 512))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
@needs_native
def test_two_updates_at_once_do_not_wait_for_each_other() -> None:
    """One that is within a signal's handler keeps the second thread; the other one works alone."""
    code = """
    import os, signal, sys, threading, time
    from dataclasses import replace
    import torch
    from helpers import learner, random_rollout, small_policy

    def made(seed):
        policy = small_policy("box", obs_size=17, hidden_sizes=(64, 64), seed=seed,
                              dtype=torch.float32)
        ppo = learner(policy, num_envs=8, num_steps=256, minibatch_size=256, num_epochs=10,
                      learning_rate=1e-7, engine="native")
        ppo.use_threads(2)
        ppo.engine._cores = 2
        return ppo, random_rollout(policy, num_steps=256, num_envs=8)

    def work(ppo, rollout):
        for _ in range(100):
            log_probs, values = ppo.policy.evaluate(rollout.obs, rollout.actions)
            ppo.improve(replace(rollout, log_probs=log_probs, values=values), 0.0)
            ppo.engine._alone_for = 0

    one, other = made(0), made(1)
    # whatever lets go of Python's lock: a line of a log
    signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.003))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    thread = threading.Thread(target=work, args=other, daemon=True)
    thread.start()
    work(*one)
    thread.join()
    os._exit(0)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run(words, timeout=60, check=False, env=env).returncode == 0
