"""Settings for observations with images, as data; `clipper.presets` makes them presets.

Sources as there; [M] is Mnih et al. 2015, the convolutions. A row is a name,
settings, a source, and of generic ones an algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipper.presets_a2c_acer import Row

ATARI = "ALE/*"
"""What a preset for every Atari game is called; after the algorithm's name for all but PPO."""

# one torso, as all libraries have it for images
_ALONE: dict[str, Any] = {"hidden_sizes": (), "activation": "relu", "shared_torso": True}
# what is not seen must meet what is seen before it decides
_BESIDE: dict[str, Any] = {"hidden_sizes": (64, 64), "shared_torso": True}
_CONTINUOUS: dict[str, Any] = {"ent_coef": 0.0, "normalize_reward": True}
_GENERIC: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "ppo": (
        {
            "num_steps": 128,
            "num_epochs": 4,
            "minibatch_size": 256,
            "learning_rate": "linear:2.5e-4:0",
            "clip_range": "linear:0.1:0",
            # a loss of the value function on any scale would drown the policy's in a shared torso
            "normalize_reward": True,
        },
        "[Z] atari, rewards scaled",
    ),
    "a2c": ({}, "[37]"),
    "acer": ({}, "[37]"),
}
GENERIC_IMAGES: tuple[tuple[str, Mapping[str, Any], str, str], ...] = tuple(
    (
        f"generic/{what}-{kind}",
        {**torso, **settings, **(_CONTINUOUS if kind == "continuous" else {})},
        source,
        algorithm,
    )
    for algorithm, (settings, source) in _GENERIC.items()
    for what, torso in (("images", _ALONE), ("images-and-numbers", _BESIDE))
    for kind in ("discrete", "continuous")
    if algorithm != "acer" or kind == "discrete"
)
"""Name, settings, source and algorithm of every generic preset for images."""

_ATARI: dict[str, Any] = {
    **_ALONE,
    "total_timesteps": 10_000_000,
    "normalize_reward": False,
    "clip_reward": True,
    "terminal_on_life_loss": True,
}
ATARI_PPO: Row = (
    ATARI,
    {
        **_ATARI,
        "num_envs": 8,
        "num_steps": 128,
        "num_epochs": 3,
        "minibatch_size": 256,
        "learning_rate": "linear:2.5e-4:0",
        "clip_range": "linear:0.1:0",
        "gamma": 0.99,
        "gae_lambda": 0.95,
        # the paper's c1 = 1 weighs (V - target)^2 without the half
        "vf_coef": 2.0,
        "ent_coef": 0.01,
    },
    "[P] table 5, network [M]",
)
ATARI_A2C: Row = (
    ATARI,
    {**_ATARI, "num_envs": 16, "num_steps": 5, "ent_coef": 0.01, "vf_coef": 0.5},
    "[Z], network [M]",
)
ATARI_ACER: Row = (
    ATARI,
    # 50,000 steps of 16 environments, as Wang et al. 2016 have it, would take 45 GB
    {**_ATARI, "num_envs": 16, "num_steps": 20, "ent_coef": 0.001, "replay_capacity": 1_000},
    "Wang et al. 2016 with a smaller memory, network [M]",
)
