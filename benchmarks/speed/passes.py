"""What torch's passes through the own module of the row `module-256` take, with nothing between them.

    taskset -c 0 python benchmarks/speed/passes.py

An update of that module would take no less, but for its MLPs, which kernels of ours compute in updates:
both are printed, the least of five times 500 repetitions. After something else, as a rollout is, the
first ten passes or so take longer (caches, the clock): the last number is the mean of 16 after that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from runner_clipper import own_module

from clipper.engine.kernels import choose_variant
from clipper.engine.quick_parts import QuickParts
from clipper.engine.state import AdamState

ROWS, CALLS, TIMES, UPDATES, PAUSE = 256, 500, 5, 16, 0.01


def main() -> None:
    """Times forward and backward, with one thread, gradients added to those that are there."""
    torch.set_num_threads(1)
    module = own_module(4, 2)
    obs, by_params, by_values = torch.randn(ROWS, 4), torch.randn(ROWS, 2), torch.randn(ROWS)

    def passes() -> None:
        torch.autograd.backward(module(obs), [by_params, by_values])

    state = AdamState(module)
    state.new_grad()
    quick = QuickParts(module, state.params, choose_variant())
    ways: list[tuple[str, AbstractContextManager[None]]] = [
        ("torch alone", contextlib.nullcontext()),
        ("MLPs by the kernels", quick),
    ]
    for name, way in ways:
        with way:
            print(f"{name}: forward and backward of {ROWS} rows {steady(passes):.0f} us")
    with quick:
        print(f"the same, {UPDATES} after a pause: {interrupted(passes):.0f} us")


def steady(call: Callable[[], None]) -> float:
    """Returns the least mean time of many calls, us."""
    found = []
    for _ in range(TIMES + 1):  # the first warms up
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - began) / CALLS)
    return 1e6 * min(found[1:])


def interrupted(call: Callable[[], None]) -> float:
    """Returns the mean time of a call, us, when Python has been busy with something else before."""
    total = 0.0
    for _ in range(CALLS // UPDATES):
        until = time.perf_counter() + PAUSE
        while time.perf_counter() < until:
            pass
        began = time.perf_counter()
        for _ in range(UPDATES):
            call()
        total += time.perf_counter() - began
    return 1e6 * total / (CALLS // UPDATES * UPDATES)


if __name__ == "__main__":
    main()
