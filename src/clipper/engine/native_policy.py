"""An MLP policy that acts and judges in C++, to the same numbers as torch but sooner.

The kernels work in place on the flat float32 tensor of which the policy's parameters are views, so
that state dicts, files and evaluation see one truth. A row of a batch is computed independently of
the rows beside it: what a policy does in an environment does not depend on how many there are.
Dimension key: T steps, N envs, D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.engine import kernels
from clipper.engine.kernels import as_array, choose_variant, head_kind
from clipper.engine.state import AdamState
from clipper.policies.accelerator import Play
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.distributions import Bernoulli, Categorical, DiagonalGaussian
from clipper.policies.networks import ACTIVATIONS, MLPNetwork
from clipper.randomness import Purpose

_ACTIVATION_NAMES = tuple(ACTIVATIONS)


def covers(policy: ActorCritic) -> str | None:
    """Returns why the native engine cannot train a policy, in words, or None if it can."""
    if kernels.ABSENCE is not None:
        return kernels.ABSENCE
    if policy.obs_layout.images:
        return "observations are images"
    if type(policy.network) is not MLPNetwork:
        return "the network is a module of the user's"
    if policy.device.type != "cpu":
        return f"the device is {policy.device}"
    if policy.dtype != torch.float32:
        return f"the parameters are {str(policy.dtype).removeprefix('torch.')}"
    if any(not p.requires_grad for p in policy.network.parameters()):
        return "some layers are frozen"
    if isinstance(policy.distribution, DiagonalGaussian) and policy.log_std is None:
        return "the standard deviations depend on the state"
    distributions = (Categorical, Bernoulli, DiagonalGaussian)
    if type(policy.distribution) not in distributions:
        return f"the distribution is {type(policy.distribution).__name__}"
    return None


class NativePolicy:
    """Acts and evaluates an MLP policy in C++.

    Args:
        policy: A policy that `covers` has no objection to; its parameters become views of one flat
            tensor, and its `act`, `evaluate` and `values` come here.
    """

    def __init__(self, policy: ActorCritic) -> None:
        self.variant = choose_variant()
        self._state = AdamState(policy)
        self._normal = policy.distribution.noise == "normal"
        self._noise_size = policy.distribution.noise_size
        self._action_size = policy.action_layout.size
        self._action_type = policy.action_layout.dtype
        self._normalizer = policy.normalizer
        self._policy = self._describe(policy)
        torso = getattr(policy.network, "torso", None)
        self._has_own_values = isinstance(torso, nn.Identity)
        policy.accelerate(self)

    def _describe(self, policy: ActorCritic) -> kernels.compiled.Policy:
        network = policy.network
        assert isinstance(network, MLPNetwork)
        flat = self._state.params

        def place(tensor: Tensor) -> int:
            return (tensor.data_ptr() - flat.data_ptr()) // flat.element_size()

        def chain(part: nn.Module) -> list[kernels.compiled.Layer]:
            return kernels.chain(part.children(), place)

        log_std, normalizer = policy.log_std, policy.normalizer
        return kernels.compiled.Policy(
            self.variant,
            flat.numpy(),
            policy.obs_layout.size,
            _ACTIVATION_NAMES.index(network.activation),
            (chain(network.torso), chain(network.actor), chain(network.critic)),
            head_kind(policy),
            list(policy.action_layout.num_categories or (policy.action_layout.size,)),
            None if log_std is None else log_std.detach().numpy(),
            place(log_std) if log_std is not None and log_std.requires_grad else -1,
            None
            if normalizer is None
            else (
                normalizer.mean.numpy(),
                normalizer.inverse_std.numpy(),
                normalizer.limit.numpy(),
            ),
        )

    @property
    def has_own_values(self) -> bool:
        """True if V shares no layer with the policy."""
        return self._has_own_values

    def act(self, obs: NDArray[np.float32], noise: Tensor | None) -> NDArray[np.generic]:
        """Returns an action for every row of raw observations; as `ActorCritic.act`."""
        actions = np.empty((len(obs), self._action_size), dtype=self._action_type)
        drawn = None if noise is None else np.ascontiguousarray(noise.numpy(), dtype=np.float32)
        self._policy.act(np.ascontiguousarray(obs), drawn, actions)
        return actions

    def play(
        self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None, actions: NDArray[Any]
    ) -> Play:
        """Returns what acts on blocks step by step; as `ActorCritic.play`."""
        log_probs, values = np.empty((2, *obs.shape[:2]), dtype=np.float32)
        act = kernels.compiled.Stepper(self._policy, obs, noise, actions, log_probs, values)

        def judgement(num_rows: int) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(log_probs[:num_rows]), torch.from_numpy(values[:num_rows])

        return Play(act, judgement)

    def noise(
        self,
        seed: int,
        purpose: Purpose,
        first_step: int,
        num_steps: int,
        num_envs: int,
        first_env: int = 0,
    ) -> NDArray[np.float32]:
        """Returns the noise of actions, [T, N, noise_size]: the numbers of `randomness`."""
        block = np.empty((num_steps, num_envs, self._noise_size), dtype=np.float32)
        kernels.compiled.noise(seed, purpose, first_step, self._normal, block, first_env)
        return block

    def evaluate(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities and values; as `ActorCritic.evaluate`."""
        values = torch.empty(obs.shape[:-1], dtype=torch.float32)
        log_probs = torch.empty_like(values)
        self._policy.evaluate(
            as_array(obs), as_array(actions, self._action_type), log_probs.numpy(), values.numpy()
        )
        return log_probs, values

    def values(self, obs: Tensor) -> Tensor:
        """Returns V of raw observations; as `ActorCritic.values`."""
        values = torch.empty(obs.shape[:-1], dtype=torch.float32)
        self._policy.evaluate(as_array(obs), None, None, values.numpy())
        return values

    def next_values(
        self, values: Tensor, final_obs: Tensor, final_at: Tensor, last_obs: Tensor
    ) -> Tensor:
        """Returns V of the observation each step truly ended in; as `ActorCritic.next_values`."""
        found = np.empty(values.shape, dtype=np.float32)
        self._policy.next_values(
            as_array(values),
            as_array(final_obs),
            as_array(final_at, np.int64),
            as_array(last_obs),
            found,
        )
        return torch.from_numpy(found)

    def merge_observations(self, obs: Tensor) -> None:
        """Adds a rollout's raw observations to the normaliser's statistics, to the same bits."""
        normalizer = self._normalizer
        assert normalizer is not None
        if obs.numel() == len(obs):  # one column, which numpy sums in another order
            normalizer.merge_block(obs.numpy())
            return
        kernels.compiled.merge_observations(
            as_array(obs),
            normalizer.moments.numpy(),
            normalizer.columns,
            normalizer.mean.numpy(),
            normalizer.inverse_std.numpy(),
        )

    def are_finite(self, blocks: Sequence[Tensor]) -> bool:
        """Returns True if no number in the blocks is NaN or infinite."""
        return kernels.compiled.are_finite([as_array(block) for block in blocks])

    def is_finite(self) -> bool:
        """Returns True if no number that is learnt is NaN or infinite; as `ActorCritic.is_finite`."""
        normalizer = self._normalizer
        return kernels.compiled.are_finite([self._state.params.numpy()]) and (
            normalizer is None or bool(np.isfinite(normalizer.moments.numpy()).all())
        )

    def first_outside(
        self, obs: Tensor, low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> int | None:
        """Returns where a block is outside its bounds first; as `ActorCritic.first_outside`."""
        at = kernels.compiled.first_outside(as_array(obs), low, high)
        return at if at >= 0 else None
