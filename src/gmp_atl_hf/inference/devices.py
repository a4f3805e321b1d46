"""Where to compute and how precisely."""

from __future__ import annotations

import torch

from ..data.audio import SAMPLING_RATE
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from .cpu.linear import require_int8

PRECISIONS = ("float32", "bfloat16", "int8", "auto")
"""float32 is exact and the default; bfloat16 and int8 trade digits of the scores for speed; auto is bfloat16 on GPUs
that have it and float32 elsewhere."""

MOST_BATCH_SECONDS = 128.0
"""Seconds of audio per batch unless asked for otherwise. By the sizes of the first convolution's outputs, base and
large shapes need 2 to 3 GB of a GPU's memory for it; not tuned on one."""

CPU_ACTIVATION_BYTES = 32 << 20
"""Size of the first convolution's output up to which larger batches pay on a CPU; a measure of a model's width, since
it is never there as a whole. Narrow models gain from long batches, wide ones lose when activations leave the cache."""


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Find the device to compute on; None is the accelerator if there is one, otherwise the CPU.

    Raises:
        RequestError: There is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return torch.device("cpu") if accelerator is None else accelerator
    available = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RequestError(
            f"there is no device {device!r}", ", ".join(available), f"device={available[-1]!r}"
        ) from error
    if chosen.type not in available or (chosen.index or 0) >= (
        torch.accelerator.device_count() if chosen.type != "cpu" else 1
    ):
        raise RequestError(
            f"the device {device!s} is not on this machine", ", ".join(available), f"device={available[-1]!r}"
        )
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """Find the precision to compute in; `"auto"` is `"bfloat16"` on GPUs that have it, otherwise `"float32"`.

    Raises:
        RequestError: There is no such precision, or not on this device.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"precision is {precision!r}", ", ".join(PRECISIONS), "leave it out for float32")
    if precision == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if half else "float32"
    if precision == "int8":
        if device.type != "cpu":
            raise RequestError(f"int8 is for the CPU; the device is {device}", "device cpu", "bfloat16 is for GPUs")
        require_int8()
    return precision


def default_batch_seconds(config: GMPATLConfig, device: torch.device) -> float:
    """Seconds of audio per batch that suit a device.

    128 on accelerators; on a CPU at most as many as keep the first convolution's output in 32 MiB, about 5 in the base
    shape.
    """
    if device.type != "cpu":
        return MOST_BATCH_SECONDS
    bytes_per_second = SAMPLING_RATE / config.conv_stride[0] * config.conv_dim[0] * 4
    return min(MOST_BATCH_SECONDS, CPU_ACTIVATION_BYTES / bytes_per_second)
