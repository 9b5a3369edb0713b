"""Raw observations in, actions, log-probabilities and values out: network, distribution, normaliser.

Dimension key: M rows, D observation size, P distribution parameters, A action size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.action_layout import ActionLayout
from clipper.leaves import Rows
from clipper.policies.accelerator import Play
from clipper.policies.distributions import DiagonalGaussian, distribution_for
from clipper.policies.images import FEW_ROWS, ImageNetwork, module_inputs, numbers_of, vector_of
from clipper.policies.network_check import checked_width
from clipper.policies.networks import MLPNetwork
from clipper.policies.normalize import ObservationNormalizer
from clipper.policies.resident import Resident
from clipper.randomness import Purpose, normal, uniform
from clipper.spaces import ObservationLayout

# what the network is asked about at once where nothing is learnt from it
_ROWS_AT_ONCE = 65_536
_IMAGES_AT_ONCE = 256


class ActorCritic(Resident):
    """A stochastic policy and its value function, with the observation normaliser inside.

    Args:
        obs_layout: How observations lie in a row.
        action_layout: How actions are sampled.
        network: `forward(obs [M, D]) -> (params [M, P], values [M])`; of a module of the user's obs is
            what `module_inputs` makes of rows with images.
        log_std_init: Initial log standard deviation of continuous actions.
        normalize_obs: Keep running statistics of Box observations.
        values_per_action: The network's values are Q(s, a) of every action, [M, P], and V is their
            mean under the policy.

    Raises:
        ConfigError: The network does not put out what the action space needs.
    """

    def __init__(
        self,
        obs_layout: ObservationLayout,
        action_layout: ActionLayout,
        network: nn.Module,
        *,
        log_std_init: float,
        normalize_obs: bool,
        values_per_action: bool = False,
    ) -> None:
        super().__init__()
        self.obs_layout = obs_layout
        self.action_layout = action_layout
        self.distribution = distribution_for(action_layout)
        self.network = network
        self.values_per_action = values_per_action
        own_kinds = (MLPNetwork, ImageNetwork)
        self._takes_rows = not obs_layout.images or isinstance(network, own_kinds)
        # images are costly and their values a by-product of acting, unless they have convolutions of
        # their own; bfloat16 rounds other numbers of rows too differently
        has_own_values = isinstance(network, ImageNetwork) and network.value_encoder is not None
        self._judges_in_passing = bool(
            obs_layout.images and not values_per_action and not has_own_values
        )
        self._rows_at_once = _IMAGES_AT_ONCE if obs_layout.images else _ROWS_AT_ONCE
        num_outputs = checked_width(
            network, obs_layout, self.distribution, self._takes_rows, values_per_action
        )
        self.log_std: nn.Parameter | None = None
        if isinstance(self.distribution, DiagonalGaussian) and num_outputs == action_layout.size:
            log_stds = torch.full((action_layout.size,), log_std_init, dtype=torch.float32)
            self.log_std = nn.Parameter(log_stds)
        columns = obs_layout.box_columns
        self.normalizer: ObservationNormalizer | None = None
        if normalize_obs and columns.any():
            self.normalizer = ObservationNormalizer(columns)
        self._params_alone = getattr(network, "params", None)
        self._values_alone = network.values if isinstance(network, own_kinds) else None
        self._has_bf16_products = False
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_pre_hook(_channels_last)
        self.settle(network)

    @property
    def kind(self) -> str:
        """What files call a network of ours: `mlp`, or `cnn` for observations with images."""
        return "cnn" if self.obs_layout.images else "mlp"

    @property
    def is_bf16(self) -> bool:
        """True if the network computes in bfloat16, or holds its parameters in it."""
        return self._has_bf16_products or self.dtype == torch.bfloat16

    def use_precision(self, precision: str) -> Self:
        """Makes the network's products bfloat16 (`bf16`) or leaves them as its parameters are.

        The parameters stay float32, and so does all that is done with the network's outputs.
        """
        self._has_bf16_products = precision == "bf16"
        return self

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Computes in the parameters' own type meanwhile."""
        before, self._has_bf16_products = self._has_bf16_products, False
        try:
            yield
        finally:
            self._has_bf16_products = before

    def normalize(self, obs: Tensor) -> Tensor:
        """Returns observations as the network sees them, [..., D], on the policy's device.

        Images stay as they are: bytes where they are kept as bytes.
        """
        if not self.obs_layout.images:
            obs = obs.to(self.device, self.dtype)
            return obs if self.normalizer is None else self.normalizer(obs)
        obs = obs.to(self.device)
        if self.normalizer is None:
            return obs
        obs = obs.clone()
        vector = vector_of(self.obs_layout, obs)
        vector.copy_(self.normalizer(vector))
        return obs

    def numbers(self, obs: Tensor) -> Tensor:
        """Returns the float32 numbers of observations [..., D], a view [..., V]."""
        return numbers_of(self.obs_layout, obs)

    def _seen(self, normalized_obs: Tensor) -> Any:
        """Returns what the network takes for normalised observations."""
        if self._takes_rows:
            return normalized_obs
        return module_inputs(self.obs_layout, normalized_obs, self.dtype)

    def forward(self, normalized_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns distribution parameters [M, P] and values [M] of normalised observations."""
        with self._products():
            params, values = self.network(self._seen(normalized_obs))
        params, values = params.to(self.dtype), values.to(self.dtype)
        if self.values_per_action:
            # V(s) = sum_a pi(a|s) Q(s, a)
            values = (torch.softmax(params, -1) * values).sum(-1)
        return self._complete(params), values.reshape(len(normalized_obs))

    def outputs(self, normalized_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the network alone puts out: [M, P], without learned deviations, and [M]."""
        with self._products():
            params, values = self.network(self._seen(normalized_obs))
        values = values.to(self.dtype)
        if values.dim() != 1:  # a view costs two operations
            values = values.reshape(len(normalized_obs))
        return params.to(self.dtype), values

    def action_values(self, normalized_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns distribution parameters and Q(s, a) of every action, [M, P] each."""
        with self._products():
            params, values = self.network(self._seen(normalized_obs))
        return params.to(self.dtype), values.to(self.dtype).reshape(params.shape)

    def distribution_params(self, normalized_obs: Tensor) -> Tensor:
        """Returns the distribution parameters alone, [M, P], of normalised observations [M, D]."""
        if self._params_alone is None:
            return self(normalized_obs)[0]  # type: ignore[no-any-return]
        with self._products():
            params = self._params_alone(self._seen(normalized_obs))
        return self._complete(params.to(self.dtype))

    def normalized_values(self, normalized_obs: Tensor) -> Tensor:
        """Returns values alone, [M], of normalised observations [M, D]."""
        if self._values_alone is None:
            return self(normalized_obs)[1]  # type: ignore[no-any-return]
        with self._products():
            values = self._values_alone(normalized_obs)
        return values.to(self.dtype)

    def _products(self) -> AbstractContextManager[Any]:
        if not self._has_bf16_products:
            return self._within  # entering autocast to turn it off takes 10 us
        return torch.autocast(self.device.type, torch.bfloat16)

    def _complete(self, params: Tensor) -> Tensor:
        if self.log_std is None:
            return params
        return torch.cat([params, self.log_std.expand_as(params)], -1)

    @torch.no_grad()
    def act(self, obs: Rows, noise: Tensor | None) -> NDArray[np.generic]:
        """Returns an action for every row of raw observations.

        Args:
            obs: Raw observations, [M, D].
            noise: What `distribution.sample` takes, [M, noise_size]; None for the most likely.

        Returns:
            Sampled actions before any scaling or clipping, float32 or int64 [M, A].
        """
        if self._accelerator is not None:
            return self._accelerator.act(obs, noise)
        normalized = self.normalize(torch.from_numpy(obs))
        params = self.distribution_params(normalized)
        if noise is None:
            actions = self.distribution.mode(params)
        else:
            actions = self.distribution.sample(params, noise.to(params.device, params.dtype))
        return actions.cpu().numpy()

    def play(self, obs: Rows, noise: NDArray[np.float32] | None, actions: NDArray[Any]) -> Play:
        """Returns what acts on blocks, step by step, with the parameters of now.

        They must not change while it is in use.

        Args:
            obs: Raw observations, [T, N, D].
            noise: What `distribution.sample` takes, [T, N, noise_size]; None for the most likely
                actions.
            actions: Receives the sampled actions, [T, N, A].
        """
        if self._accelerator is not None:
            play = self._accelerator.play(obs, noise, actions)
            if not self.values_per_action:
                return play
            seen = torch.from_numpy(obs)
            return Play(
                play.act,
                lambda num_rows: (play.judgement(num_rows)[0], self.values(seen[:num_rows])),
            )
        drawn = None if noise is None else torch.from_numpy(noise)
        if drawn is not None and self._judges_in_passing and not self.is_bf16:
            return self._play_and_judge(obs, drawn, actions)

        def act(t: int) -> None:
            actions[t] = self.act(obs[t], None if drawn is None else drawn[t])

        # one pass over all rows is cheaper than one for every step
        def judge(num_rows: int) -> tuple[Tensor, Tensor]:
            return self.evaluate(
                torch.from_numpy(obs[:num_rows]), torch.from_numpy(actions[:num_rows])
            )

        return Play(act, judge)

    def _play_and_judge(self, obs: Rows, drawn: Tensor, actions: NDArray[Any]) -> Play:
        """Returns what acts, and keeps what the same pass through the network says of the rows."""
        log_probs = torch.empty(obs.shape[:2], device=self.device, dtype=self.dtype)
        values = torch.empty_like(log_probs)

        @torch.no_grad()
        def act(t: int) -> None:
            params, values[t] = self(self.normalize(torch.from_numpy(obs[t])))
            chosen = self.distribution.sample(params, drawn[t].to(params))
            log_probs[t] = self.distribution.log_prob(params, chosen)
            actions[t] = chosen.cpu().numpy()

        return Play(act, lambda num_rows: (log_probs[:num_rows], values[:num_rows]))

    def noise(
        self,
        seed: int,
        purpose: Purpose,
        first_step: int,
        num_steps: int,
        num_envs: int,
        first_env: int = 0,
    ) -> NDArray[np.float32]:
        """Returns the noise of a block of actions, [T, N, noise_size], counted not streamed."""
        if self._accelerator is not None:
            return self._accelerator.noise(
                seed, purpose, first_step, num_steps, num_envs, first_env
            )
        draw = normal if self.distribution.noise == "normal" else uniform
        steps = np.arange(first_step, first_step + num_steps)[:, None]
        envs = np.arange(first_env, first_env + num_envs)[None]
        return draw(seed, purpose, envs, steps, self.distribution.noise_size)

    @torch.no_grad()
    def values(self, obs: Tensor) -> Tensor:
        """Returns V of raw observations [..., D], on the policy's device."""
        if self._accelerator is not None and not self.values_per_action:
            return self._accelerator.values(obs)
        rows = obs.reshape(-1, obs.shape[-1])
        if not len(rows):
            return torch.zeros(obs.shape[:-1], device=self.device, dtype=self.dtype)
        parts = [self(self.normalize(part))[1] for part in rows.split(self._rows_at_once)]
        return torch.cat(parts).reshape(obs.shape[:-1])

    def next_values(
        self, values: Tensor, final_obs: Tensor, final_at: Tensor, last_obs: Tensor
    ) -> Tensor:
        """Returns V(s'_t): the next row's value, but the final observation's where an episode ended.

        Args:
            values: V(s_t) of the policy as it is now, [T, N].
            final_obs: Last observations of the episodes that ended, [F, D].
            final_at: Step and env of each, int64 [F, 2].
            last_obs: Observations after the last step, [N, D].
        """
        if self._accelerator is not None and not self.values_per_action:
            return self._accelerator.next_values(values, final_obs, final_at, last_obs)
        found = torch.cat([values[1:], self.values(last_obs)[None]])
        at = final_at.to(values.device)
        found[at[:, 0], at[:, 1]] = self.values(final_obs)
        return found

    @torch.no_grad()
    def evaluate(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities of actions [..., A] and values at raw observations [..., D]."""
        if self._accelerator is not None and not self.values_per_action:
            return self._accelerator.evaluate(obs, actions)
        shape = obs.shape[:-1]
        log_probs, values = [], []
        pairs = zip(
            obs.reshape(-1, obs.shape[-1]).split(self._rows_at_once),
            actions.reshape(-1, actions.shape[-1]).split(self._rows_at_once),
            strict=True,
        )
        for obs_part, action_part in pairs:
            params, value = self(self.normalize(obs_part))
            log_probs.append(self.distribution.log_prob(params, action_part.to(params.device)))
            values.append(value)
        return torch.cat(log_probs).reshape(shape), torch.cat(values).reshape(shape)

    def merge_observations(self, obs: Tensor) -> None:
        """Adds a rollout's raw observations [T, N, D] to the normaliser's statistics."""
        if self.normalizer is None:
            return
        if self._accelerator is not None:
            self._accelerator.merge_observations(obs)
        else:
            self.normalizer.merge_block(vector_of(self.obs_layout, obs).cpu().numpy())

    def are_finite(self, blocks: Sequence[Tensor]) -> bool:
        """Returns True if no number in the blocks is NaN or infinite; False may be a false alarm."""
        if self._accelerator is not None:
            return self._accelerator.are_finite(blocks)
        # one pass and no temporary: a sum is finite unless a term is not (or it overflows)
        return all(math.isfinite(block.sum()) for block in blocks)

    def is_finite(self) -> bool:
        """Returns True if no number that is learnt is NaN or infinite; False may be a false alarm."""
        if self._accelerator is not None:
            return self._accelerator.is_finite()
        return all(math.isfinite(tensor.sum()) for tensor in self.tensors().values())

    def first_outside(
        self, obs: Tensor, low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> int | None:
        """Returns where a block of raw observations is outside its bounds first, or None.

        Args:
            obs: The block, [..., D].
            low: Least number of every column, [D].
            high: Largest number of every column, [D].

        Returns:
            The flat index of the number.
        """
        if self._accelerator is not None:
            return self._accelerator.first_outside(obs, low, high)
        rows = obs.numpy(force=True)
        if (rows >= low).all() and (rows <= high).all():
            return None
        return int(np.flatnonzero((rows < low) | (rows > high))[0])


def _channels_last(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lays images out channel by channel within a pixel: convolutions on the CPU learn 1.4 x faster."""
    images, *others = inputs
    if images.ndim == 4 and len(images) >= FEW_ROWS:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, *others
