"""Where and with how many threads torch computes, and what the garbage collector leaves alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from clipper.errors import ConfigError

# more threads make networks smaller than this slower, and far slower when a core is busy
_SMALL_NETWORK = 500_000


def check_device(device: str) -> torch.device:
    """Returns the torch device of that name.

    Raises:
        ConfigError: torch does not know it, or it is not there.
    """
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(
            f"device must be cpu, cuda or cuda:N, but is {device!r}.",
            hint="other devices lack the float64 that running statistics are kept in.",
        )
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"device must be one that torch can use, but {device} is not ({text}).",
            hint="use cpu, which is the faster one for small networks.",
        ) from None
    return found


def check_precision(precision: str, device: torch.device) -> None:
    """Raises unless a device has the precision that a network's products are to have.

    Raises:
        ConfigError: It has no bfloat16 products.
    """
    if precision != "bf16":
        return
    if not has_bf16(device):
        raise ConfigError(
            f"precision must be float32 on {device}, which has no bfloat16 products, but is bf16."
        )


def has_bf16(device: torch.device) -> bool:
    """True if a device multiplies bfloat16 numbers itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def threads_for(policy: nn.Module) -> int:
    """Returns how many threads torch has for a network: one if it is small, else as many as set."""
    size = sum(parameter.numel() for parameter in policy.parameters())
    return 1 if size <= _SMALL_NETWORK else torch.get_num_threads()


@contextmanager
def as_torch_begins() -> Iterator[None]:
    """Has torch make tensors on the CPU and keep gradients, as in a fresh process; for a decorator too.

    A user's `torch.no_grad`, `torch.inference_mode` and `torch.set_default_device` are for the user's
    own code: what is learnt has gradients, and lies on the agent's `device`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        if torch.get_default_device().type == "cpu":
            yield  # without a context, which would cost a microsecond at every call of torch
        else:
            with torch.device("cpu"):
                yield


@contextmanager
def one_thread_if_small(policy: nn.Module) -> Iterator[None]:
    """Runs torch with one thread while a small network on the CPU is at work."""
    before, wanted = torch.get_num_threads(), threads_for(policy)
    if next(policy.parameters()).device.type != "cpu" or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def long_lived_objects_left_alone() -> Iterator[None]:
    """Keeps the garbage collector from walking over all of torch again and again (3 % of CartPole)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
