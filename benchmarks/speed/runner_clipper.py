"""Measures Clipper."""

from __future__ import annotations

import time
from typing import Any

from runner import Job, Laps, compare, main, repeated, started


def build(job: Job) -> Any:
    """Returns a fresh agent with the row's settings."""
    import clipper

    s = job.settings
    options: dict[str, Any] = dict(job.options)
    if options.pop("module", None) is not None:
        options["module"] = own_module
    agent = clipper.PPO(
        s.env,
        preset="none",
        total_timesteps=job.total_steps,
        num_envs=s.num_envs,
        num_steps=s.num_steps,
        num_epochs=s.num_epochs,
        minibatch_size=s.minibatch_size,
        normalize_obs=s.normalize,
        normalize_reward=s.normalize,
        learning_rate=s.learning_rate,
        gamma=s.gamma,
        gae_lambda=s.gae_lambda,
        clip_range=s.clip_range,
        ent_coef=s.ent_coef,
        vf_coef=2 * s.value_weight,
        max_grad_norm=s.max_grad_norm,
        hidden_sizes=s.hidden_sizes,
        shared_torso=s.images,
        eval_every=0,
        **options,
    )
    config = agent.config
    compare(s, {**_settings(config), "env": agent.env})
    return agent


def own_module(obs_size: int, num_outputs: int) -> Any:
    """Returns a network written by a user: two torsos of 64 tanh units twice."""
    import torch
    from torch import nn

    def torso(outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(obs_size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
        )

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor, self.critic = torso(num_outputs), torso(1)

        def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.actor(obs), self.critic(obs).squeeze(-1)

    return Own()


def _settings(config: Any) -> dict[str, Any]:
    same = (
        "num_envs", "num_steps", "num_epochs", "minibatch_size", "gamma", "gae_lambda", "ent_coef",
        "max_grad_norm", "hidden_sizes",
    )  # fmt: skip
    assert config.normalize_obs == config.normalize_reward
    assert (config.objective, config.advantage) == ("clip", "gae")
    assert config.normalize_advantage == "minibatch"
    assert config.clip_value is None
    assert config.target_kl is None
    assert not config.recompute_advantages
    assert config.activation == "tanh"
    assert (config.cnn, config.cnn_features, config.clip_reward) == ("auto", None, False)
    return {name: getattr(config, name) for name in same} | {
        "normalize": config.normalize_obs,
        "learning_rate": config.learning_rate.at(0.5),
        "clip_range": config.clip_range.at(0.5),
        "value_weight": config.vf_coef / 2,
        "images": config.shared_torso,
    }


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of training over the first steps of a fresh agent."""
    agent = build(job)
    laps = Laps()
    laps.begin()
    agent.train(progress=False, callback=lambda report: laps.mark(report.step))
    updates = int(agent._run.algorithm.engine.state_dict()["num_updates"])
    parameters = sum(p.numel() for p in agent.policy.parameters())
    agent.close()
    return {**laps.found(job, updates, parameters), "engine": agent.engine}


def profiled(job: Job) -> dict[str, Any]:
    """Returns the microseconds of one update, or of the advantages of one rollout."""
    agent = build(job)
    size = job.settings.rollout_size
    agent.train(size, progress=False)
    cpu, began = time.process_time(), time.perf_counter()
    outcome = agent.train(job.total_steps, progress=False, profile=True)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    rollouts = (job.total_steps - size) // size
    part, times = {
        "update": ("improve", rollouts * job.settings.updates_per_rollout),
        "gae": ("estimate", rollouts),
    }[job.kind]
    value = 1e6 * outcome.profile.seconds[part] / times
    return {"value": value, "core_share": share, "engine": agent.engine}


def act(job: Job) -> dict[str, Any]:
    """Returns the microseconds in which all envs get their actions, values and log-probabilities."""
    import numpy as np

    from clipper.randomness import Purpose

    agent = build(job)
    policy, shape = agent.policy, (128, job.settings.num_envs)
    layout = policy.action_layout
    obs = np.random.default_rng(0).normal(size=(*shape, policy.obs_layout.size))
    obs, actions = obs.astype(np.float32), np.zeros((*shape, layout.size), dtype=layout.dtype)

    def once() -> None:
        noise = policy.noise(0, Purpose.ACTION, 0, *shape)
        play = policy.play(obs, noise, actions)
        for t in range(shape[0]):
            play.act(t)
        play.judgement(shape[0])

    return repeated(once, shape[0]) | {"engine": agent.engine}


def start(job: Job) -> dict[str, Any]:
    """Returns the seconds from the start of the process to the end of the first iteration."""
    agent = build(job)
    agent.train(job.settings.rollout_size, progress=False)
    return started(job)


if __name__ == "__main__":
    main(
        ("clipper-rl",),
        {
            "training": training,
            "cores": training,
            "update": profiled,
            "gae": profiled,
            "act": act,
            "start": start,
        },
    )
