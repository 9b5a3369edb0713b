"""Measures Clipper."""

from __future__ import annotations

from typing import Any

from runner import Job, Laps, compare, main


def build(job: Job, **changes: Any) -> Any:
    """Returns a fresh agent with the row's settings."""
    import clipper

    s = job.settings
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
        eval_every=0,
        **{**job.options, **changes},
    )
    config = agent.config
    compare(s, {**_settings(config), "env": agent.env})
    return agent


def _settings(config: Any) -> dict[str, Any]:
    same = (
        "num_envs", "num_steps", "num_epochs", "minibatch_size", "gamma", "gae_lambda", "ent_coef",
        "max_grad_norm", "hidden_sizes",
    )  # fmt: skip
    assert config.normalize_obs == config.normalize_reward
    assert config.normalize_advantage == "minibatch"
    assert config.clip_value is None
    assert config.target_kl is None
    assert not config.recompute_advantages
    assert not config.shared_torso
    assert config.activation == "tanh"
    return {name: getattr(config, name) for name in same} | {
        "normalize": config.normalize_obs,
        "learning_rate": config.learning_rate.at(0.5),
        "clip_range": config.clip_range.at(0.5),
        "value_weight": config.vf_coef / 2,
    }


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of training over the first steps of a fresh agent."""
    agent = build(job)
    laps = Laps()
    agent.train(progress=False, callback=lambda report: laps.mark(report.step))
    updates = int(agent._run.algorithm.engine.state_dict()["num_updates"])
    parameters = sum(p.numel() for p in agent.policy.parameters())
    return {**laps.found(job, updates, parameters), "engine": agent.engine}


if __name__ == "__main__":
    main(("clipper-rl",), {"training": training})
