"""Solves a task with Clipper's preset."""

from __future__ import annotations

from typing import Any

from solve import Task
from solver import Examiner, main


def run(job: dict[str, Any], task: Task) -> dict[str, Any]:
    """Returns how the run ended."""
    import clipper

    agent = clipper.PPO(
        job["task"], seed=job["seed"], eval_every=0, vectorization=job["vectorization"]
    )

    def play(episodes: int, seed: int) -> float:
        return agent.evaluate(episodes, seed=1000 * job["seed"] + seed).mean

    examiner = Examiner(task, play)

    def look(report: clipper.Report) -> bool:
        mean = report.metrics.get("rollout/episode_return", float("nan"))
        return not examiner.look(report.step, mean)

    agent.train(progress=False, callback=look)
    return examiner.found


if __name__ == "__main__":
    main(run)
