"""Running statistics of observations and returns, kept inside the agent.

They are frozen while a rollout is collected and merged afterwards by Chan's rule in the order of
the environments, so that the result does not depend on who collected which. Dimension key: T steps,
N envs, D columns of an observation.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLIP = 10.0
_EPSILON = 1e-8


class RunningMoments:
    """Count, mean and variance of all rows seen, float64.

    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".

    Args:
        shape: Shape of one row.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0.0
        self.mean = np.zeros(shape)
        self.m2 = np.zeros(shape)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance; 1 before any row was seen."""
        return self.m2 / self.count if self.count else np.ones_like(self.m2)

    def merge(self, count: float, mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        """Adds rows given by their count, mean and summed squared deviations."""
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + np.square(delta) * (self.count * count / total)
        self.count = total

    def merge_block(self, block: NDArray[np.floating]) -> None:
        """Adds a block [T, N, ...], one environment after the other."""
        rows = block.astype(np.float64)
        means = rows.mean(axis=0)
        m2s = np.square(rows - means).sum(axis=0)
        for mean, m2 in zip(means, m2s, strict=True):
            self.merge(len(rows), mean, m2)

    def state(self) -> NDArray[np.float64]:
        """Returns count, mean and m2 as one float64 vector."""
        return np.concatenate([[self.count], self.mean.reshape(-1), self.m2.reshape(-1)])

    def load(self, state: NDArray[np.float64]) -> Self:
        """Sets the moments from what `state` returned."""
        self.count = float(state[0])
        both = np.asarray(state[1:], dtype=np.float64).reshape(2, *self.mean.shape)
        self.mean, self.m2 = both[0].copy(), both[1].copy()
        return self


class ObservationNormalizer(nn.Module):
    """Observations to mean 0 and standard deviation 1 per column, clipped at +-10.

    Columns of one-hot numbers and bits pass unchanged. Before the first merge the mean is 0 and the
    standard deviation 1.

    Args:
        columns: True for the columns that are measurements, bool [D].

    Attributes:
        columns: As given.
        moments: Count, mean and summed squared deviations, float64 [1 + 2 D] whatever the type of
            the parameters.
        mean: What is subtracted, [D].
        inverse_std: What the difference is multiplied by, [D].
        limit: Where the product is clipped, [D].
    """

    moments: Tensor
    mean: Tensor
    inverse_std: Tensor
    limit: Tensor

    def __init__(self, columns: NDArray[np.bool_]) -> None:
        super().__init__()
        size = len(columns)
        self.columns = columns
        self.register_buffer("moments", torch.from_numpy(RunningMoments((size,)).state()))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32), persistent=False)
        self.register_buffer("inverse_std", torch.ones(size, dtype=torch.float32), persistent=False)
        limit = torch.full((size,), torch.inf, dtype=torch.float32)
        limit[torch.from_numpy(columns)] = CLIP
        self.register_buffer("limit", limit, persistent=False)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        moments = self.moments
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.moments = moments.to(self.mean.device)
        return self

    def forward(self, obs: Tensor) -> Tensor:
        """Returns clip((obs - mean) / std, -10, 10), [..., D]."""
        return torch.clamp((obs - self.mean) * self.inverse_std, -self.limit, self.limit)

    def merge_block(self, obs: NDArray[np.floating]) -> None:
        """Adds the raw observations [T, N, D] of a rollout to the statistics."""
        running = self._running()
        running.merge_block(obs)
        self.moments.copy_(torch.from_numpy(running.state()))
        self._refresh(running)

    def merge_moments(self, moments: NDArray[np.float64]) -> None:
        """Adds raw observations of which no more is known than `RunningMoments.state`."""
        running = self._running()
        mean, m2 = moments[1:].reshape(2, -1)
        running.merge(float(moments[0]), mean, m2)
        self.moments.copy_(torch.from_numpy(running.state()))
        self._refresh(running)

    def reload(self) -> None:
        """Takes over the `moments` after a state dict was loaded."""
        self._refresh(self._running())

    def _running(self) -> RunningMoments:
        return RunningMoments(self.columns.shape).load(self.moments.cpu().numpy())

    def _refresh(self, running: RunningMoments) -> None:
        seen = self.columns & (running.count > 0)
        mean = np.where(seen, running.mean, 0.0)
        inverse = np.where(seen, 1.0 / np.sqrt(running.variance + _EPSILON), 1.0)
        self.mean.copy_(torch.from_numpy(mean))
        self.inverse_std.copy_(torch.from_numpy(inverse))


def rewards_to_learn(rewards: Tensor, *, is_clipped: bool) -> Tensor:
    """Returns raw rewards as they are, or their signs (`clip_reward`)."""
    return rewards.sign() if is_clipped else rewards


class RewardScaler:
    """Rewards divided by the standard deviation of the discounted return, clipped at +-10.

    Per env G_t = gamma G_{t-1} (1 - done_{t-1}) + r_t; scaled r_t = clip(r_t / sqrt(Var[G] +
    1e-8)); never centred, because that would change what is optimal. The statistics include the
    rollout that is scaled, so that the very first one is scaled too.

    Args:
        num_envs: Environments whose returns are followed, N.
        gamma: Discount of the return.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self._running = RunningMoments(())
        self._returns = np.zeros(num_envs)

    @property
    def scale(self) -> float:
        """What rewards are divided by."""
        return float(np.sqrt(self._running.variance + _EPSILON))

    def merge_block(self, rewards: NDArray[np.floating], done: NDArray[np.bool_]) -> None:
        """Adds the discounted returns of a rollout's raw rewards [T, N] to the statistics."""
        returns = np.empty(rewards.shape)
        gamma = self.gamma
        # in Python's own numbers: arrays of N are slower for all but hundreds of environments
        for n, carried in enumerate(self._returns.tolist()):
            column = []
            for reward, ends in zip(rewards[:, n].tolist(), done[:, n].tolist(), strict=True):
                carried = gamma * carried + reward
                column.append(carried)
                if ends:
                    carried = 0.0
            returns[:, n] = column
            self._returns[n] = carried
        self._running.merge_block(returns)

    def __call__(self, rewards: Tensor) -> Tensor:
        """Returns the scaled rewards."""
        return torch.clamp(rewards / self.scale, -CLIP, CLIP)

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Returns the statistics and each environment's running return."""
        return {"moments": self._running.state(), "returns": self._returns.copy()}

    def load_state_dict(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Sets what `state_dict` returned."""
        self._running.load(state["moments"])
        self._returns = np.array(state["returns"], dtype=np.float64)
