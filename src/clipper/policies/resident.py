"""A module whose parameters an engine keeps: where they are, and what happens if somebody moves them.

Engines have the parameters in one flat tensor, of which those of the module are views, and know where
it is. Torch lets everybody put other tensors in their place; then what acts, what is trained and what
is saved would be three. docs/decisions/0020-parameters-in-place.md
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipper.errors import ConfigError
from clipper.policies.accelerator import Accelerator, Home
from clipper.policies.images import ImageNetwork
from clipper.policies.networks import MLPNetwork
from clipper.policies.normalize import ObservationNormalizer

_AS_THEY_ARE: AbstractContextManager[Any] = nullcontext()


class Resident(nn.Module):
    """The part of a policy that knows where its parameters are, and what computes with them there.

    Attributes:
        network: Whose parameters they are, beside those of the policy itself.
        normalizer: Of observations, or None.
    """

    network: nn.Module
    normalizer: ObservationNormalizer | None

    def settle(self, network: nn.Module) -> None:
        """Begins with the parameters where the network has them, and torch to compute with them."""
        self._accelerator: Accelerator | None = None
        self._home: Home | None = None
        self._within: AbstractContextManager[Any] = _AS_THEY_ARE
        self._tensors: tuple[int, dict[str, Tensor]] | None = None
        # in a list, so that the module does not register it a second time
        self._anchor = [next(network.parameters())]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._anchor[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters, float32 but in tests."""
        return self._anchor[0].dtype

    @property
    def is_accelerated(self) -> bool:
        """True if another than torch acts, whose results do not depend on how many rows it is given."""
        return self._accelerator is not None

    def accelerate(self, accelerator: Accelerator) -> None:
        """Lets an engine act, evaluate and judge, until the parameters move to another place."""
        self._accelerator = accelerator

    def compute_within(self, context: AbstractContextManager[Any]) -> None:
        """Runs the network within a context of an engine's, until the parameters move elsewhere."""
        self._within = context

    def live_in(self, home: Home) -> None:
        """Notes where an engine keeps the parameters."""
        self._home = home

    def hold(self, *, at_once: bool = False) -> None:
        """Brings parameters back to where the engine that learns has them, if somebody moved them.

        Args:
            at_once: Look at the parameters alone, and not for layers that were replaced.

        Raises:
            ConfigError: They are others than they were: in names, shapes, type or device.
        """
        if self._home is not None and not (at_once and self._home.are_in_place()):
            self._home.hold()

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Takes over numbers, as `nn.Module` does; the tensors of an agent stay what they are."""
        found = super().load_state_dict(state_dict, strict, assign and self._home is None)
        self._reload()
        return found

    def share_memory(self) -> Self:
        """Moves the parameters into memory that processes share, as `nn.Module` does.

        Raises:
            ConfigError: They are an agent's, whose engine knows where they are.
        """
        if self._home is None:
            return super().share_memory()
        raise ConfigError(
            "parameters of an agent must stay in their memory, but share_memory moves them.",
            hint="share a copy: copy.deepcopy(agent.policy).share_memory().",
        )

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        # parameters of another type or on another device are not the engine's any more
        before = self._accelerator, self._within
        self._accelerator, self._within = None, _AS_THEY_ARE
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self._home is not None and self._home.are_in_place():  # as after cpu() on a CPU
            self._accelerator, self._within = before
        return self

    def __getstate__(self) -> dict[str, Any]:
        # a copy has parameters of its own
        return {
            **self.__dict__,
            "_accelerator": None,
            "_home": None,
            "_within": _AS_THEY_ARE,
            "_tensors": None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Returns what `state_dict` does: the parameters and statistics themselves, by name.

        Of a network of ours without the walk through all its modules, which costs as much as an
        update: its tensors stay where they are until it is moved.
        """
        if type(self.network) not in (MLPNetwork, ImageNetwork):
            return self.state_dict()  # a user's module may put new tensors in the place of others
        place = self._anchor[0].data_ptr()
        if self._tensors is None or self._tensors[0] != place:
            self._tensors = place, dict(self.state_dict())
        return self._tensors[1]

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Loads what `state_dict` gave, in place, so that views of the parameters stay valid."""
        self.load_state_dict(state)

    def take(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Loads the arrays of another policy's `tensors`, one of the same making.

        Of an MLP on the CPU in a tenth of the time of `load_state`, and as unchecked.
        """
        own = self.tensors()
        if type(self.network) is not MLPNetwork or self.device.type != "cpu":
            self.load_state({name: torch.from_numpy(array) for name, array in state.items()})
            return
        for name, array in state.items():
            np.copyto(own[name].numpy(force=True), array)
        self._reload()

    def _reload(self) -> None:
        if self.normalizer is not None:
            self.normalizer.reload()
