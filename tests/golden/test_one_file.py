"""`labs/ppo_in_one_file.py` against the library: the same advantages and the same update, float64.

The two share no code: the lab uses torch.distributions, torch.optim and a loop backwards in time.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from clipper.advantages import gae
from clipper.algorithms.ppo import PPO
from clipper.policies.normalize import RewardScaler
from clipper.presets import find_preset
from clipper.rollout import Rollout, epoch_order
from clipper.setting_values import Schedule
from helpers import learner, random_rollout, small_policy

LAB = Path(__file__).parents[2] / "labs" / "ppo_in_one_file.py"
T, N, SEED, EPOCHS, MINIBATCH = 16, 4, 3, 3, 16
GAMMA, LAMBDA = 0.97, 0.9
# of the step; rounding alone gives 1e-15
TOLERANCE = 1e-12
KINDS = {"discrete": (3, False), "box": (2, True)}


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    """The lab's file as a module; it is a script, not a part of a package."""
    spec = importlib.util.spec_from_file_location("ppo_in_one_file", LAB)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def library(kind: str) -> tuple[PPO, Rollout]:
    """Returns the library's PPO with the lab's architecture, and a rollout of its policy."""
    policy = small_policy(kind, obs_size=3, hidden_sizes=(64, 64), seed=SEED)
    ppo = learner(
        policy,
        num_envs=N,
        seed=SEED,
        num_steps=T,
        num_epochs=EPOCHS,
        minibatch_size=MINIBATCH,
        learning_rate=3e-3,
        clip_range=0.1,
        ent_coef=0.02,
        vf_coef=0.7,
        max_grad_norm=0.3,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    return ppo, random_rollout(policy, num_steps=T, num_envs=N, seed=SEED)


def its_agent(lab: ModuleType, ppo: PPO, kind: str) -> torch.nn.Module:
    """Returns the lab's agent with the library's weights."""
    size, continuous = KINDS[kind]
    agent = lab.ActorCritic(3, size, continuous, normalize_obs=False).double()
    state = {k.removeprefix("network."): v.clone() for k, v in ppo.policy.state_dict().items()}
    agent.load_state_dict(state)
    return agent


def flat(module: torch.nn.Module) -> Tensor:
    """Returns all parameters in the order of their names, without the library's prefix."""
    named = {k.removeprefix("network."): v.detach() for k, v in module.named_parameters()}
    return torch.cat([named[k].reshape(-1) for k in sorted(named)]).clone()


@pytest.mark.parametrize("kind", KINDS)
def test_gae_of_the_lab_is_the_librarys(lab: ModuleType, kind: str) -> None:
    """Equal advantages from a rollout with every kind of ending."""
    _, rollout = library(kind)
    assert bool((rollout.truncated & ~rollout.terminated).any())
    assert bool(rollout.terminated.any())
    columns = (
        rollout.rewards.double(),
        rollout.values,
        rollout.next_values,
        rollout.terminated,
        rollout.truncated,
        GAMMA,
        LAMBDA,
    )
    torch.testing.assert_close(lab.gae(*columns), gae(*columns), rtol=1e-12, atol=1e-12)


def test_rewards_of_the_lab_are_the_librarys(lab: ModuleType) -> None:
    """Three rollouts, the first among them, are scaled by the same numbers; float32 as in training."""
    scaler, stats = RewardScaler(N, GAMMA), lab.RunningStats()
    carried = torch.zeros(N, dtype=torch.float64)
    for seed in range(3):
        rollout = random_rollout(
            small_policy("box"), num_steps=T, num_envs=N, seed=seed, reward_mean=-40.0
        )
        done = rollout.terminated | rollout.truncated
        discounted = []
        for rewards, ends in zip(rollout.rewards.double(), done, strict=True):
            discounted.append(GAMMA * carried + rewards)
            carried = torch.where(ends, 0.0, discounted[-1])
        scaler.merge_block(rollout.rewards.numpy(), done.numpy())
        batch = {"rewards": rollout.rewards, "discounted": torch.stack(discounted)}
        found = lab.scaled_rewards(batch, stats)
        assert found.dtype == rollout.rewards.dtype
        torch.testing.assert_close(found, scaler(rollout.rewards), rtol=1e-6, atol=1e-6)
        assert float(found.abs().max()) < 5  # scaled from the first rollout on


def test_settings_of_the_lab_are_the_presets(lab: ModuleType) -> None:
    """Every number the lab names is the library's: who compares the two compares one algorithm."""
    assert set(lab.SETTINGS) == {"CartPole-v1", "Pendulum-v1", "LunarLander-v3"}
    for env_id, config in lab.SETTINGS.items():
        preset = find_preset(env_id).config()
        ours = dict(vars(config))
        for name in ("learning_rate", "clip_range"):
            start, is_linear = ours[name], ours.pop(f"linear_{name}")
            ours[name] = Schedule(start, 0.0 if is_linear else start)
        assert ours == {name: getattr(preset, name) for name in ours}
        # and what the lab has no name for is as it is there
        assert (preset.hidden_sizes, preset.activation, preset.adam_eps) == ((64, 64), "tanh", 1e-5)
        assert (preset.target_kl, preset.clip_value, preset.shared_torso) == (None, None, False)
        assert not preset.recompute_advantages


@pytest.mark.parametrize("kind", KINDS)
def test_update_of_the_lab_is_the_librarys(lab: ModuleType, kind: str) -> None:
    """3 epochs x 4 minibatches on the same rollout, weights and orders end in the same parameters."""
    ppo, rollout = library(kind)
    agent = its_agent(lab, ppo, kind)
    before = flat(ppo.policy)
    assert torch.equal(flat(agent), before)
    config = lab.Config(
        num_envs=N,
        num_steps=T,
        num_epochs=EPOCHS,
        minibatch_size=MINIBATCH,
        clip_range=0.1,
        ent_coef=0.02,
        vf_coef=0.7,
        max_grad_norm=0.3,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    optimizer = torch.optim.Adam(agent.parameters(), 3e-3, eps=1e-5)
    rewards, values = rollout.rewards.double(), rollout.values
    ends = rollout.terminated, rollout.truncated
    advantages = lab.gae(rewards, values, rollout.next_values, *ends, GAMMA, LAMBDA)
    actions = rollout.actions[..., 0] if kind == "discrete" else rollout.actions
    batch = {
        "obs": rollout.obs.double(),
        "actions": actions,
        "log_probs": rollout.log_probs,
        "advantages": advantages,
        "value_targets": advantages + values,
    }
    rows = {name: column.flatten(0, 1) for name, column in batch.items()}
    orders = [torch.from_numpy(epoch_order(SEED, 0, k, T * N)) for k in range(EPOCHS)]
    lab.update(agent, optimizer, rows, config, orders)

    metrics = ppo.improve(rollout, progress=0.0)
    # both kinds of clipping were at work
    assert metrics["policy/clip_fraction"] > 0
    assert metrics["loss/grad_norm"] > 0.3
    step = (flat(ppo.policy) - before).norm()
    assert float(step) > 0.1
    assert float((flat(agent) - flat(ppo.policy)).norm() / step) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_sees_a_difference(lab: ModuleType, kind: str) -> None:
    """Negative control: an epsilon of Adam that is 1e-8 and not 1e-5 is found."""
    ppo, rollout = library(kind)
    before = flat(ppo.policy)
    ppo.improve(rollout, progress=0.0)
    other, _ = library(kind)
    other.engine._eps = 1e-8
    other.improve(rollout, progress=0.0)
    step = (flat(ppo.policy) - before).norm()
    assert float((flat(other.policy) - flat(ppo.policy)).norm() / step) > 1e3 * TOLERANCE
    assert torch.equal(flat(library(kind)[0].policy), before)


def test_the_lab_is_short() -> None:
    """Under 300 lines, and nothing but torch, gymnasium and numpy beside the standard library."""
    lines = LAB.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 300
    imports = [
        line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))
    ]
    allowed = {"torch", "gymnasium", "numpy"}
    assert all(name in allowed or name in sys.stdlib_module_names for name in imports)
