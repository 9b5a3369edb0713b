"""What an agent does that teaches it nothing: act, be examined, be filmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipper.agent_view import AgentView
from clipper.engine.devices import one_thread_if_small
from clipper.errors import ConfigError
from clipper.evaluation import Evaluation
from clipper.exam import MAX_ENVS
from clipper.filming import film
from clipper.identity import check_seed
from clipper.randomness import Purpose, normal, uniform
from clipper.setting_values import read_value


def _count(name: str, value: Any) -> int:
    """Returns a whole number from 1 on, 10.0 among them."""
    found: int = read_value(name, int, value)
    if found < 1:
        raise ConfigError(f"{name} must be at least 1, but is {value}.")
    return found


class PlayingAgent(AgentView):
    """An agent at play: the methods that leave its weights as they are."""

    _num_acts: int

    def evaluate(
        self,
        episodes: int = 100,
        *,
        seed: int = 0,
        deterministic: bool = True,
        num_envs: int = MAX_ENVS,
    ) -> Evaluation:
        """Returns mean, standard deviation and 95 % interval of the return of fresh episodes.

        Args:
            episodes: How many to play.
            seed: The evaluation's own seed; the same seed plays the same episodes.
            deterministic: Take the most likely action, or sample as in training.
            num_envs: Environments stepped side by side, at most 16; 1 for those of which a process
                can hold but one. It changes no result.

        Raises:
            ConfigError: A number is out of its range, or an environment that was given as an instance
                is being trained in.
            EnvironmentFault: An environment raised.
            NumericsError: A reward or an observation is not finite.
        """
        episodes, num_envs = _count("episodes", episodes), _count("num_envs", num_envs)
        seed = check_seed(seed)
        if not 1 <= num_envs <= MAX_ENVS:
            raise ConfigError(f"num_envs must be from 1 to {MAX_ENVS}, but is {num_envs}.")
        source = self._playground.source
        if source.instance is not None:
            self._run.check_idle(
                "evaluate with an instance as env",
                hint="give the agent a callable that makes environments: lambda: MyEnv().",
            )
            # the examination plays on the training environment: it is brought back afterwards
            self._playground.put_away()
        self.policy.hold()
        with one_thread_if_small(self.policy):
            return self._playground.examined(
                self.policy,
                episodes=episodes,
                seed=seed,
                deterministic=deterministic,
                num_envs=num_envs,
            )

    def record(
        self,
        path: str | Path,
        *,
        episodes: int = 1,
        seed: int = 0,
        deterministic: bool = True,
    ) -> list[float]:
        """Writes a GIF or MP4 of fresh episodes and returns their returns.

        Args:
            path: Ends in `.gif` or `.mp4`.
            episodes: How many to play.
            seed: The evaluation's seed; the same episodes as `evaluate` with it.
            deterministic: Take the most likely action, or sample.

        Raises:
            ConfigError: The suffix is another one.
            EnvironmentFault: The environment does not render arrays.
            FileError: The file cannot be written.
        """
        source = self._playground.source
        if source.instance is not None:
            raise ConfigError(
                "record needs an environment that it can make with render_mode='rgb_array', "
                "but env is an instance.",
                hint="create the agent with a callable: PPO(lambda render_mode=None: MyEnv(...)).",
            )
        self.policy.hold()
        with one_thread_if_small(self.policy):
            return film(
                self.policy,
                source,
                path,
                episodes=episodes,
                seed=seed,
                deterministic=deterministic,
            )

    def act(self, obs: Any, *, deterministic: bool = True) -> Any:
        """Returns the action for one observation, or a list or array of actions for a batch.

        Args:
            obs: As the environment gives it, or with a leading batch axis on every part.
            deterministic: Take the most likely action, or sample.

        Returns:
            What `env.step` takes; for a batch an array with a leading axis.

        Raises:
            SpaceError: The observation does not fit the space.
        """
        layout = self.policy.obs_layout
        rows = layout.rows(obs)
        noise = None
        if not deterministic:
            draw = normal if self.policy.distribution.noise == "normal" else uniform
            size = self.policy.distribution.noise_size
            index = np.arange(len(rows))
            noise = torch.from_numpy(
                draw(self.seed, Purpose.USER_ACTION, index, self._num_acts, size)
            )
            self._num_acts += 1
        self.policy.hold(at_once=True)
        with one_thread_if_small(self.policy):
            actions = self.policy.act(rows, noise)
        made = self.policy.action_layout.to_env(actions)
        if not layout.is_single(obs):
            space = self.policy.action_layout.space
            return np.array(made, dtype=space.dtype).reshape(len(rows), *(space.shape or ()))
        return int(made[0]) if self.policy.action_layout.kind == "discrete" else made[0]
