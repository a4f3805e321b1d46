"""Float32 that is float32, whatever torch has been told: GPUs compute it with ten bits (TF32) where they may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS: Any = torch.backends


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding the inputs of convolutions in float32 to ten bits, which it does unasked.

    Ten bits are as few as float16 has, and padding would show: scores of a clip alone and in a batch would differ in
    the fourth digit.

    Args:
        device: Where the work is done; nothing is changed unless it is a CUDA device.
    """
    with _in_float32(*([_BACKENDS.cudnn.conv] if device.type == "cuda" else [])):
        yield


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 matrix products in float32, whatever TF32 or autocast settings a training has left switched on.

    Args:
        device: Where the products run.
    """
    products = _BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul
    with _in_float32(*products), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _in_float32(*backends: Any) -> Iterator[None]:
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
