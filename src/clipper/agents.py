"""The algorithms by name: one class each, all of them `Agent`."""

from __future__ import annotations

from collections.abc import Mapping

from clipper.agent import Agent


class PPO(Agent):
    """Proximal Policy Optimization, Schulman et al. 2017, arXiv 1707.06347."""


class A2C(Agent):
    """Advantage actor-critic, Mnih et al. 2016, arXiv 1602.01783, with synchronous environments."""

    algorithm = "a2c"


class ACER(Agent):
    """Actor-critic with experience replay, Wang et al. 2016, arXiv 1611.01224; Discrete actions."""

    algorithm = "acer"


class VPG(Agent):
    """Vanilla policy gradient, Sutton et al. 2000; with `one_episode` REINFORCE, Williams 1992."""

    algorithm = "vpg"


class TRPO(Agent):
    """Trust Region Policy Optimization, Schulman et al. 2015, arXiv 1502.05477."""

    algorithm = "trpo"


class CEM(Agent):
    """The cross-entropy method, Szita and Lorincz 2006: a search that follows no gradient."""

    algorithm = "cem"


AGENTS: Mapping[str, type[Agent]] = {
    agent.algorithm: agent for agent in (PPO, A2C, ACER, VPG, TRPO, CEM)
}
"""What a user holds of every algorithm, by its name."""
