"""Float32 that is float32 (GPUs compute it with ten bits, TF32, where they may), and sums in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

_BACKENDS: Any = torch.backends
_lock = Lock()
_in_use: dict[int, tuple[int, str]] = {}  # blocks in which a backend is in float32, and its setting before

CUBLAS_WORKSPACE = ":4096:8"
"""Fixed workspaces of cuBLAS, 24 MiB on each GPU; without them products may differ from run to run."""


@contextmanager
def no_tf32(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding the inputs of convolutions in float32 to ten bits, which it does unasked.

    Scores of a clip alone and in a batch would differ in the fourth digit. Other devices are left as they are.
    """
    with _in_float32(*([_BACKENDS.cudnn.conv] if device.type == "cuda" else [])):
        yield


@contextmanager
def float32_matmul(device: torch.device) -> Iterator[None]:
    """Float32 matrix products in float32, whatever TF32 or autocast settings a training has left switched on."""
    products = _BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul
    with _in_float32(*products), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask a CUDA device for operations that add up in a fixed order, where there are any; others are left as they are.

    On processors torch keeps the order by itself, as long as the number of threads stays. One kernel without a fixed
    order remains on GPUs: the gradient of memory-efficient attention, which transformers uses in training because every
    batch has a mask. torch fixes it only in its strict mode, which refuses every operation without a fixed order;
    `full_determinism: true` among a stage's arguments asks transformers for that mode, at the price of speed.
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


@contextmanager
def _in_float32(*backends: Any) -> Iterator[None]:
    """The setting is one for all threads: the first block notes it, and the last one that ends sets it back."""
    with _lock:
        for backend in backends:
            blocks, before = _in_use.get(id(backend), (0, backend.fp32_precision))
            _in_use[id(backend)] = blocks + 1, before
            backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _lock:
            for backend in backends:
                blocks, before = _in_use.pop(id(backend))
                if blocks > 1:
                    _in_use[id(backend)] = blocks - 1, before
                else:
                    backend.fp32_precision = before
