"""Proximal Policy Optimization (arXiv 1707.06347): an environment enters, an agent leaves.

    Algorithm 1: for iteration = 1, 2, ...                                         train
        for actor = 1, ..., N: run pi_old in the environment for T timesteps       collect
                               compute advantage estimates A_1, ..., A_T           gae
        optimize surrogate L wrt theta, with K epochs, minibatch size M <= N T     update, ppo_loss
        theta_old <- theta                                                         train

Read `train` first. T is num_steps, N num_envs, B = T * N, M minibatch_size, K num_epochs.
Run it: python labs/ppo_in_one_file.py CartPole-v1 --total-timesteps 100000 --seed 1
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, flatdim
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal


@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyperparameters, named as in Clipper."""

    total_timesteps: int = 1_000_000  # over all actors
    num_envs: int = 8  # N
    num_steps: int = 256  # T
    num_epochs: int = 10  # K
    minibatch_size: int = 64  # M
    learning_rate: float = 3e-4
    clip_range: float = 0.2  # epsilon
    linear_learning_rate: bool = True  # it falls to 0 over the run
    linear_clip_range: bool = False  # the same for epsilon
    gamma: float = 0.99
    gae_lambda: float = 0.95
    vf_coef: float = 1.0  # of 0.5 (V - target)^2: the paper's c1 = 1 is 2 here
    ent_coef: float = 0.0  # the paper's c2
    max_grad_norm: float = 0.5
    normalize_obs: bool = True
    normalize_reward: bool = False


SETTINGS = {  # those of Clipper's presets
    "CartPole-v1": Config(
        total_timesteps=100_000, num_steps=128, minibatch_size=256, gamma=0.98, gae_lambda=0.8,
        learning_rate=1e-3, linear_clip_range=True, normalize_obs=False),
    "Pendulum-v1": Config(
        total_timesteps=100_000, num_envs=4, num_steps=1024, gamma=0.9, learning_rate=1e-3,
        normalize_obs=False, normalize_reward=True),
    "LunarLander-v3": Config(
        num_envs=16, num_steps=256, gamma=0.999, gae_lambda=0.98, learning_rate=6e-4,
        ent_coef=0.01, normalize_obs=False),
}  # fmt: skip


class RunningStats(nn.Module):
    """Mean and variance of all rows ever merged; buffers, so they are saved with the agent."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))

    def merge(self, rows: Tensor) -> None:
        """Takes in a block of rows at once, by Chan's formula."""
        rows, new, old, total = rows.double(), len(rows), self.count, self.count + len(rows)
        delta = rows.mean(0) - self.mean
        spread = self.var * old + rows.var(0, correction=0) * new + delta**2 * old * new / total
        self.count, self.mean, self.var = total, self.mean + delta * new / total, spread / total

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the rows at mean 0 and variance 1, and nothing beyond 10 standard deviations."""
        scaled = (rows - self.mean) / torch.sqrt(self.var + 1e-8)
        return scaled.clamp(-10.0, 10.0).to(rows.dtype)


class ActorCritic(nn.Module):
    """The policy pi(a|s) and the value function V(s): two networks that share nothing."""

    def __init__(self, obs_size: int, action_size: int, continuous: bool, normalize_obs: bool):
        super().__init__()
        # The small gain makes the first policy nearly uniform: it prefers nothing without a reason.
        self.actor = mlp(obs_size, action_size, head_gain=0.01)
        self.critic = mlp(obs_size, 1, head_gain=1.0)
        # One spread for all states: it shrinks only as fast as the whole of the data allows.
        self.log_std = nn.Parameter(torch.zeros(action_size)) if continuous else None
        # Inside the agent: a policy without the statistics it was trained with is another policy.
        self.obs_stats = RunningStats(obs_size) if normalize_obs else nn.Identity()

    def distribution(self, obs: Tensor) -> Distribution:
        """Returns pi(.|s) for each row of observations."""
        output = self.actor(self.obs_stats(obs))
        if self.log_std is None:
            return Categorical(logits=output, validate_args=False)
        return Independent(Normal(output, self.log_std.exp(), validate_args=False), 1)

    def value(self, obs: Tensor) -> Tensor:
        """Returns V(s) for each row of observations."""
        return self.critic(self.obs_stats(obs)).squeeze(-1)


def mlp(inputs: int, outputs: int, head_gain: float) -> nn.Sequential:
    """Returns a network of two hidden layers with orthogonal weights and zero biases."""
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, gain in zip(layers, (2**0.5, 2**0.5, head_gain), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


class Actors:
    """Algorithm 1's N actors: environments stepped one after the other in this process."""

    def __init__(self, env_id: str, num_envs: int, gamma: float, seed: tuple[int, ...]) -> None:
        self.envs = [gym.make(env_id) for _ in range(num_envs)]
        self.gamma, self.seed, self.num_episodes = gamma, seed, [0] * num_envs
        self.running, self.discounted = np.zeros(num_envs), np.zeros(num_envs)
        self.episode_returns: list[float] = []  # of raw rewards
        self.obs = torch.stack([self.reset(i) for i in range(num_envs)])

    def reset(self, i: int) -> Tensor:
        """Returns the first observation of env i's next episode, which has a seed of its own."""
        key = np.random.SeedSequence((*self.seed, i, self.num_episodes[i]))
        self.num_episodes[i] += 1
        self.running[i] = self.discounted[i] = 0.0
        obs, _ = self.envs[i].reset(seed=int(key.generate_state(1)[0]))
        return torch.tensor(obs, dtype=torch.float32).flatten()

    def step(self, actions: np.ndarray) -> tuple[Tensor, ...]:
        """Returns next_obs, rewards, terminated, truncated, discounted returns so far: [N, ...]."""
        # next_obs is where the step truly ended. An env whose episode is over is reset at once, and
        # `self.obs`, where it goes on from, is then the start of an episode, never a successor.
        rows = []
        for i, env in enumerate(self.envs):
            obs, reward, terminated, truncated, _ = env.step(at_the_door(env, actions[i]))
            next_obs = torch.tensor(obs, dtype=torch.float32).flatten()  # a copy: envs reuse theirs
            self.running[i] += reward
            self.discounted[i] = self.gamma * self.discounted[i] + reward
            numbers = float(reward), bool(terminated), bool(truncated), float(self.discounted[i])
            rows.append((next_obs, *map(torch.tensor, numbers)))
            if terminated or truncated:
                self.episode_returns.append(float(self.running[i]))
            self.obs[i] = self.reset(i) if terminated or truncated else next_obs
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def at_the_door(env: gym.Env, action: np.ndarray) -> np.ndarray | int:
    """Returns the policy's action in the environment's units and bounds."""
    # Here and only here: the batch keeps the action as drawn, whose probability is known.
    space = env.action_space
    if isinstance(space, Discrete):
        return int(action) + int(space.start)
    inside = np.clip(action, -1.0, 1.0)
    return (space.low + 0.5 * (inside + 1.0) * (space.high - space.low)).astype(space.dtype)


@torch.no_grad()
def collect(actors: Actors, agent: ActorCritic, config: Config) -> dict[str, Tensor]:
    """Returns a rollout [T, N, ...]: "for actor = 1, ..., N: run pi_old for T timesteps"."""
    steps = []
    for _ in range(config.num_steps):
        obs = actors.obs.clone()
        actions = agent.distribution(obs).sample()
        steps.append((obs, actions, *actors.step(actions.numpy())))
    names = ("obs", "actions", "next_obs", "rewards", "terminated", "truncated", "discounted")
    rollout = dict(zip(names, map(torch.stack, zip(*steps, strict=True)), strict=True))
    # Nothing was learnt meanwhile, so pi_old and V can be asked about all T * N rows at once.
    rollout["log_probs"] = agent.distribution(rollout["obs"]).log_prob(rollout["actions"])
    rollout["values"] = agent.value(rollout["obs"])
    # V of the true successor, also where a time limit cut the episode off, and after the last row.
    rollout["next_values"] = agent.value(rollout["next_obs"])
    return rollout


def scaled_rewards(rollout: dict[str, Tensor], stats: RunningStats) -> Tensor:
    """Returns the rewards [T, N] over the standard deviation of the discounted return so far."""
    # The rollout's own returns count already, so that the first one too is scaled. Rewards are only
    # divided: taking away a mean would pay for living longer, or for dying.
    stats.merge(rollout["discounted"].flatten())
    return (rollout["rewards"] / torch.sqrt(stats.var + 1e-8).to(rollout["rewards"])).clamp(-10, 10)


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor,
        truncated: Tensor, gamma: float, gae_lambda: float) -> Tensor:  # fmt: skip
    """Returns A_t [T, N] = sum_l (gamma lambda)^l delta_{t+l}: "compute advantage estimates"."""
    # GAE, arXiv 1506.02438, eq. 16; the sum stops where the episode or the rollout does.
    # Only termination forfeits the future. After a time limit, or where the rollout stops, the
    # world would have gone on, and V(next_obs) stands for what it would have brought.
    deltas = rewards + gamma * torch.where(terminated, 0.0, next_values) - values
    advantages, later = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        # After either kind of ending, row t + 1 is another episode's: the sum stops.
        later = torch.where(terminated[t] | truncated[t], 0.0, later)
        later = advantages[t] = deltas[t] + gamma * gae_lambda * later
    return advantages


def ppo_loss(agent: ActorCritic, obs: Tensor, actions: Tensor, old_log_probs: Tensor,
             advantages: Tensor, value_targets: Tensor, config: Config) -> Tensor:  # fmt: skip
    """Returns minus the "surrogate L" of one minibatch, the paper's eq. 9; differentiable."""
    if len(advantages) > 1:  # one row has no standard deviation
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = agent.distribution(obs)
    ratio = torch.exp(policy.log_prob(actions) - old_log_probs)  # pi(a|s) / pi_old(a|s)
    # Eq. 7. A good action (A > 0) earns nothing by becoming more than 1 + epsilon times as likely,
    # a bad one nothing by becoming less than 1 - epsilon times as likely: the gradient is zero
    # there. The min keeps the clipping from ever excusing a move in the wrong direction.
    clipped = ratio.clamp(1.0 - config.clip_range, 1.0 + config.clip_range)
    objective = torch.min(ratio * advantages, clipped * advantages).mean()
    value_loss = 0.5 * (agent.value(obs) - value_targets).square().mean()
    return -objective + config.vf_coef * value_loss - config.ent_coef * policy.entropy().mean()


def update(agent: ActorCritic, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor],
           config: Config, permutations: Iterable[Tensor]) -> None:  # fmt: skip
    """Moves theta: "optimize surrogate L wrt theta, with K epochs and minibatch size M <= N T"."""
    # Flat columns, [B, ...]; and of permutations of the B rows there is one for each epoch.
    columns = [batch[k] for k in ("obs", "actions", "log_probs", "advantages", "value_targets")]
    for permutation in permutations:
        for rows in permutation.split(config.minibatch_size):
            loss = ppo_loss(agent, *(column[rows] for column in columns), config)
            optimizer.zero_grad()
            loss.backward()
            # One norm over both networks: no single wild minibatch can throw the agent far.
            nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
            optimizer.step()


def train(env_id: str, config: Config, seed: int) -> ActorCritic:
    """Returns the trained agent: the whole of Algorithm 1."""
    rollout_size = config.num_steps * config.num_envs  # B
    actors = Actors(env_id, config.num_envs, config.gamma, (seed, 0))
    space = actors.envs[0].action_space
    obs_size, action_size, continuous = actors.obs.shape[1], flatdim(space), isinstance(space, Box)
    agent = ActorCritic(obs_size, action_size, continuous, config.normalize_obs)
    # The eps is not Adam's 1e-8: a weight whose gradients are tiny shall not take full steps.
    optimizer = torch.optim.Adam(agent.parameters(), config.learning_rate, eps=1e-5)
    reward_stats, num_iterations = RunningStats(), -(-config.total_timesteps // rollout_size)
    for iteration in range(num_iterations):  # Algorithm 1: "for iteration = 1, 2, ..."
        left = 1.0 - iteration * rollout_size / config.total_timesteps
        lr = config.learning_rate * (left if config.linear_learning_rate else 1.0)
        epsilon = config.clip_range * (left if config.linear_clip_range else 1.0)

        rollout = collect(actors, agent, config)
        if config.normalize_reward:
            rollout["rewards"] = scaled_rewards(rollout, reward_stats)
        rollout["advantages"] = gae(
            *(rollout[k] for k in ("rewards", "values", "next_values", "terminated", "truncated")),
            config.gamma, config.gae_lambda)  # fmt: skip
        rollout["value_targets"] = rollout["advantages"] + rollout["values"]
        batch = {name: column.flatten(0, 1) for name, column in rollout.items()}  # [T, N] -> [B]
        optimizer.param_groups[0]["lr"] = lr
        shuffles = [torch.randperm(rollout_size) for _ in range(config.num_epochs)]
        update(agent, optimizer, batch, replace(config, clip_range=epsilon), shuffles)
        # "theta_old <- theta": nothing to copy, pi_old lives on only in the log_probs of a rollout.
        # The statistics of what is seen are part of pi: before this line they could not move.
        if config.normalize_obs:
            agent.obs_stats.merge(batch["obs"])

        if (iteration + 1) % max(1, num_iterations // 20) == 0 and actors.episode_returns:
            mean = np.mean(actors.episode_returns[-100:])
            print(f"step {(iteration + 1) * rollout_size:9,d}  episode_return {mean:9.2f}")
    return agent


@torch.no_grad()
def evaluate(env_id: str, agent: ActorCritic, seed: int, num_episodes: int = 20) -> list[float]:
    """Returns the returns of fresh episodes in which the most probable action is always taken."""
    actors = Actors(env_id, 1, 1.0, (seed, 1))  # of several envs, short episodes would end first
    while len(actors.episode_returns) < num_episodes:
        actors.step(agent.distribution(actors.obs).mode.numpy())
    return actors.episode_returns


def main() -> None:
    """Trains on the command line's environment, then shows what the last agent is worth."""
    parser = argparse.ArgumentParser(description="PPO in one file")
    parser.add_argument("env_id", help="with Discrete or bounded 1-D Box actions")
    parser.add_argument("--seed", type=int, default=1)
    for name, kind in Config.__annotations__.items():
        how = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        parser.add_argument("--" + name.replace("_", "-"), **how)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    env_id, seed = given.pop("env_id"), given.pop("seed")
    config = replace(SETTINGS.get(env_id, Config()), **given)
    torch.set_num_threads(1)  # such small networks lose more by sharing work than they gain
    torch.manual_seed(seed)
    print(f"{env_id}, seed {seed}: {config}")
    returns = evaluate(env_id, train(env_id, config, seed), seed)
    print(f"evaluation: {np.mean(returns):.1f} +- {np.std(returns):.1f} (worst {min(returns):.1f})")


if __name__ == "__main__":
    main()
