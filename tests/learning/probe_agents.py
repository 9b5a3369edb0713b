"""Agents trained on probe environments, and what they have learnt: values and probabilities."""

from __future__ import annotations

from typing import Any

import torch

import clipper


def trained(env: Any, seed: int, **settings: Any) -> clipper.PPO:
    """Returns an agent trained on a probe: a small network, no normaliser, step size to 0."""
    plain: dict[str, Any] = {
        "gamma": 0.9,
        "total_timesteps": 6_400,
        "num_envs": 4,
        "num_steps": 16,
        "minibatch_size": 64,
        "num_epochs": 4,
        "learning_rate": "linear:1e-2:0",
        "hidden_sizes": (16,),
        "normalize_obs": False,
        "normalize_reward": False,
        "eval_every": 0,
    }
    agent = clipper.PPO(env, seed=seed, preset="none", **plain | settings)
    agent.train(progress=False)
    return agent


def value(agent: clipper.PPO, obs: Any) -> float:
    """Returns V of one observation as the environment gives it."""
    rows = agent.policy.obs_layout.rows(obs)
    return float(agent.policy.values(torch.from_numpy(rows)))


def probability(agent: clipper.PPO, obs: float, action: int) -> float:
    """Returns the probability of an action of a Discrete space."""
    rows = torch.tensor([[obs]], dtype=torch.float32)
    log_prob, _ = agent.policy.evaluate(rows, torch.tensor([[action]]))
    return float(log_prob.exp())
