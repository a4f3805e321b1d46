"""A first convolution that begins as a bank of band-pass filters, in place of noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import HubertModel

from ..checkpoints import quiet_transformers
from ..data.audio import SAMPLING_RATE

LOWEST_HZ, HIGHEST_HZ = 100.0, 7600.0
"""Centres of the lowest and the highest band: from a man's pitch to just below half the sampling rate."""


def mel_filters(number: int, length: int) -> Tensor:
    """Band-pass filters in pairs, a quarter of a period apart, whose centres are even on the mel scale.

    A band is as wide as a twelfth of its distance from -700 Hz, or 60 Hz; a filter is no longer than the kernel.

    Args:
        number: Filters; an odd last one stands alone.
        length: Samples of each at 16 kHz.

    Returns:
        (number, 1, length) float32 of norm 1.
    """
    bands = -(-number // 2)
    mels = torch.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), bands, dtype=torch.float64)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    width = (30 * (1 + hertz / 700)).clamp(min=60)
    deviation = (1.2 * SAMPLING_RATE / (2 * math.pi * width)).clamp(max=length / 5)
    time = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    window = torch.exp(-0.5 * (time / deviation[:, None]) ** 2) * torch.hann_window(length, False, dtype=torch.float64)
    angle = 2 * math.pi * hertz[:, None] / SAMPLING_RATE * time
    pairs = torch.stack([window * angle.cos(), -window * angle.sin()], dim=1).flatten(0, 1)[:number]
    return (pairs / pairs.norm(dim=1, keepdim=True)).float()[:, None]


def begin_with_mel_filters(folder: Path) -> None:
    """Put `mel_filters` in place of the first convolution's weights in a saved backbone; called by all processes."""
    if not PartialState().is_main_process:
        return
    with quiet_transformers():
        model: Any = HubertModel.from_pretrained(folder)
        first = model.feature_extractor.conv_layers[0].conv
        with torch.no_grad():
            first.weight.copy_(mel_filters(first.out_channels, first.kernel_size[0]))
        model.save_pretrained(folder)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
