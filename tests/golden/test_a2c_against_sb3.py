"""One update of A2C against Stable-Baselines3's on the same rollout and weights, float64.

The other side is its own `A2C.train()` with its own `RMSpropTFLike`, whose epsilon is inside the
root as in the reference implementation. Its `vf_coef` counts (V - target)^2 without the half, so
ours is twice as large.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from clipper.algorithms.a2c import A2C
from clipper.config_a2c import A2CConfig
from clipper.rollout import Rollout
from helpers import ACTION_SPACES, random_rollout, small_policy

T, N, OBS = 5, 16, 3
RATE, VF_COEF, ENT_COEF, GAMMA, MAX_GRAD_NORM = 1e-2, 0.8, 0.01, 0.97, 0.1
UPDATES = 3
# of the whole way; 1e-6 was asked for
TOLERANCE = 1e-9


class Stub(gymnasium.Env):
    """Spaces, and nothing that is ever stepped."""

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (OBS,), dtype=np.float64)
        self.action_space = action_space


def as_theirs(policy: torch.nn.Module) -> dict[str, Tensor]:
    """Returns our parameters under Stable-Baselines3's names."""
    names = {
        "network.actor.0": "mlp_extractor.policy_net.0",
        "network.actor.2": "action_net",
        "network.critic.0": "mlp_extractor.value_net.0",
        "network.critic.2": "value_net",
    }
    found = {}
    for name, tensor in policy.state_dict().items():
        layer, _, part = name.rpartition(".")
        found[f"{names[layer]}.{part}" if layer else name] = tensor.clone()
    return found


def setup(kind: str) -> tuple[A2C, Any]:
    policy = small_policy(kind, obs_size=OBS, hidden_sizes=(7,))
    config = A2CConfig().replace(
        num_envs=N,
        num_steps=T,
        learning_rate=RATE,
        gamma=GAMMA,
        vf_coef=VF_COEF,
        ent_coef=ENT_COEF,
        max_grad_norm=MAX_GRAD_NORM,
    )
    theirs = stable_baselines3.A2C(
        "MlpPolicy",
        DummyVecEnv([lambda: Stub(ACTION_SPACES[kind])] * N),
        learning_rate=RATE,
        n_steps=T,
        gamma=GAMMA,
        vf_coef=VF_COEF / 2,
        ent_coef=ENT_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        policy_kwargs={
            "net_arch": {"pi": [7], "vf": [7]},
            "optimizer_class": RMSpropTFLike,
            "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5},
        },
        device="cpu",
    )
    theirs.set_logger(Logger(folder=None, output_formats=[]))
    theirs.policy.double()
    theirs.policy.load_state_dict(as_theirs(policy))
    return A2C(policy, config, N, 0), theirs


def fill(theirs: Any, rollout: Rollout) -> None:
    """Puts our rollout into their buffer; a truncation is what they make of it, gamma V(s') more."""
    cut = (rollout.truncated & ~rollout.terminated).numpy()
    done = (rollout.terminated | rollout.truncated).numpy()
    rewards = rollout.rewards.double().numpy()
    buffer = theirs.rollout_buffer
    buffer.reset()
    buffer.observations = rollout.obs.double().numpy()
    buffer.actions = rollout.actions.numpy()
    buffer.rewards = np.where(cut, rewards + GAMMA * rollout.next_values.numpy(), rewards)
    buffer.values = rollout.values.numpy().copy()
    buffer.log_probs = rollout.log_probs.numpy().copy()
    buffer.episode_starts = np.concatenate([np.ones((1, N)), done[:-1]]).astype(np.float64)
    buffer.advantages = np.zeros((T, N))
    buffer.pos, buffer.full = T, True
    buffer.compute_returns_and_advantage(rollout.next_values[-1], dones=done[-1])


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "box"])
def test_updates_equal_stable_baselines3(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three updates on three rollouts leave the same parameters, gradients clipped in every one."""
    ours, theirs = setup(kind)
    before = as_theirs(ours.policy)
    monkeypatch.setattr(
        "stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs.double()
    )
    for seed in range(UPDATES):
        rollout = random_rollout(ours.policy, num_steps=T, num_envs=N, seed=seed)
        report, _ = ours.improve(rollout, RATE)
        fill(theirs, rollout)
        theirs.train()
        assert float(report[0]) > MAX_GRAD_NORM
        logged = theirs.logger.name_to_value
        expected = [
            logged["train/policy_loss"],
            logged["train/value_loss"] / 2,
            -logged["train/entropy_loss"],
        ]
        np.testing.assert_allclose(report[2:5], expected, rtol=1e-6)
    mine, other = as_theirs(ours.policy), theirs.policy.state_dict()
    assert set(mine) == set(other)
    apart = torch.cat([(mine[k] - other[k]).reshape(-1) for k in mine]).norm()
    way = torch.cat([(other[k] - before[k]).reshape(-1) for k in mine]).norm()
    assert mine["action_net.weight"].dtype == torch.float64
    assert float(apart / way) <= TOLERANCE


def test_the_comparison_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: one of 80 rewards off by 1 % is found."""
    ours, theirs = setup("discrete")
    before = as_theirs(ours.policy)
    monkeypatch.setattr(
        "stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs.double()
    )
    rollout = random_rollout(ours.policy, num_steps=T, num_envs=N)
    fill(theirs, rollout)
    theirs.train()
    rollout.rewards[3, 1] *= 1.01
    ours.improve(rollout, RATE)
    mine, other = as_theirs(ours.policy), theirs.policy.state_dict()
    apart = torch.cat([(mine[k] - other[k]).reshape(-1) for k in mine]).norm()
    way = torch.cat([(other[k] - before[k]).reshape(-1) for k in mine]).norm()
    assert float(apart / way) > 1e-6
