"""What torch's passes through the own module of the row `module-256` take, with nothing between them.

    taskset -c 0 python benchmarks/speed/passes.py

An update of that module cannot take less. Printed is the least of five times 500 repetitions.
"""

from __future__ import annotations

import time

import torch
from runner_clipper import own_module

ROWS, CALLS, TIMES = 256, 500, 5


def main() -> None:
    """Times forward and backward, with one thread, gradients added to those that are there."""
    torch.set_num_threads(1)
    module = own_module(4, 2)
    obs, by_params, by_values = torch.randn(ROWS, 4), torch.randn(ROWS, 2), torch.randn(ROWS)
    found = []
    for _ in range(TIMES + 1):  # the first warms up
        began = time.perf_counter()
        for _ in range(CALLS):
            torch.autograd.backward(module(obs), [by_params, by_values])
        found.append((time.perf_counter() - began) / CALLS)
    print(f"forward and backward of {ROWS} rows: {1e6 * min(found[1:]):.0f} us")


if __name__ == "__main__":
    main()
