"""Parameters that a network put out in; actions, log-probabilities, entropies and KL out.

Pure functions of a parameter tensor [..., P] and noise that the caller draws, so that an action is
a function of the parameters and the noise alone. Dimension key: A numbers or indices of an action.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from clipper.action_layout import ActionLayout

_LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """What a policy needs to know of its action distribution.

    Attributes:
        num_params: Width P of the parameters.
        num_outputs: What the network's policy head puts out (the Gaussian's means alone).
        noise: Kind of noise that `sample` takes.
        noise_size: Numbers of noise for one action.
    """

    num_params: int
    num_outputs: int
    noise: Literal["uniform", "normal"]
    noise_size: int

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Returns actions [..., A] for parameters [..., P] and noise [..., noise_size]."""
        ...

    def mode(self, params: Tensor) -> Tensor:
        """Returns the most likely actions [..., A]."""
        ...

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Returns the log-probability (density) of actions, [...]."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Returns the entropy in nats, [...]."""
        ...

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Returns the exact KL(old || new) in nats, [...]."""
        ...


class Categorical:
    """One or several independent choices: Discrete (one head) and MultiDiscrete.

    Args:
        num_categories: Options of every head.
    """

    noise: Literal["uniform", "normal"] = "uniform"

    def __init__(self, num_categories: tuple[int, ...]) -> None:
        self._sizes = list(num_categories)
        self.num_params = self.num_outputs = sum(num_categories)
        self.noise_size = len(num_categories)

    def _heads(self, params: Tensor) -> tuple[Tensor, ...]:
        return (params,) if len(self._sizes) == 1 else params.split(self._sizes, dim=-1)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Returns indices [..., heads] by inverting each head's cumulative probabilities."""
        chosen = []
        for k, logits in enumerate(self._heads(params)):
            # not divided by their sum: they would end a little below 1, and noise above that would
            # draw the last index whatever its probability
            cumulative = (logits - logits.amax(-1, keepdim=True)).exp().cumsum(-1)
            reach = noise[..., k : k + 1] * cumulative[..., -1:]
            chosen.append((reach >= cumulative[..., :-1]).sum(-1))
        return torch.stack(chosen, -1)

    def mode(self, params: Tensor) -> Tensor:
        """Returns the most likely index of every head, [..., heads]."""
        return torch.stack([logits.argmax(-1) for logits in self._heads(params)], -1)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Returns the sum over heads of log p of the chosen index."""
        parts = [
            torch.log_softmax(logits, -1).gather(-1, actions[..., k : k + 1]).squeeze(-1)
            for k, logits in enumerate(self._heads(params))
        ]
        return parts[0] if len(parts) == 1 else torch.stack(parts, -1).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Returns the sum over heads of -sum p log p."""
        parts = []
        for logits in self._heads(params):
            log_p = torch.log_softmax(logits, -1)
            parts.append(-(log_p.exp() * log_p).sum(-1))
        return parts[0] if len(parts) == 1 else torch.stack(parts, -1).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Returns the sum over heads of sum p_old (log p_old - log p)."""
        total = torch.zeros_like(old[..., 0])
        for old_logits, new_logits in zip(self._heads(old), self._heads(new), strict=True):
            log_old, log_new = torch.log_softmax(old_logits, -1), torch.log_softmax(new_logits, -1)
            total = total + (log_old.exp() * (log_old - log_new)).sum(-1)
        return total


class Bernoulli:
    """Independent bits: MultiBinary. The parameters are the log-odds of a 1.

    Args:
        num_bits: Bits of an action.
    """

    noise: Literal["uniform", "normal"] = "uniform"

    def __init__(self, num_bits: int) -> None:
        self.num_params = self.num_outputs = self.noise_size = num_bits

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Returns bits [..., A]: 1 where the noise is below the probability."""
        return (noise < torch.sigmoid(params)).long()

    def mode(self, params: Tensor) -> Tensor:
        """Returns the more likely bits."""
        return (params > 0).long()

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Returns the sum over bits of log p of each."""
        signs = 2.0 * actions.to(params.dtype) - 1.0
        return torch.nn.functional.logsigmoid(signs * params).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Returns the sum over bits of -p log p - (1 - p) log(1 - p)."""
        p = torch.sigmoid(params)
        return (torch.nn.functional.softplus(params) - params * p).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Returns the sum over bits of p_old log(p_old / p) + (1 - p_old) log((1 - p_old) / (1 - p))."""
        softplus = torch.nn.functional.softplus
        return (torch.sigmoid(old) * (old - new) + softplus(new) - softplus(old)).sum(-1)


class DiagonalGaussian:
    """Independent normal numbers: Box. The parameters are A means and A log standard deviations.

    Args:
        size: Numbers of an action, A.
    """

    noise: Literal["uniform", "normal"] = "normal"

    def __init__(self, size: int) -> None:
        self.num_params = 2 * size
        self.num_outputs = self.noise_size = size

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Returns mean + std x noise, [..., A]; not clipped."""
        mean, log_std = params.chunk(2, -1)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        """Returns the means."""
        return params.chunk(2, -1)[0]

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Returns the sum over numbers of -z^2 / 2 - log std - log(2 pi) / 2."""
        mean, log_std = params.chunk(2, -1)
        z = (actions - mean) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std).sum(-1) - 0.5 * _LOG_2PI * self.noise_size

    def entropy(self, params: Tensor) -> Tensor:
        """Returns the sum over numbers of log(2 pi e) / 2 + log std."""
        return params.chunk(2, -1)[1].sum(-1) + 0.5 * (1.0 + _LOG_2PI) * self.noise_size

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Returns the sum of log(std / std_old) + (std_old^2 + (mu_old - mu)^2) / (2 std^2) - 1/2."""
        mean_old, log_old = old.chunk(2, -1)
        mean, log_new = new.chunk(2, -1)
        spread = (2.0 * log_old).exp() + (mean_old - mean).square()
        return (log_new - log_old + 0.5 * spread * torch.exp(-2.0 * log_new) - 0.5).sum(-1)


def distribution_for(layout: ActionLayout) -> Distribution:
    """Returns the distribution over the actions of a layout."""
    if layout.kind == "box":
        return DiagonalGaussian(layout.size)
    if layout.kind == "multi_binary":
        return Bernoulli(layout.size)
    return Categorical(layout.num_categories)
