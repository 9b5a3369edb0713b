"""An agent's parts in, lines that say what it does and what looks wrong out."""

from __future__ import annotations

from clipper.config import ActorCriticConfig, Config
from clipper.identity import Identity
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.images import ImageNetwork, describe_convolutions
from clipper.policies.networks import mlp_shape
from clipper.presets import GENERIC, PRESETS, preset_of_other_version
from clipper.spaces import describe_space

# a discount whose horizon is so many times longer or shorter than an episode is remarked upon
_FAR_OFF = 25


def transforms_of(policy: ActorCritic, config: Config) -> list[str]:
    """Returns lines that name the spaces and every transform of what passes."""
    lines = [
        f"observations: {describe_space(policy.obs_layout.space)}",
        f"actions: {describe_space(policy.action_layout.space)}",
        *policy.obs_layout.describe(),
        *policy.action_layout.describe(),
    ]
    if isinstance(policy.network, ImageNetwork):
        lines += describe_convolutions(policy.obs_layout, mlp_shape(config))
    if policy.normalizer is not None:
        what = "observations but images" if policy.obs_layout.images else "observations"
        lines.append(f"{what}: normalised by running mean and deviation, clipped at 10")
    if isinstance(config, ActorCriticConfig) and config.normalize_reward:
        lines.append("rewards: divided by the deviation of the discounted return, clipped at 10")
    if isinstance(config, ActorCriticConfig) and config.clip_reward:
        lines.append("rewards: learnt from by their sign; returns shown are raw")
    if isinstance(config, ActorCriticConfig) and config.terminal_on_life_loss:
        lines.append(
            "lives: learnt from as if a lost one ended the episode; returns are of whole games"
        )
    return lines


def _is_tuned(identity: Identity, gamma: float) -> bool:
    """Returns True if a discount is that of a preset for this very task."""
    preset = PRESETS.get(identity.preset)
    config = None if preset is None else preset.config()
    return isinstance(config, ActorCriticConfig) and config.gamma == gamma


def warnings_of(identity: Identity, episode_limit: int | None) -> list[str]:
    """Returns what looks wrong before training: a discount or a preset that does not fit."""
    found, config = [], identity.config
    tuned = preset_of_other_version(str(identity.env["name"]), identity.algorithm)
    if identity.preset in GENERIC and tuned is not None:
        found.append(f"the settings are generic; --preset {tuned} takes those tuned for {tuned}")
    if episode_limit is None:
        if config.evaluation_interval:
            found.append(
                "episodes have no limit: periodic evaluations cut them after "
                f"{max(1, config.evaluation_interval // config.eval_episodes):,} steps; "
                "--max-episode-steps sets one"
            )
        return found
    if not isinstance(config, ActorCriticConfig):
        return found
    if _is_tuned(identity, config.gamma):
        return found
    horizon = 1.0 / (1.0 - config.gamma) if config.gamma < 1 else float("inf")
    if not 1 / _FAR_OFF <= horizon / episode_limit <= _FAR_OFF:
        found.append(
            f"gamma {config.gamma:g} looks about {horizon:,.0f} steps ahead, "
            f"but episodes last up to {episode_limit:,}"
        )
    return found
