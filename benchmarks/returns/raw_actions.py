"""What a trained agent of HalfCheetah would pay for its actions if nobody clipped them.

    python benchmarks/returns/raw_actions.py RUN ...

The task pays for the squares of actions, and its motors take -1 to 1. Clipper clips what it draws to
those bounds; without that an agent pays for whatever it draws, and moves no faster. One episode of
sampled actions for each run folder (1,000 steps).
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import torch

import clipper

WEIGHT = 0.1  # ctrl_cost_weight of HalfCheetah-v5


def main(runs: list[str]) -> None:
    """Prints a line for each run."""
    print("return with clipped actions, what they cost, what they would cost, return with that")
    for run in runs:
        policy = clipper.load(run).policy
        env = gymnasium.make("HalfCheetah-v5")
        rng = np.random.default_rng(0)
        obs, _ = env.reset(seed=1)
        total = clipped = raw = 0.0
        for _ in range(1000):
            noise = torch.from_numpy(rng.standard_normal((1, 6)).astype(np.float32))
            drawn = policy.act(policy.obs_layout.rows(obs), noise)
            action = policy.action_layout.to_env(drawn)[0]
            raw += WEIGHT * float((np.asarray(drawn, np.float64) ** 2).sum())
            clipped += WEIGHT * float((action.astype(np.float64) ** 2).sum())
            obs, reward, *_ = env.step(action)
            total += float(reward)
        env.close()
        print(f"{run}: {total:.0f}, {clipped:.0f}, {raw:.0f}, {total + clipped - raw:.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
