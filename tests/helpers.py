"""Small policies, rollouts and environments for tests: seeded, and as plain as can be.

Dimension key as in the sources: T steps, N envs, D observation size, A action size.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clipper.action_layout import ActionLayout
from clipper.algorithms.ppo import PPO
from clipper.config_ppo import PPOConfig
from clipper.engine.choice import build_engine
from clipper.envs.make import env_source
from clipper.envs.vector import spaces_of
from clipper.metrics import Episode
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import build_policy
from clipper.policies.networks import MLPShape, mlp_shape
from clipper.rollout import Rollout
from clipper.sampler import Sampler
from clipper.spaces import ObservationLayout

ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1.0, 1.0, (2,)),
}


def small_policy(
    kind: str,
    *,
    obs_size: int = 3,
    hidden_sizes: tuple[int, ...] = (5,),
    value_hidden_sizes: tuple[int, ...] | None = None,
    activation: str = "tanh",
    seed: int = 0,
    shared_torso: bool = False,
    normalize_obs: bool = False,
    dtype: torch.dtype = torch.float64,
) -> ActorCritic:
    """Returns a policy whose actions depend on the observation (the head's gain is 1, not 0.01)."""
    shape = MLPShape(
        hidden_sizes=hidden_sizes,
        value_hidden_sizes=hidden_sizes if value_hidden_sizes is None else value_hidden_sizes,
        activation=activation,
        shared_torso=shared_torso,
        hidden_gain=math.sqrt(2),
        policy_gain=1.0,
        value_gain=1.0,
    )
    policy = build_policy(
        ObservationLayout(spaces.Box(-np.inf, np.inf, (obs_size,))),
        ActionLayout(ACTION_SPACES[kind]),
        shape,
        module=None,
        seed=seed,
        log_std_init=-0.3,
        normalize_obs=normalize_obs,
    )
    return policy.to(dtype)


def random_params(policy: ActorCritic, *shape: int, seed: int = 0) -> Tensor:
    """Returns parameters of the policy's distribution, [*shape, P]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, policy.distribution.num_params, generator=generator).double()


def random_actions(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Returns valid sampled actions [*shape, A]: what `Rollout.actions` holds."""
    space = ACTION_SPACES[kind]
    if isinstance(space, spaces.Box):
        # rounded to float32, as they are when they were sampled
        return torch.from_numpy(rng.normal(size=(*shape, *space.shape)).astype(np.float32))
    if isinstance(space, spaces.MultiBinary):
        return torch.from_numpy(rng.integers(0, 2, size=(*shape, space.n)))
    sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
    return torch.from_numpy(rng.integers(0, np.array(sizes), size=(*shape, len(sizes))))


def random_rollout(
    policy: ActorCritic,
    *,
    num_steps: int = 16,
    num_envs: int = 4,
    seed: int = 0,
    end_rate: float = 0.1,
    reward_mean: float = 0.0,
    obs_mean: float = 0.0,
) -> Rollout:
    """Returns a rollout of random observations, actions, rewards and endings, judged by the policy.

    The numbers obey the contracts of `Rollout`: log-probabilities and values are the policy's, and
    `next_values` those of the observation that each step ended in.
    """
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    size = policy.obs_layout.size
    obs = torch.from_numpy(
        rng.normal(obs_mean, 1.0, size=(num_steps + 1, num_envs, size)).astype(np.float32)
    )
    final = torch.from_numpy(rng.normal(obs_mean, 1.0, size=(*shape, size)).astype(np.float32))
    actions = random_actions(policy.action_layout.kind, shape, rng)
    terminated = torch.from_numpy(rng.random(shape) < end_rate)
    truncated = torch.from_numpy(rng.random(shape) < end_rate)
    final_at = torch.nonzero(terminated | truncated)
    log_probs, values = policy.evaluate(obs[:-1], actions)
    next_values = torch.where(terminated | truncated, policy.values(final), policy.values(obs[1:]))
    rewards = torch.from_numpy(rng.normal(reward_mean, 1.0, size=shape).astype(np.float32))
    # row 0 is the first step of an episode in some environments, and in the others the fourth
    begun = {n: -3 * int(rng.integers(0, 2)) for n in range(num_envs)}
    lengths = []
    for t, n in final_at.tolist():
        lengths.append(t + 1 - begun[n])
        begun[n] = t + 1
    return Rollout(
        obs=obs[:-1],
        actions=actions,
        log_probs=log_probs,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        values=values,
        next_values=next_values,
        final_obs=final[final_at[:, 0], final_at[:, 1]],
        final_at=final_at,
        last_obs=obs[-1],
        episodes=tuple(
            Episode(int(n), 0, 0.0, length, not bool(terminated[t, n]), int(t))
            for (t, n), length in zip(final_at, lengths, strict=True)
        ),
    )


def learner(policy: ActorCritic, *, num_envs: int = 4, seed: int = 0, **settings: Any) -> PPO:
    """Returns PPO around a policy; the policy's parameters become views of one flat tensor."""
    settings = {"num_envs": num_envs, "num_steps": 16, "minibatch_size": 16, **settings}
    return PPO(policy, PPOConfig().replace(**settings), num_envs, seed)


def flat_parameters(policy: ActorCritic) -> Tensor:
    """Returns a copy of all parameters in one vector."""
    return torch.cat([p.detach().reshape(-1) for p in policy.parameters()]).clone()


class DictEnv(gymnasium.Env):
    """Nested observations of every kind; all that happens is a function of the seed and the actions.

    A walker on 0 .. 6 is drawn towards 6, where an episode terminates; after 20 steps it is cut.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "where": spaces.Discrete(7),
                "body": spaces.Tuple(
                    (spaces.Box(-np.inf, np.inf, (2,)), spaces.MultiBinary(2)),
                ),
                "clock": spaces.Box(0.0, 20.0, (1,)),
            }
        )
        self.action_space = spaces.Discrete(3, start=-1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins at a random place."""
        super().reset(seed=seed)
        self.where = int(self.np_random.integers(0, 4))
        self.clock = 0
        return self._obs(), {}

    def step(self, action: int) -> Any:
        """Moves by the action, and sometimes slips back by one."""
        assert self.action_space.contains(action)
        slip = int(self.np_random.random() < 0.2)
        self.where = min(max(self.where + action - slip, 0), 6)
        self.clock += 1
        reward = 1.0 if self.where == 6 else -0.1
        info = {"is_success": self.where == 6}
        return self._obs(), reward, self.where == 6, self.clock == 20, info

    def _obs(self) -> dict[str, Any]:
        noise = self.np_random.normal(3.0, 2.0, size=2).astype(np.float32)
        bits = self.np_random.integers(0, 2, size=2).astype(np.int8)
        return {
            "where": self.where,
            "body": (noise, bits),
            "clock": np.array([self.clock], dtype=np.float32),
        }


def policy_for(env: Any, engine: str = "auto") -> ActorCritic:
    """Returns a small float32 policy for an environment, with its engine in place."""
    obs_layout, action_layout, _ = spaces_of(env_source(env))
    config = PPOConfig().replace(hidden_sizes=(8,), engine=engine)
    policy = build_policy(
        obs_layout,
        action_layout,
        mlp_shape(config),
        module=None,
        seed=3,
        log_std_init=0.0,
        normalize_obs=True,
    )
    build_engine(policy, config)
    return policy


def collected(sampler: Sampler, policy: ActorCritic, num_steps: int = 40) -> list[Rollout]:
    """Returns three rollouts, between which the policy's normaliser changes."""
    found = []
    for _ in range(3):
        found.append(sampler.collect(policy, num_steps))
        policy.merge_observations(found[-1].obs)
    return found
