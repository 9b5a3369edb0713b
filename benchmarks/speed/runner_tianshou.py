"""Measures tianshou on tasks with discrete actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runner import Job, Laps, compare, main, repeated, started


def build(job: Job, laps: Laps) -> tuple[Any, Any]:
    """Returns a fresh algorithm with the row's settings, and the parameters of its training."""
    import gymnasium
    import torch
    from tianshou.algorithm import PPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
    from torch.distributions import Categorical

    torch.set_num_threads(1)
    s = job.settings
    assert not s.normalize, "tianshou has no running scale of rewards as the others mean it"
    envs = DummyVectorEnv([lambda: gymnasium.make(s.env) for _ in range(s.num_envs)])
    envs.seed(0)
    obs_space, action_space = envs.observation_space[0], envs.action_space[0]

    def net() -> Net:
        return Net(
            state_shape=obs_space.shape, hidden_sizes=s.hidden_sizes, activation=torch.nn.Tanh
        )

    actor = DiscreteActor(
        preprocess_net=net(), action_shape=int(action_space.n), softmax_output=False
    )
    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=lambda logits: Categorical(logits=logits),
        action_space=action_space,
        observation_space=obs_space,
        action_scaling=False,
        action_bound_method=None,
    )
    algorithm = PPO(
        policy=policy,
        critic=DiscreteCritic(preprocess_net=net()),
        optim=AdamOptimizerFactory(lr=s.learning_rate, eps=1e-5),
        eps_clip=s.clip_range,
        vf_coef=s.value_weight,
        ent_coef=s.ent_coef,
        max_grad_norm=s.max_grad_norm,
        gae_lambda=s.gae_lambda,
        gamma=s.gamma,
        max_batchsize=s.rollout_size,
    )
    buffer = VectorReplayBuffer(s.rollout_size, s.num_envs)
    params = OnPolicyTrainerParams(
        max_epochs=1,
        epoch_num_steps=job.total_steps,
        training_collector=Collector(algorithm, envs, buffer),
        collection_step_num_env_steps=s.rollout_size,
        batch_size=s.minibatch_size,
        update_step_num_repetitions=s.num_epochs,
        # called before every iteration
        training_fn=lambda _, step: laps.mark(step) if step else None,
        verbose=False,
        show_progress=False,
    )
    compare(s, _settings(algorithm, params, envs, actor))
    return algorithm, params


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of training over the first steps of a fresh algorithm."""
    laps = Laps()
    algorithm, params = build(job, laps)
    laps.begin()
    done = algorithm.run_training(params)
    laps.mark(done.train_step)
    optimizer = algorithm.optim._optim
    (updates,) = {int(state["step"]) for state in optimizer.state.values()}
    parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    return laps.found(job, updates, parameters)


def _settings(algorithm: Any, params: Any, envs: Any, actor: Any) -> dict[str, Any]:
    import torch

    assert algorithm.advantage_normalization
    assert not any((algorithm.value_clip, algorithm.recompute_adv, algorithm.dual_clip))
    (group,) = algorithm.optim._optim.param_groups
    layers = [m for m in actor.preprocess.modules() if isinstance(m, torch.nn.Linear)]
    return {
        "env": envs.get_env_attr("spec")[0].id,
        "num_envs": len(envs),
        "num_steps": params.collection_step_num_env_steps // len(envs),
        "num_epochs": params.update_step_num_repetitions,
        "minibatch_size": params.batch_size,
        "normalize": False,
        "learning_rate": group["lr"],
        "gamma": algorithm.gamma,
        "gae_lambda": algorithm.gae_lambda,
        "clip_range": algorithm.eps_clip,
        "ent_coef": algorithm.ent_coef,
        "value_weight": algorithm.vf_coef,
        "max_grad_norm": algorithm.max_grad_norm,
        "hidden_sizes": tuple(layer.out_features for layer in layers),
        "images": False,
    }


def gae(job: Job) -> dict[str, Any]:
    """Returns the microseconds of its compiled function for one rollout's advantages."""
    import numpy as np
    from tianshou.algorithm.algorithm_base import _gae

    s = job.settings
    values, next_values, rewards = np.random.default_rng(0).normal(size=(3, s.rollout_size))
    ends = np.arange(s.rollout_size) % 100 == 99
    return repeated(
        lambda: _gae(values, next_values, rewards, ends, s.gamma, s.gae_lambda), calls=1
    )


def start(job: Job) -> dict[str, Any]:
    """Returns the seconds from the start of the process to the end of the first iteration."""
    algorithm, params = build(replace(job, steps=1), Laps())
    params.epoch_num_steps = job.settings.rollout_size
    algorithm.run_training(params)
    return started(job)


if __name__ == "__main__":
    main(("tianshou",), {"training": training, "gae": gae, "start": start})
