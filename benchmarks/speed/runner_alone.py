"""Steps environments without an agent: what no library that trains in them can surpass."""

from __future__ import annotations

import multiprocessing
import os
import time
from functools import partial
from typing import Any

from runner import Job, main

MOST_STEPS = 40_000
LOOP_SECONDS = 1.0


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of the faster of a bare loop and Gymnasium's SyncVectorEnv."""
    import gymnasium
    import numpy as np

    num_envs = job.settings.num_envs
    rounds = min(job.total_steps, MOST_STEPS) // num_envs
    make = gymnasium.make
    if job.settings.images:
        from clipper.envs.make import env_source

        make = lambda name: env_source(name).make()  # noqa: E731
    envs = [make(job.settings.env) for _ in range(num_envs)]
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

    vector = gymnasium.vector.SyncVectorEnv([partial(make, job.settings.env)] * num_envs)
    blocks = [np.asarray(actions) for actions in drawn]
    vector.reset(seed=0)
    vector_started = time.perf_counter()
    for block in blocks:
        vector.step(block)
    ended = time.perf_counter()
    sync = rounds * num_envs / (ended - vector_started)
    share = (time.process_time() - cpu) / (ended - started)
    return {"value": max(bare, sync), "bare": bare, "sync": sync, "core_share": share}


def cores(job: Job) -> dict[str, Any]:
    """Returns how many times one loop's steps two independent loops do on two cores in a time.

    Below `works.LEAST_SCALING` the second core is no core of its own, and no figure about two cores
    means anything.
    """
    both = sorted(os.sched_getaffinity(0))
    alone, together = sum(_loops(both[:1])), sum(_loops(both[:2]))
    return {"value": together / alone, "core_share": 1.0}


def _loops(cores: list[int]) -> list[float]:
    """Returns the rounds a second that a loop does on each of the cores at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(len(cores)), context.SimpleQueue()
    loops = [context.Process(target=_loop, args=(core, barrier, found)) for core in cores]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return [found.get() for _ in loops]


def _loop(core: int, barrier: Any, found: Any) -> None:
    os.sched_setaffinity(0, {core})
    barrier.wait(timeout=60)
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < LOOP_SECONDS:
        sum(range(1000))
        rounds += 1
    found.put(rounds / (time.perf_counter() - began))


if __name__ == "__main__":
    main((), {"training": training, "cores": cores})
