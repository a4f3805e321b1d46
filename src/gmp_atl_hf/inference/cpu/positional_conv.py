"""HuBERT's positional convolution by Fourier transform: the same numbers in a quarter of the time on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class PositionalConvolution:
    """The convolution over 128 frames that tells the encoder where a frame stands; its weights are copied.

    Overlap-save: with K the kernel and blocks x of 2·K frames that overlap by K - 1, irfft(rfft(x) · rfft(w reversed))
    equals the convolution from place K - 1 on; what is before has wrapped around. Blocks of all clips go together.
    """

    def __init__(self, module: Any) -> None:
        convolution = module.conv
        weight = convolution.weight.detach()  # with weight norm this computes it, once instead of in each forward pass
        outputs, _, self.kernel = weight.shape
        self.groups, self.bias = convolution.groups, convolution.bias.detach()
        self.activation = module.activation
        self.block = 2 * self.kernel
        spectrum = torch.fft.rfft(weight.flip(-1), self.block)
        spectrum = spectrum.unflatten(0, (self.groups, outputs // self.groups)).permute(3, 0, 2, 1)
        self.spectrum = spectrum.flatten(0, 1).contiguous()

    def __call__(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """(frames of all clips, channels) float32 → the same shape; beyond its ends, a clip sees zeros."""
        left, step = self.kernel // 2, self.block - self.kernel + 1
        counts = [-(-length // step) for length in lengths]
        clips = []
        for clip, count in zip(frames.split(list(lengths)), counts, strict=True):
            right = count * step - len(clip) + self.kernel - 1 - left
            clips.append(functional.pad(clip.T, (left, right)).unfold(1, self.block, step))
        blocks = clips[0] if len(clips) == 1 else torch.cat(clips, 1)  # (channels, blocks, block)
        spectra = torch.fft.rfft(blocks).unflatten(0, (self.groups, -1)).permute(3, 0, 2, 1)
        frequencies = len(spectra)
        products = torch.bmm(spectra.flatten(0, 1), self.spectrum).unflatten(0, (frequencies, self.groups))
        channels = torch.fft.irfft(products.permute(2, 1, 3, 0).flatten(1, 2), self.block)[..., self.kernel - 1 :]
        embedded = [
            clip.transpose(1, 2).flatten(0, 1)[:length]  # (blocks, channels, step) → (frames, channels)
            for clip, length in zip(channels.split(counts), lengths, strict=True)
        ]
        activated: Tensor = self.activation(torch.cat(embedded) + self.bias)
        return activated
