"""Matrix products of the encoder on a CPU: rows times weights, in float32 or in int8 with a scale for each row.

A *row* is one time step of one clip (for a convolution, the window of steps that one output sees). Its scale comes from
its own values alone, so that what stands beside it, in the clip or in the batch, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import RequestError

LOWEST = {"gelu": -0.17, "relu": 0.0}
"""Bounds below what activation functions give. With one, all 256 steps of int8 serve values that occur."""

FUSED: Mapping[str, tuple[str, str]] = {"gelu": ("gelu", "none"), "relu": ("relu", "")}
"""Activation functions that oneDNN applies while it writes a product, and its two names for each."""

_SMALLEST = 1e-30  # the scale of a row of zeros: nothing can be divided by 0


class Product(Protocol):
    """A linear map of time steps, or of windows of them."""

    def __call__(self, steps: Tensor, /) -> Tensor:
        """(steps, inputs) float32, contiguous → (windows, outputs) float32; linear layers have a window per step."""
        ...


class _LaidOut:
    """Something with a `weight` (outputs, inputs) float32, which oneDNN multiplies sooner from a layout of its own."""

    weight: Tensor
    packed: Tensor

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: what oneDNN has laid out cannot be copied."""
        return {name: value for name, value in vars(self).items() if name != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.packed = _laid_out(self.weight)


class Float32Linear:
    """A linear layer, and the activation function behind it, by the weights of a module as they are."""

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        self.linear, self.activation = linear, activation

    def __call__(self, rows: Tensor, /) -> Tensor:
        """(rows, inputs) → (rows, outputs)."""
        return _float32_product(rows, self.linear.weight, self.linear.bias, self.activation)


class PackedLinear(_LaidOut):
    """`Float32Linear` by a second copy of the weights, which takes 3 to 5 % less time for clips of 2 to 10 s."""

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        self.weight, self.bias, self.activation = linear.weight.detach(), linear.bias, activation
        self.packed = _laid_out(self.weight)

    def __call__(self, rows: Tensor, /) -> Tensor:
        """(rows, inputs) → (rows, outputs)."""
        return _float32_product(rows, self.packed, self.bias, self.activation)


class Float32Convolution(_LaidOut):
    """A convolution over time, weight (outputs, inputs, kernel), as one product without a copy of the windows.

    Steps that follow each other lie side by side in memory, so that a window is a row of a matrix as it stands: rows
    overlap where the kernel is longer than the stride. `activation` is a name of `FUSED`, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, activation: str | None = None) -> None:
        self.kernel, self.stride, self.bias, self.activation = weight.shape[2], stride, bias, activation
        self.weight = weight.transpose(1, 2).flatten(1).contiguous()
        self.packed = _laid_out(self.weight)

    def __call__(self, steps: Tensor, /) -> Tensor:
        """(steps, inputs) → (windows, outputs)."""
        count = (len(steps) - self.kernel) // self.stride + 1
        rows = _windows(steps, self.kernel * steps.shape[1], self.stride, count)
        return _float32_product(rows, self.packed, self.bias, self.activation)


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
    """Whether PyTorch and the processor multiply matrices in int8, and exactly."""
    # Without VNNI, sums of two products are cut off at 16 bits: the largest values there are would show it.
    if not torch.cpu._is_vnni_supported() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    product = _int8_product(torch.full((4, 64), 255, dtype=torch.uint8), 0, packed, torch.ones(16))
    return bool((product == 255 * 127 * 64).all())


def _float32_product(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """(rows, inputs) times weight (outputs, inputs), plus the bias, through a function of `FUSED` → float32.

    By oneDNN where torch has it: quicker than torch's own product on AMD processors. The function behind it then costs
    no pass over the memory; but with AVX2 alone oneDNN takes so long for GELU that a pass by torch is quicker.
    """
    if not _has_onednn():
        product = functional.linear(rows, weight, bias)
        return product if activation is None else getattr(functional, activation)(product)
    if activation == "gelu" and not _beyond_avx2():
        return torch.ops.aten.gelu_(_by_onednn(rows, weight, bias, None))
    return _by_onednn(rows, weight, bias, activation)


def _laid_out(weight: Tensor) -> Tensor:
    """A weight as oneDNN multiplies it soonest; each product of a plain one does it anew, which many rows are worth."""
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight) if _has_onednn() else weight
    return laid_out


def _by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    function, variant = ("none", "") if activation is None else FUSED[activation]
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, function, [], variant)
    return product


@cache
def _beyond_avx2() -> bool:
    """Whether torch computes with more than AVX2 here, whatever that is."""
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


@cache
def _has_onednn() -> bool:
    """Whether torch can ask oneDNN for products in float32; they are not part of its public interface."""
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in needed):
        return False
    steps, weight = torch.linspace(-2, 2, 40), torch.linspace(-1, 1, 24).reshape(2, 12)
    rows = _windows(steps.reshape(-1, 4), 12, 2, 4)
    plain = rows @ weight.T
    wanted: dict[str | None, Tensor] = {None: plain, **{name: getattr(functional, name)(plain) for name in FUSED}}
    try:
        weights = [weight, torch.ops.mkldnn._reorder_linear_weight(weight)]
        return all(
            torch.allclose(_by_onednn(rows, each, None, function), product, atol=1e-5)
            for each in weights
            for function, product in wanted.items()
        )
    except (RuntimeError, NotImplementedError):  # the operators of another version: torch's own product does it
        return False


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
