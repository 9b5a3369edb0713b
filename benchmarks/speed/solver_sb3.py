"""Solves a task with Stable-Baselines3 or sbx and the settings of RL Baselines3 Zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from solve import Task
from solver import Examiner, main

# as many as Clipper's evaluation steps side by side
EVALUATION_ENVS = 16


def run(job: dict[str, Any], task: Task) -> dict[str, Any]:
    """Returns how the run ended."""
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.logger import Logger

    if job["library"] == "sbx":
        from sbx import PPO
    else:
        from stable_baselines3 import PPO
    torch.set_num_threads(1)
    settings = {name: schedule(value) for name, value in task.zoo.items()}
    quiet = {"env_kwargs": {"render_mode": None}}
    env = make_vec_env(job["task"], settings.pop("n_envs"), seed=job["seed"], **quiet)
    model = PPO("MlpPolicy", env, seed=job["seed"], device="cpu", **settings)
    # as quiet as it is by itself, without the empty folder in /tmp
    model.set_logger(Logger(folder=None, output_formats=[]))

    def play(episodes: int, seed: int) -> float:
        width = min(episodes, EVALUATION_ENVS)
        exam = make_vec_env(job["task"], width, seed=1000 * (1 + seed), **quiet)
        mean, _ = evaluate_policy(model, exam, n_eval_episodes=episodes, deterministic=True)
        return float(mean)

    examiner = Examiner(task, play)

    def look() -> bool:
        returns = [episode["r"] for episode in model.ep_info_buffer]
        return examiner.look(model.num_timesteps, sum(returns) / max(len(returns), 1))

    class Looks(BaseCallback):
        """Looks when the next iteration begins, and ends training at the step after."""

        is_solved = False

        def _on_rollout_start(self) -> None:
            self.is_solved = look()

        def _on_step(self) -> bool:
            return not self.is_solved

    model.learn(task.total_timesteps, callback=Looks())
    if not examiner.found["is_solved"]:
        look()
    return examiner.found


def schedule(value: Any) -> Any:
    """Returns what the zoo writes as `lin_0.2`, a schedule from there to 0, as SB3 takes it."""
    if not isinstance(value, str):
        return value
    start = float(value.removeprefix("lin_"))
    falling: Callable[[float], float] = lambda remaining: remaining * start  # noqa: E731
    return falling


if __name__ == "__main__":
    main(run)
