"""Measures rejax: environments of gymnax and training compiled into one function by JAX."""

from __future__ import annotations

import time
from typing import Any

from runner import Job, compare, main, repeated


def build(job: Job) -> Any:
    """Returns the algorithm with the row's settings, and without its evaluations.

    rejax clips gradients element by element, always clips values, and leaves Adam's epsilon at
    1e-8: other mathematics, but not less work.
    """
    from rejax import PPO

    s = job.settings
    algorithm = PPO.create(
        env=s.env,
        total_timesteps=job.total_steps,
        eval_freq=job.total_steps,
        skip_initial_evaluation=True,
        num_envs=s.num_envs,
        num_steps=s.num_steps,
        num_epochs=s.num_epochs,
        num_minibatches=s.rollout_size // s.minibatch_size,
        learning_rate=s.learning_rate,
        gamma=s.gamma,
        gae_lambda=s.gae_lambda,
        clip_eps=s.clip_range,
        ent_coef=s.ent_coef,
        # its value loss is 0.5 (V - target)^2
        vf_coef=2 * s.value_weight,
        max_grad_norm=s.max_grad_norm,
        normalize_observations=s.normalize,
        normalize_rewards=s.normalize,
        agent_kwargs={"hidden_layer_sizes": s.hidden_sizes, "activation": "tanh"},
    )
    compare(s, _settings(algorithm))
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def _settings(algorithm: Any) -> dict[str, Any]:
    assert algorithm.normalize_observations == algorithm.normalize_rewards
    assert algorithm.actor.hidden_layer_sizes == algorithm.critic.hidden_layer_sizes
    return {
        "env": algorithm.env.name,
        "num_envs": algorithm.num_envs,
        "num_steps": algorithm.num_steps,
        "num_epochs": algorithm.num_epochs,
        "minibatch_size": algorithm.minibatch_size,
        "normalize": algorithm.normalize_observations,
        "learning_rate": algorithm.learning_rate,
        "gamma": algorithm.gamma,
        "gae_lambda": algorithm.gae_lambda,
        "clip_range": algorithm.clip_eps,
        "ent_coef": algorithm.ent_coef,
        "value_weight": algorithm.vf_coef / 2,
        "max_grad_norm": algorithm.max_grad_norm,
        "hidden_sizes": tuple(algorithm.actor.hidden_layer_sizes),
        "images": False,
    }


def training(job: Job) -> dict[str, Any]:
    """Returns the speed of a run whose compilation is not counted."""
    import jax

    algorithm = build(job)
    key = jax.random.PRNGKey(0)
    began = time.perf_counter()
    train = jax.jit(algorithm.train).lower(key).compile()
    compiled = time.perf_counter()
    cpu = time.process_time()
    state, _ = jax.block_until_ready(train(key))
    seconds = time.perf_counter() - compiled
    parts = (state.actor_ts, state.critic_ts)
    (updates,) = {int(part.step) for part in parts}
    steps = int(state.global_step)
    assert steps == job.total_steps, f"{steps} steps, not {job.total_steps}"
    assert updates == job.settings.updates(steps), f"{updates} updates"
    return {
        "value": steps / seconds,
        "with_first_iteration": steps / (seconds + compiled - began),
        "core_share": (time.process_time() - cpu) / seconds,
        "steps": steps,
        "updates": updates,
        "parameters": sum(leaf.size for part in parts for leaf in jax.tree.leaves(part.params)),
    }


def update(job: Job) -> dict[str, Any]:
    """Returns the microseconds of one update, in a compiled loop over epochs and minibatches."""
    import jax
    from rejax.algos.ppo import AdvantageMinibatch

    algorithm = build(job)
    state, trajectories = jax.jit(algorithm.collect_trajectories)(
        algorithm.init_state(jax.random.PRNGKey(0))
    )
    last_values = algorithm.critic.apply(state.critic_ts.params, state.last_obs)
    batch = AdvantageMinibatch(trajectories, *algorithm.calculate_gae(trajectories, last_values))

    def epoch(state: Any, key: Any) -> tuple[Any, None]:
        minibatches = algorithm.shuffle_and_split(batch, key)
        return jax.lax.scan(lambda s, m: (algorithm.update(s, m), None), state, minibatches)[
            0
        ], None

    @jax.jit
    def improved(state: Any) -> Any:
        keys = jax.random.split(state.rng, job.settings.num_epochs)
        return jax.lax.scan(epoch, state, keys)[0]

    return repeated(
        lambda: jax.block_until_ready(improved(state)), job.settings.updates_per_rollout
    )


if __name__ == "__main__":
    main(("rejax", "gymnax"), {"training": training, "update": update})
