"""Same seed, same machine, same numbers: what has to be asked of a GPU for that.

On processors torch keeps the promise by itself, as long as the number of threads stays. On a GPU several kernels add up
in whatever order their threads arrive. Those that have a fixed order as an alternative are switched to it here. One
remains: the gradient of memory-efficient attention, which transformers uses in training because every batch has a mask;
torch fixes its order only in its strict mode, which refuses every operation without a fixed order. `full_determinism:
true` among a stage's arguments asks transformers for that mode, at the price of speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CUBLAS_WORKSPACE = ":4096:8"
"""Fixed workspaces of cuBLAS, 24 MiB on each GPU; without them products may differ from run to run."""


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Ask for operations that add up in a fixed order, where there are any.

    Args:
        device: Where the work is done; nothing is changed unless it is a CUDA device.
    """
    if device.type != "cuda":
        yield
        return
    # Read when the first product is computed, and never again.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    cudnn = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    before = (cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory)
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if not enabled:
            torch.use_deterministic_algorithms(True, warn_only=True)
        cudnn.deterministic, cudnn.benchmark = True, False
        memory.fill_uninitialized_memory = False  # looks for bugs of others, and costs time
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before
