"""What other libraries call a setting, and what a name that does not exist may have meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clipper.errors import nearest

FOREIGN_NAMES = {
    "n_envs": "num_envs",
    "num_processes": "num_envs",
    "num_workers": "num_envs",
    "n_steps": "num_steps",
    "horizon": "num_steps",
    "unroll_length": "num_steps",
    "rollout_length": "num_steps",
    "steps_per_epoch": "num_steps",
    "n_epochs": "num_epochs",
    "update_epochs": "num_epochs",
    "ppo_epoch": "num_epochs",
    "ppo_epochs": "num_epochs",
    "batch_size": "minibatch_size",
    "mini_batch_size": "minibatch_size",
    "num_minibatches": "minibatch_size",
    "num_mini_batch": "minibatch_size",
    "lr": "learning_rate",
    "pi_lr": "learning_rate",
    "clip_coef": "clip_range",
    "clip_param": "clip_range",
    "clip_ratio": "clip_range",
    "clip_epsilon": "clip_range",
    "eps_clip": "clip_range",
    "clip_range_vf": "clip_value",
    "entropy_coef": "ent_coef",
    "entropy_coeff": "ent_coef",
    "value_loss_coef": "vf_coef",
    "value_coef": "vf_coef",
    "vf_loss_coeff": "vf_coef",
    "lam": "gae_lambda",
    "lambda_": "gae_lambda",
    "tau": "gae_lambda",
    "discount": "gamma",
    "discount_factor": "gamma",
    "max_grad": "max_grad_norm",
    "kl_target": "adaptive_kl_target",
    "kl_targ": "adaptive_kl_target",
    "d_targ": "adaptive_kl_target",
    "dtarg": "adaptive_kl_target",
    "kl_coeff": "kl_coef",
    "init_kl_coef": "kl_coef",
    "initial_adaptive_kl_beta": "kl_coef",
    "advantage_estimator": "advantage",
    "adv_estimator": "advantage",
    "norm_adv": "normalize_advantage",
    "n_timesteps": "total_timesteps",
    "num_env_steps": "total_timesteps",
    "num_timesteps": "total_timesteps",
    "timesteps": "total_timesteps",
    "net_arch": "hidden_sizes",
    "hid": "hidden_sizes",
    "activation_fn": "activation",
    "n_eval_episodes": "eval_episodes",
    "eval_freq": "eval_every",
    "num_steps_per_env": "num_steps",
    "num_mini_batches": "minibatch_size",
    "clip_vloss": "clip_value",
    "desired_kl": "target_kl",
    "kl_threshold": "target_kl",
    "eps": "adam_eps",
    "anneal_lr": "learning_rate",
    "use_linear_lr_decay": "learning_rate",
}
"""Names of other libraries, and ours; used in hints alone."""


# what is no setting of Clipper's, and where it is found
_ELSEWHERE = {
    "policy_kwargs": "the network is given by hidden_sizes and activation, or as module=...",
    "verbose": "train(progress=False) is silent; the logger `clipper` has the warnings",
    "tensorboard_log": "--tensorboard on the command line; train(callback=TensorBoardWriter(folder)) of "
    "clipper.tensorboard in Python",
    "wrapper_class": "wrappers=[...]",
    "render_mode": "agent.record(path) films episodes; env_kwargs are those of the environment",
    "callback": "it is an argument of train",
}


def name_hint(name: str, known: Iterable[str], style: Callable[[str], str] = str) -> str | None:
    """Returns what a setting that does not exist may have meant, or None.

    Args:
        name: What was given, with underscores.
        known: Names there are.
        style: How a name is written, for example as a flag.
    """
    names = set(known)
    ours = FOREIGN_NAMES.get(name)
    if ours in names:
        return f"Clipper calls it {style(ours)}; docs/coming-from.md has the conversions."
    if name in _ELSEWHERE:
        return f"{_ELSEWHERE[name]}."
    if name == "policy":
        return "the network follows from the environment's spaces, or is given as module=..."
    return nearest(style(name), [style(k) for k in names])
