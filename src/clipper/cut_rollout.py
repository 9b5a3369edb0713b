"""The rows of a worker that was lost in, the part of a rollout that they are out.

Dimension key: T steps, K envs of a share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.metrics import Episode
from clipper.policies.actor_critic import ActorCritic
from clipper.rollout import Rollout


def cut_off(
    blocks: list[NDArray[Any]],
    before: Mapping[str, NDArray[Any]],
    first_env: int,
    steps: int,
    num_envs_in_all: int,
) -> dict[str, Any]:
    """Returns the columns of a rollout whose open episodes end in its last row, as truncated.

    Args:
        blocks: Of `block_shapes`, with one row more than are kept: its observations are those that
            the episodes are cut off in. No episode is truncated before.
        before: Episodes, lengths and returns before the first row, [K] each.
        first_env: Index of the first environment.
        steps: Steps of every environment before the first row.
        num_envs_in_all: Environments of the run.

    Returns:
        Columns of `Rollout` but values and log-probabilities, and `standing` at the end.
    """
    obs, actions, rewards, terminated, truncated = (block[:-1].copy() for block in blocks)
    last_obs = blocks[0][-1].copy()
    num_steps = len(rewards)
    truncated[-1] = ~terminated[-1]
    episodes, lengths = before["episodes"].copy(), before["lengths"].copy()
    returns = before["returns"].copy()
    found, final_at, final_obs = [], [], []
    for t in range(num_steps):
        lengths += 1
        returns += rewards[t].astype(np.float64)
        for i in np.flatnonzero(terminated[t] | truncated[t]):
            step = (steps + t + 1) * num_envs_in_all
            found.append(
                Episode(first_env + int(i), int(episodes[i]), float(returns[i]), int(lengths[i]),
                        bool(truncated[t, i]), step)
            )  # fmt: skip
            final_at.append((t, int(i)))
            # of one that terminated no value is asked: any finite observation will do
            final_obs.append(last_obs[i] if truncated[t, i] else obs[t, i])
            if not truncated[t, i]:
                episodes[i] += 1
            lengths[i], returns[i] = 0, 0.0
    return {
        "obs": obs,
        "actions": actions,
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "final_obs": np.stack(final_obs),
        "final_at": np.array(final_at, dtype=np.int64).reshape(-1, 2),
        "last_obs": last_obs,
        "episodes": tuple(found),
        "standing": {"episodes": episodes, "lengths": lengths, "returns": returns},
    }


def judged(policy: ActorCritic, columns: Mapping[str, Any]) -> Rollout:
    """Returns the rollout of what `cut_off` kept, with log-probabilities and values."""
    tensors = {k: torch.from_numpy(v) for k, v in columns.items() if k != "episodes"}
    log_probs, values = policy.evaluate(tensors["obs"], tensors["actions"])
    next_values = policy.next_values(
        values, tensors["final_obs"], tensors["final_at"], tensors["last_obs"]
    )
    return Rollout(
        episodes=columns["episodes"],
        log_probs=log_probs,
        values=values,
        next_values=next_values,
        **tensors,
    )


def joined_in_time(parts: list[Rollout]) -> Rollout:
    """Returns one rollout of parts that follow each other; all but the last end in endings."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0] + [len(part.rewards) for part in parts[:-1]]).tolist()
    rows = ("obs", "actions", "log_probs", "rewards", "terminated", "truncated", "values",
            "next_values", "final_obs")  # fmt: skip
    pairs = zip(parts, starts, strict=True)
    return Rollout(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in rows},
        final_at=torch.cat([part.final_at + torch.tensor([start, 0]) for part, start in pairs]),
        last_obs=parts[-1].last_obs,
        episodes=tuple(episode for part in parts for episode in part.episodes),
    )
