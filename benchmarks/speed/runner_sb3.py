"""Measures Stable-Baselines3, and sbx, which has the same face and computes with JAX."""

from __future__ import annotations

import statistics
import time
from typing import Any

from runner import Job, Laps, compare, main, repeated, started
from works import Settings


def build(job: Job) -> Any:
    """Returns a fresh model with the row's settings, in monitored environments that draw nothing."""
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import VecNormalize

    from clipper.envs.make import env_source

    torch.set_num_threads(1)
    s = job.settings
    # without this make_vec_env asks for rgb_array
    env_kwargs = {"render_mode": None}
    if s.images:  # the game that the others have, in place of SB3's own preprocessing
        env = make_vec_env(env_source(s.env).make, n_envs=s.num_envs, seed=0)
    else:
        env = make_vec_env(s.env, n_envs=s.num_envs, seed=0, env_kwargs=env_kwargs)
    if s.normalize:
        env = VecNormalize(env, gamma=s.gamma)
    policy_kwargs: dict[str, Any] = (
        {} if s.images else {"net_arch": {"pi": list(s.hidden_sizes), "vf": list(s.hidden_sizes)}}
    )
    if job.library == "sbx":
        from sbx import PPO
    else:
        from stable_baselines3 import PPO
    model = PPO(
        "CnnPolicy" if s.images else "MlpPolicy",
        env,
        learning_rate=s.learning_rate,
        n_steps=s.num_steps,
        batch_size=s.minibatch_size,
        n_epochs=s.num_epochs,
        gamma=s.gamma,
        gae_lambda=s.gae_lambda,
        clip_range=s.clip_range,
        ent_coef=s.ent_coef,
        vf_coef=s.value_weight,
        max_grad_norm=s.max_grad_norm,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )
    compare(s, _settings(model, s))
    # as quiet as it is by itself, without the empty folder in /tmp
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _settings(model: Any, wanted: Settings) -> dict[str, Any]:
    from stable_baselines3.common.torch_layers import NatureCNN
    from stable_baselines3.common.vec_env import VecNormalize

    env = model.get_env()
    assert model.clip_range_vf is None
    assert model.target_kl is None
    assert model.normalize_advantage
    schedule = model.clip_range if callable(model.clip_range) else lambda _: model.clip_range
    return {
        "env": env.get_attr("spec")[0].id,
        "num_envs": model.n_envs,
        "num_steps": model.n_steps,
        "num_epochs": model.n_epochs,
        "minibatch_size": model.batch_size,
        "normalize": isinstance(env, VecNormalize) and env.norm_obs and env.norm_reward,
        "learning_rate": model.lr_schedule(0.5),
        "gamma": model.gamma,
        "gae_lambda": model.gae_lambda,
        "clip_range": schedule(0.5),
        "ent_coef": model.ent_coef,
        "value_weight": model.vf_coef,
        "max_grad_norm": model.max_grad_norm,
        "hidden_sizes": tuple(model.policy_kwargs.get("net_arch", {"pi": ()})["pi"]),
        "images": isinstance(getattr(model.policy, "features_extractor", None), NatureCNN),
    }


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of training over the first steps of a fresh model."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Marks(BaseCallback):
        """Notes the end of every iteration: when the next begins, and after the last."""

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                laps.mark(self.num_timesteps)

        def _on_step(self) -> bool:
            return True

    model = build(job)
    laps = Laps()
    laps.begin()
    model.learn(job.total_steps, callback=Marks())
    laps.mark(model.num_timesteps)
    return laps.found(job, *_counts(model))


def _counts(model: Any) -> tuple[int, int]:
    """Returns the updates that the optimiser did, and the parameters of both networks."""
    if hasattr(model.policy, "optimizer"):
        states = model.policy.optimizer.state.values()
        (updates,) = {int(state["step"]) for state in states}
        return updates, sum(p.numel() for p in model.policy.parameters())
    import jax

    parts = (model.policy.actor_state, model.policy.vf_state)
    (updates,) = {int(part.step) for part in parts}
    return updates, sum(leaf.size for part in parts for leaf in jax.tree.leaves(part.params))


def timed(job: Job) -> dict[str, Any]:
    """Returns the microseconds of one update, or of the advantages of one rollout."""
    model = build(job)
    owner, name, times = {
        "update": (model, "train", job.settings.updates_per_rollout),
        "gae": (model.rollout_buffer, "compute_returns_and_advantage", 1),
    }[job.kind]
    function, taken = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        since = time.perf_counter()
        found = function(*args, **kwargs)
        taken.append(1e6 * (time.perf_counter() - since) / times)
        return found

    setattr(owner, name, call)
    cpu, began = time.process_time(), time.perf_counter()
    model.learn(job.total_steps)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    # JAX compiles in the first
    return {"value": statistics.fmean(taken[1:]), "core_share": share}


def act(job: Job) -> dict[str, Any]:
    """Returns the microseconds in which all envs get their actions, values and log-probabilities."""
    import numpy as np
    import torch

    model = build(job)
    obs = np.random.default_rng(0).normal(size=(job.settings.num_envs, 4)).astype(np.float32)

    def by_torch() -> None:
        with torch.no_grad():
            actions, _, _ = model.policy(torch.as_tensor(obs))
        actions.numpy()

    def by_jax() -> None:
        model.policy.reset_noise()
        found = model.policy.predict_all(obs, model.policy.noise_key)
        _ = [np.asarray(array) for array in found]

    once = by_jax if job.library == "sbx" else by_torch
    return repeated(lambda: [once() for _ in range(64)], 64)


def start(job: Job) -> dict[str, Any]:
    """Returns the seconds from the start of the process to the end of the first iteration."""
    build(job).learn(job.settings.rollout_size)
    return started(job)


if __name__ == "__main__":
    main(
        ("stable-baselines3", "sbx-rl"),
        {"training": training, "update": timed, "gae": timed, "act": act, "start": start},
    )
