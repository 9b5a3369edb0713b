"""What all engines keep of the optimiser and tell of an iteration, in the same form.

A run that was begun with one engine can therefore go on with another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.advantages import ValueFit
from clipper.errors import ConfigError, NumericsError
from clipper.policies.actor_critic import ActorCritic


class FlatParameters:
    """A module's parameters in one flat tensor, of which the module's own become views.

    Whichever require gradients now are in it for good; those that are frozen later keep their place.

    Args:
        policy: The module whose parameters are learned.

    Attributes:
        learned: The parameters that required gradients, in the module's order.
        names: Their names in the module.
        params: All of them in one vector.

    Raises:
        ConfigError: All parameters are frozen.
    """

    def __init__(self, policy: nn.Module) -> None:
        named = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
        self._left_out = [(name, p) for name, p in policy.named_parameters() if not p.requires_grad]
        self.names = [name for name, _ in named]
        self.learned = [p for _, p in named]
        if not self.learned:
            raise _all_frozen()
        self.params = torch.cat([p.detach().reshape(-1) for p in self.learned])
        self._parts = self.split(self.params)
        for parameter, part in zip(self.learned, self._parts, strict=True):
            parameter.data = part
        self._policy = policy
        self._holders = [_holder(policy, name) for name in self.names]
        self._addresses = [part.data_ptr() for part in self._parts]
        self._grads: list[Tensor] | None = None
        if isinstance(policy, ActorCritic):
            policy.live_in(self)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Returns views of a flat tensor with the shapes of the parameters."""
        sizes = [p.numel() for p in self.learned]
        parts = zip(flat.split(sizes), self.learned, strict=True)
        return [part.view_as(parameter) for part, parameter in parts]

    def are_frozen(self) -> bool:
        """Returns True if some of the parameters have been frozen since.

        Raises:
            ConfigError: All have been, or one that was frozen then requires gradients now.
        """
        for name, parameter in self._left_out:
            if parameter.requires_grad:
                raise ConfigError(
                    "parameters that are frozen when an agent is made must stay so, but "
                    f"{name} requires gradients now.",
                    hint="make the agent first, and freeze them then.",
                )
        num_frozen = sum(not p.requires_grad for p in self.learned)
        if num_frozen == len(self.learned):
            raise _all_frozen()
        return num_frozen > 0

    def parameters_now(self) -> Callable[[], dict[str, Tensor]]:
        """Returns what gives copies of the parameters, as they are now, by name."""
        flat = self.params.clone()
        return lambda: dict(zip(self.names, self.split(flat), strict=True))

    def new_grad(self) -> Tensor:
        """Returns a flat tensor of zeros, of which the parameters' gradients become views."""
        grad = torch.zeros_like(self.params)
        self._grads = self.split(grad)
        for parameter, part in zip(self.learned, self._grads, strict=True):
            parameter.grad = part
        return grad

    def are_in_place(self) -> bool:
        """Returns True if the policy's parameters are still views of the flat tensor."""
        return self.params.data_ptr() == self._addresses[0] and all(
            holder[leaf] is parameter and parameter.data_ptr() == address
            for (holder, leaf), parameter, address in zip(
                self._holders, self.learned, self._addresses, strict=True
            )
        )

    @torch.no_grad()
    def hold(self) -> None:
        """Takes parameters that were put elsewhere back, with the numbers they have now.

        `p.data = ...`, `vector_to_parameters`, `load_state_dict(assign=True)` of a part or a layer in
        place of another make tensors of their own, and `zero_grad()` lets go of gradients: what the
        engines computed would reach nobody.

        Raises:
            ConfigError: They are others than they were: in names, shapes, type or device.
        """
        now = dict(self._policy.named_parameters())
        known = {*self.names, *(name for name, _ in self._left_out)}
        if now.keys() != known:
            name = min(now.keys() ^ known)
            raise _others(f"{name} is {'new' if name in now else 'missing'}")
        for at, (name, part) in enumerate(zip(self.names, self._parts, strict=True)):
            parameter, mine = now[name], self.learned[at]
            if parameter is not mine or parameter.data_ptr() != self._addresses[at]:
                if part.data_ptr() != self._addresses[at]:
                    raise _others(f"the memory of {name} was moved")
                if _kind(parameter) != _kind(part):
                    raise _others(f"{name} is {_kind(parameter)} where it was {_kind(part)}")
                part.copy_(parameter)
                mine.data = part
                mine.requires_grad_(parameter.requires_grad)
                holder, leaf = self._holders[at] = _holder(self._policy, name)
                holder[leaf] = mine
            if self._grads is not None and mine.grad is not self._grads[at]:
                mine.grad = self._grads[at]


class AdamState(FlatParameters):
    """Flat parameters and Adam's two averages.

    Args:
        policy: The module whose parameters are learned; they become views of `params`.

    Attributes:
        m: First moments.
        v: Second moments.
        num_updates: Steps taken.

    Raises:
        ConfigError: All parameters are frozen.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__(policy)
        self.m = torch.zeros_like(self.params)
        self.v = torch.zeros_like(self.params)
        self.num_updates = 0

    @contextmanager
    def frozen_kept(self) -> Iterator[None]:
        """After the block, what is frozen is as it was: Adam's averages would move it on."""
        kept = []
        if not all(p.requires_grad for p in self.learned):  # every update comes by here
            kept = [
                (part, part.clone())
                for flat in (self.params, self.m, self.v)
                for parameter, part in zip(self.learned, self.split(flat), strict=True)
                if not parameter.requires_grad
            ]
        yield
        for part, before in kept:
            part.copy_(before)

    def state_now(self) -> Callable[[], dict[str, Tensor]]:
        """Returns what gives copies of both moments and the number of updates, as they are now."""
        m, v, count = self.m.clone(), self.v.clone(), self.num_updates
        return lambda: {"m": m, "v": v, "num_updates": torch.tensor([count], dtype=torch.int64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets what `state_dict` returned."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.num_updates = int(state["num_updates"])


@dataclass(frozen=True, slots=True)
class Updates:
    """What the epochs of an iteration did.

    Attributes:
        reports: A row of numbers for every minibatch, float64 [n, 7].
        grad_norms: Norm of the gradient before clipping, one for every update.
        epochs: Epochs that were finished.
        fit: How well V(s_t) fitted the targets of the first epoch.
        counted: Rows that the policy could learn from, [B], or None for all.
        kl: Mean exact KL(old || new) over all rows after the updates; None if nobody asked.
        estimate_seconds: Time that a call which does it all spent on advantages.
    """

    reports: NDArray[np.float64]
    grad_norms: list[float]
    epochs: int
    fit: ValueFit
    counted: Tensor | None
    kl: float | None
    estimate_seconds: float = 0.0


class Snapshot(Mapping[str, dict[str, Any]]):
    """The parts of a state as they were when it was taken, made when they are asked for.

    One is taken before every iteration, to fall back on, and hardly ever looked at.

    Args:
        parts: What makes each part, by its name.
    """

    def __init__(self, parts: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._parts[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def refuse_frozen(policy: nn.Module, learned: Sequence[nn.Parameter]) -> None:
    """Raises unless parameters that an algorithm moves are still to be moved.

    Args:
        policy: The module that they are in.
        learned: Those that required gradients when the algorithm took them.

    Raises:
        ConfigError: One is frozen.
    """
    known = {id(parameter) for parameter in learned}
    for name, parameter in policy.named_parameters():
        if id(parameter) in known and not parameter.requires_grad:
            raise ConfigError(
                "parameters must not be frozen after an agent of this algorithm is made, but "
                f"{name} is.",
                hint="freeze them in a module of your own (module=...); PPO, A2C and ACER "
                "allow it at any time.",
            )


def _holder(policy: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Returns the dict of a module that has a parameter, and the parameter's name in it."""
    path, _, leaf = name.rpartition(".")
    return policy.get_submodule(path)._parameters, leaf


def _kind(tensor: Tensor) -> str:
    """Returns shape, type and device of a tensor in words."""
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{list(tensor.shape)} of {kind} on {tensor.device}"


def _others(found: str) -> ConfigError:
    return ConfigError(
        "the parameters of an agent's policy must keep their names, shapes, type, device and memory, "
        f"but {found}.",
        hint="make another agent (device, precision, module), or change a copy: "
        "copy.deepcopy(agent.policy); weights alone are taken by agent.policy.load_state_dict.",
    )


def _all_frozen() -> ConfigError:
    return ConfigError(
        "a module must have parameters that require gradients, but all are frozen.",
        hint="call requires_grad_(True) on those that are to be learnt.",
    )


def not_finite(loss: float, norm: float, update: int) -> NumericsError:
    """Returns the error for a loss or a gradient that is NaN or infinite."""
    return NumericsError(
        f"the loss and its gradient must be finite, but are {loss} and {norm} at update {update}.",
        hint="lower learning_rate, or look for extreme rewards (normalize_reward).",
    )
