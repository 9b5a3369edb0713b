"""Actions of N Gymnasium environments in, observations, rewards and endings out; the loop is in C++.

The laws are those of `clipper.envs.vector`, whose loop in Python this one stands beside: between two
calls of `env.step` nothing of Python runs, but at an ending and where an environment returns what
takes more than a copy (nested observations, whole numbers). Dimension key: T steps, N envs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from clipper.action_layout import ActionLayout
from clipper.engine import kernels
from clipper.envs.contract import read_flag, read_reward
from clipper.envs.dropping import Blocks
from clipper.envs.ending import Ending
from clipper.envs.make import EnvSource
from clipper.envs.names import Env
from clipper.envs.replay import in_order
from clipper.envs.vector import VectorEnv
from clipper.leaves import Float32, Rows
from clipper.randomness import EpisodeSeeds

# actions of larger spaces are made step by step
_MOST_CHOICES = 4096
_FLOATS = (np.float32, np.float64)


class GymEnvs(VectorEnv):
    """N environments of one source, stepped one after the other in this process, by the engine.

    Arguments, attributes and errors are those of `VectorEnv`, whose loop steps environments with images
    and those whose lives are counted.
    """

    def __init__(
        self, source: EnvSource, num_envs: int, seeds: EpisodeSeeds, first_env: int = 0
    ) -> None:
        super().__init__(source, num_envs, seeds, first_env)
        # written by the extension
        self._returns: NDArray[np.float64] = np.zeros(num_envs)  # type: ignore[assignment]
        self._lengths: NDArray[np.int64] = np.zeros(num_envs, np.int64)  # type: ignore[assignment]
        # what the loop steps: the environments without their limits
        self._inner: list[Env] = []
        self._limits = np.zeros(num_envs, dtype=np.int64)
        self._loop: Any = None
        # the loop copies float32 rows, and does not look at lives
        if self.obs_layout.has_bytes or source.terminal_on_life_loss:
            return
        obs_type = self._plain_type if self._plain_type in _FLOATS else None
        space = self.action_layout.space
        is_made = self.action_layout.kind == "box" and space.dtype in _FLOATS
        self._loop = kernels.GymLoop(
            obs=self.obs,
            returns=self._returns,
            lengths=self._lengths,
            obs_type=obs_type,
            choices=_choices(self.action_layout),
            scale=self.action_layout.box_scale if is_made else None,
            action_type=space.dtype if is_made else None,
            action_shape=list(space.shape or ()) if is_made else [],
        )

    def collect(
        self,
        act: Callable[[int], None],
        obs: Rows,
        actions: NDArray[Any],
        rewards: Float32,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        until_end: bool = False,
    ) -> list[tuple[int, Ending]]:
        """Acts and steps until blocks are full; as `ReplayableEnvs.collect`."""
        loop = self._loop
        if until_end or loop is None:
            return super().collect(act, obs, actions, rewards, terminated, truncated, until_end)
        self._num_older = len(self._log)
        self._log.append(actions)
        found: list[tuple[int, Ending]] = []
        dropper = self.dropper
        act = self._profiler.timed("act", act)

        def end(t: int, i: int, is_terminated: bool, info: Any) -> None:
            record = self._record(i, not is_terminated, info)
            found.append((t, Ending(i, self.obs[i].copy(), record)))
            self._begin(i)
            self._check_first(i)
            self._inner[i], self._limits[i] = within_limit(self.envs[i])

        def drop(t: int, i: int, reward: float) -> None:
            assert dropper is not None
            blocks = Blocks(obs, actions, rewards, terminated, truncated)
            found.extend(dropper.play_again(t, i, reward, act, blocks))
            self._inner[i], self._limits[i] = within_limit(self.envs[i])

        opened = [within_limit(env) for env in self.envs]
        self._inner = [env for env, _ in opened]
        self._limits[:] = [limit for _, limit in opened]
        try:
            loop.collect(
                act,
                self._inner,
                self._limits,
                self.action_layout.to_env,
                self._read,
                end,
                obs,
                actions,
                rewards,
                terminated,
                truncated,
                self.position,
                None if dropper is None else drop,
            )
        except (Exception, SystemExit) as error:
            i = loop.stepping
            if i < 0:
                raise
            raise self._fault(i, "step", error) from error
        finally:
            for env, limit, length in zip(self.envs, self._limits, self._lengths, strict=True):
                if limit:
                    # what was counted here is what the wrapper would have counted
                    env._elapsed_steps = int(length)  # type: ignore[attr-defined]
        return found if dropper is None else in_order(found)

    def _read(self, i: int, found: Any) -> tuple[float, bool, bool, Any]:
        """Returns what a step gave besides the observation, which goes into the environment's row."""
        obs, reward, is_terminated, is_truncated, info = found
        reward = read_reward(reward)
        is_terminated = read_flag(is_terminated, "terminated")
        is_truncated = read_flag(is_truncated, "truncated")
        self.obs_layout.write(obs, self._rows[i])
        return reward, is_terminated, is_truncated, info


def within_limit(env: Env) -> tuple[Env, int]:
    """Returns the environment to step, and after how many steps to truncate: 0 if it does itself.

    A time limit around it all is counted in the loop: its wrapper costs a tenth of a CartPole's step.
    """
    if type(env) is TimeLimit and "step" not in vars(env):
        return env.env, env._max_episode_steps
    return env, 0


def _choices(layout: ActionLayout) -> list[Any] | None:
    """Returns the action of every index of a Discrete space, objects that cannot be changed."""
    if layout.kind != "discrete" or layout.num_categories[0] > _MOST_CHOICES:
        return None
    return layout.to_env(np.arange(layout.num_categories[0])[:, None])
