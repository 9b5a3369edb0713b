"""Steps environments without an agent: what no library that trains in them can surpass."""

from __future__ import annotations

import time
from typing import Any

from runner import Job, main

MOST_STEPS = 40_000


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of the faster of a bare loop and Gymnasium's SyncVectorEnv."""
    import gymnasium
    import numpy as np

    num_envs = job.settings.num_envs
    rounds = min(job.total_steps, MOST_STEPS) // num_envs
    envs = [gymnasium.make(job.settings.env) for _ in range(num_envs)]
    envs[0].action_space.seed(0)
    # drawn beforehand: sampling a space takes longer than a step of CartPole
    drawn = [[envs[0].action_space.sample() for _ in envs] for _ in range(rounds)]
    for i, env in enumerate(envs):
        env.reset(seed=i)
    started, cpu = time.perf_counter(), time.process_time()
    for actions in drawn:
        for env, action in zip(envs, actions, strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
    bare = rounds * num_envs / (time.perf_counter() - started)

    vector = gymnasium.make_vec(job.settings.env, num_envs=num_envs, vectorization_mode="sync")
    blocks = [np.asarray(actions) for actions in drawn]
    vector.reset(seed=0)
    vector_started = time.perf_counter()
    for block in blocks:
        vector.step(block)
    ended = time.perf_counter()
    sync = rounds * num_envs / (ended - vector_started)
    share = (time.process_time() - cpu) / (ended - started)
    return {"value": max(bare, sync), "bare": bare, "sync": sync, "core_share": share}


if __name__ == "__main__":
    main((), {"training": training})
