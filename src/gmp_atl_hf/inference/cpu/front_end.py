"""HuBERT's convolution front end for one waveform at a time, on a CPU, without gradients.

The same numbers as transformers' modules give (to rounding), in half the time. Time runs along the rows here, so every
convolution is a product of matrices; a waveform goes through all of them in chunks that stay in the cache, where the
modules write and read tens of megabytes; and the first layer's group norm is worked out beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...modeling.configuration_gmp_atl import GMPATLConfig
from ...modeling.frames_gmp_atl import frame_count, hop_length, receptive_field
from .linear import FUSED, LOWEST, Float32Convolution, Int8Convolution, Product

CHUNK_BYTES = 8 << 20
"""Size of the first convolution's output for a chunk of a waveform. Measured: 2 to 8 MiB are alike and 26 cost a third
with AVX512, 8 to 16 MiB take 5 % less time than 4 with AVX2 alone."""

FEWEST_FRAMES = 16
"""Frames per chunk at least: neighbouring chunks both compute the steps that both see."""


class FrontEnd:
    """The front end of one model: its convolution layers, on the CPU in float32; their weights are copied.

    With `int8` all convolutions but the first are computed in int8.
    """

    def __init__(self, layers: nn.ModuleList, config: GMPATLConfig, int8: bool = False) -> None:
        self.kernels, self.strides = list(config.conv_kernel), list(config.conv_stride)
        bytes_per_frame = hop_length(self.strides[1:]) * config.conv_dim[0] * 4
        self.frames = max(FEWEST_FRAMES, CHUNK_BYTES // bytes_per_frame)
        self.layers: list[Any] = list(layers)
        activation = str(config.feat_extract_activation)
        lowest = LOWEST.get(activation)
        self.products: list[Product] = []
        norm = getattr(self.layers[0], "layer_norm", None)
        self.group_norm = norm if isinstance(norm, nn.GroupNorm) else None
        # With a norm between the two, or in int8, the function is applied by itself.
        self.fused = [
            activation if activation in FUSED and not (int8 and number) and self._norm(number) is None else None
            for number in range(len(self.layers))
        ]
        for number, layer in enumerate(self.layers):
            weight, stride = layer.conv.weight.detach(), self.strides[number]
            bias = None if layer.conv.bias is None else layer.conv.bias.detach()
            if int8 and number > 0:
                self.products.append(Int8Convolution(weight, bias, stride, lowest))
            else:
                self.products.append(Float32Convolution(weight, bias, stride, self.fused[number]))

    def __call__(self, waveform: Tensor) -> Tensor:
        """(samples,) float32 at 16 kHz, at least one frame → (frames, channels) float32."""
        first = self.products[0]
        if self.group_norm is not None:
            # The norm takes out any offset; taken out here, it cannot cost digits.
            waveform = waveform - waveform.mean(dtype=torch.float64).float()
            first = self._first_with_norm(waveform, self.group_norm)
        steps = waveform[:, None].contiguous()
        frames = frame_count(len(waveform), self.kernels, self.strides)
        hop, field = hop_length(self.strides), receptive_field(self.kernels, self.strides)
        chunks = [
            self._convolve(first, steps[start * hop : (min(start + self.frames, frames) - 1) * hop + field])
            for start in range(0, frames, self.frames)
        ]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _convolve(self, first: Product, steps: Tensor) -> Tensor:
        for number, (layer, product) in enumerate(zip(self.layers, [first, *self.products[1:]], strict=True)):
            steps = product(steps)
            if (norm := self._norm(number)) is not None:
                steps = norm(steps)
            if self.fused[number] is None:
                steps = layer.activation(steps)
        return steps

    def _norm(self, number: int) -> Callable[[Tensor], Tensor] | None:
        """The norm behind a convolution; None if it has none, or if the convolution's own weights hold it."""
        norm: Callable[[Tensor], Tensor] | None = getattr(self.layers[number], "layer_norm", None)
        return None if number == 0 and self.group_norm is not None else norm

    def _first_with_norm(self, waveform: Tensor, norm: nn.GroupNorm) -> Float32Convolution:
        """The first convolution and the group norm behind it as one convolution.

        A step of a channel is y = w·x, x the samples under the kernel. Over the clip E[y] = w·E[x] and
        Var[y] = wᵀ·Cov[x]·w, so γ·(y - E[y]) / √(Var[y] + ε) + β has the weights f·w and the bias β - f·E[y],
        f = γ / √(Var[y] + ε).
        """
        conv = self.layers[0].conv
        kernel = conv.weight.detach()[:, 0].double()
        under = waveform.double().unfold(0, kernel.shape[1], conv.stride[0])
        mean = under.mean(0)
        centred = under - mean
        covariance = centred.T @ centred / len(under)
        variance = ((kernel @ covariance) * kernel).sum(1).clamp(min=0)
        factor = norm.weight.detach().double() * torch.rsqrt(variance + norm.eps)
        addend = norm.bias.detach().double() - factor * (kernel @ mean)
        weight = (kernel * factor[:, None]).float()
        return Float32Convolution(weight[:, None], addend.float(), conv.stride[0], self.fused[0])
