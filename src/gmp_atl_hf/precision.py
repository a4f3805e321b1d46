"""Float32 that is float32: GPUs convolve it with ten bits (TF32) unless they are told not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding the inputs of convolutions in float32 to ten bits, which it does unasked.

    Ten bits are as few as float16 has, and padding would show: scores of a clip alone and in a batch would differ in
    the fourth digit.

    Args:
        device: Where the work is done; nothing is changed unless it is a CUDA device.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before
