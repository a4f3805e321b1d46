"""Frame arithmetic of HuBERT's convolution front end: pure functions, units in every name.

A *frame* is one output step of the front end: with HuBERT's strides one every 320 samples (20 ms at 16 kHz), each
seeing 400 samples (25 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor


@overload
def frame_count(num_samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int: ...


@overload
def frame_count(num_samples: Tensor, kernels: Sequence[int], strides: Sequence[int]) -> Tensor: ...


def frame_count(num_samples: int | Tensor, kernels: Sequence[int], strides: Sequence[int]) -> int | Tensor:
    """Number of frames that the front end makes of `num_samples`, an int, or int64 of any shape.

    It is 0 where the waveform is shorter than one receptive field.

    Example:
        >>> frame_count(16_000, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        49
    """
    frames = num_samples
    for kernel, stride in zip(kernels, strides, strict=True):
        # A negative length must stay "nothing", not turn into -1 // stride + 1 = 0 and then grow again.
        frames = (frames - kernel) // stride + 1
        frames = frames.clamp(min=0) if isinstance(frames, Tensor) else max(frames, 0)
    return frames


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame sees, which is also the shortest waveform that gives a frame.

    Example:
        >>> receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        400
    """
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def hop_length(strides: Sequence[int]) -> int:
    """Samples from one frame to the next.

    Example:
        >>> hop_length((5, 2, 2, 2, 2, 2, 2))
        320
    """
    samples = 1
    for stride in strides:
        samples *= stride
    return samples


def length_mask(lengths: Tensor, max_length: int) -> Tensor:
    """Mask (batch, max_length) bool of a right-padded batch, True on valid positions, (batch,) int64 of each row."""
    return torch.arange(max_length, device=lengths.device)[None, :] < lengths[:, None]


def crop_frames(features: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
    """Cut one span of frames out of each row and pad the spans to the longest.

    Crops are taken here, after the front end has seen the whole clip, because the group norm of base models is a
    statistic of the whole clip: cropping the waveform would change every frame.

    Args:
        features: (batch, frames, channels).
        spans: (batch, 2) int64, first frame and frame after the last, within the valid frames of the row.

    Returns:
        (batch, longest span, channels), zero on padding, and their mask (batch, longest span).
    """
    lengths = spans[:, 1] - spans[:, 0]
    longest = int(lengths.max())
    mask = length_mask(lengths, longest)
    positions = (spans[:, :1] + torch.arange(longest, device=spans.device)[None, :]).clamp(max=features.shape[1] - 1)
    cropped = features.gather(1, positions[:, :, None].expand(-1, -1, features.shape[2]))
    return cropped * mask[:, :, None].to(cropped.dtype), mask
