"""Matrix products of the encoder on a CPU: rows times weights, in float32 or in int8 with a scale for each row.

A *row* is one time step of one clip (for a convolution, the window of steps that one output sees). Its scale comes from
its own values alone, so that what stands beside it, in the clip or in the batch, changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from ...errors import RequestError

LOWEST = {"gelu": -0.17, "relu": 0.0}
"""Bounds below what activation functions give. With one, all 256 steps of int8 serve values that occur."""

_SMALLEST = 1e-30  # the scale of a row of zeros: nothing can be divided by 0


class Product(Protocol):
    """A linear map of time steps, or of windows of them."""

    def __call__(self, steps: Tensor, /) -> Tensor:
        """(steps, inputs) float32, contiguous → (windows, outputs) float32; linear layers have a window per step."""
        ...


class Float32Convolution:
    """A convolution over time, weight (outputs, inputs, kernel), as matrix products without a copy of the windows.

    Steps that follow each other lie side by side in memory, so a stride's worth of them is a row of a matrix as it
    stands; a kernel longer than the stride is a sum of such products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        outputs, inputs, self.kernel = weight.shape
        self.stride, self.bias = stride, bias
        # With one input channel the windows are so short that copying them is the cheaper way.
        width = self.kernel if inputs == 1 else stride
        by_step = weight.permute(2, 1, 0)
        self.parts = [
            (first, by_step[first : first + width].reshape(-1, outputs).contiguous())
            for first in range(0, self.kernel, width)
        ]

    def __call__(self, steps: Tensor, /) -> Tensor:
        """(steps, inputs) → (windows, outputs)."""
        count = (len(steps) - self.kernel) // self.stride + 1
        output: Tensor | None = None
        for first, weight in self.parts:
            rows = _windows(steps[first:], len(weight), self.stride, count)
            if output is not None:
                output.addmm_(rows, weight)
            else:
                output = rows @ weight if self.bias is None else torch.addmm(self.bias, rows, weight)
        assert output is not None
        return output


class Int8Linear:
    """A linear layer in int8: a scale for each row of the input and for each output, products summed in int32.

    The weight is (outputs, inputs) float32; `lowest` is a bound below all inputs, None for inputs around 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, lowest: float | None = None) -> None:
        require_int8()
        self.lowest = lowest
        self.scales = weight.abs().amax(1).clamp(min=_SMALLEST) / 127
        rounded = (weight / self.scales[:, None]).round()
        self.bias = torch.zeros(len(weight)) if bias is None else bias.clone()
        if lowest is not None:
            self.bias += lowest * rounded.sum(1) * self.scales
        self.packed = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)

    def __call__(self, rows: Tensor, /) -> Tensor:
        """(rows, inputs) → (rows, outputs); rows may share memory, as windows do."""
        if self.lowest is None:
            top = torch.maximum(rows.amax(-1, keepdim=True), -rows.amin(-1, keepdim=True)).clamp_(min=_SMALLEST)
            zero, scale = 128, top / 127
            inverse = 1 / scale
            offset = torch.full_like(inverse, zero + 0.5)
        else:
            zero, scale = 0, (rows.amax(-1, keepdim=True) - self.lowest).clamp_(min=_SMALLEST) / 255
            inverse = 1 / scale
            offset = 0.5 - self.lowest * inverse
        # Everything is above 0 here, where cutting off the fraction rounds to the nearest.
        quantised = torch.addcmul(offset, rows, inverse).to(torch.uint8)
        return torch.addcmul(self.bias, _int8_product(quantised, zero, self.packed, self.scales), scale)


class Int8Convolution:
    """`Float32Convolution` in int8, with a scale for each window; `lowest` as in `Int8Linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, lowest: float | None = None) -> None:
        self.kernel, self.stride = weight.shape[2], stride
        self.linear = Int8Linear(weight.transpose(1, 2).flatten(1), bias, lowest)

    def __call__(self, steps: Tensor, /) -> Tensor:
        """(steps, inputs) → (windows, outputs)."""
        count = (len(steps) - self.kernel) // self.stride + 1
        return self.linear(_windows(steps, self.kernel * steps.shape[1], self.stride, count))


def require_int8() -> None:
    """Refuse int8, by a `RequestError`, where PyTorch or the processor cannot multiply it exactly."""
    if not _has_int8():
        raise RequestError(
            "this machine has no int8 products of matrices (PyTorch for x86 and a processor with VNNI or AMX)",
            "precision float32 or bfloat16",
            "leave the precision out",
        )


@cache
def _has_int8() -> bool:
    # Without VNNI, sums of two products are cut off at 16 bits: the largest values there are would show it.
    if not torch.cpu._is_vnni_supported() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    product = _int8_product(torch.full((4, 64), 255, dtype=torch.uint8), 0, packed, torch.ones(16))
    return bool((product == 255 * 127 * 64).all())


def _int8_product(rows: Tensor, zero: int, packed: Tensor, scales: Tensor) -> Tensor:
    """(rows, inputs) uint8 minus `zero`, times packed (outputs, inputs) int8, times scales → float32."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows,
        1.0,
        zero,
        packed,
        scales,
        torch.zeros(len(scales), dtype=torch.int64),
        None,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )
    return product


def _windows(steps: Tensor, width: int, stride: int, count: int) -> Tensor:
    """A view of (steps, inputs) as `count` rows of `width` values, `stride` steps apart."""
    return steps.as_strided((count, width), (stride * steps.shape[1], 1))
