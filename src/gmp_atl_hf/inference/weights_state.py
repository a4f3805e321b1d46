"""Whether a model still has the weights that it had, told in a small part of the time that it scores in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_SAMPLED = 8
"""Values that are compared of each tensor: writing through `.data` counts no version."""


class WeightsState:
    """What a model consists of at some time: its modules, its parameters and buffers, and where and what these are.

    Seen are other tensors, another device or precision, modules that were put in (adapters), every change that torch
    counts (optimisers, `load_state_dict`), and, by a few values of each tensor, those through `.data`.
    """

    @torch.inference_mode()
    def __init__(self, model: nn.Module) -> None:
        # Held, so that nothing else gets the identity of what is gone.
        self._parts = list(_parts_of(model))
        self._marks = [_mark(part) for part in self._parts]
        samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for part in self._parts:
            if isinstance(part, Tensor) and _is_plain(part) and part.is_floating_point() and part.numel():
                row = part.detach().view(-1) if part.is_contiguous() else part.detach()[(0,) * (part.ndim - 1)]
                samples[part.device, part.dtype].append(row[:: max(1, row.numel() // _SAMPLED)])
        self._samples = list(samples.values())
        self._values = [torch.cat(each) for each in self._samples]

    @torch.inference_mode()
    def is_of(self, model: nn.Module) -> bool:
        """Whether the model is still as it was."""
        parts = list(_parts_of(model))
        return (
            len(parts) == len(self._parts)
            and all(one is other for one, other in zip(parts, self._parts, strict=True))
            and all(_mark(part) == mark for part, mark in zip(parts, self._marks, strict=True))
            and all(torch.equal(torch.cat(now), then) for now, then in zip(self._samples, self._values, strict=True))
        )


def _parts_of(model: nn.Module) -> Iterator[nn.Module | Tensor]:
    """Modules, parameters and buffers; `Module.parameters` takes ten times as long, for names."""
    waiting: list[nn.Module] = [model]
    while waiting:
        module = waiting.pop()
        yield module
        for held in (module._parameters, module._buffers):
            yield from (tensor for tensor in held.values() if tensor is not None)
        waiting += (each for each in module._modules.values() if each is not None)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has values in a place of its own, as those of quantisers need not have."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta


def _mark(part: nn.Module | Tensor) -> tuple[int, int] | None:
    if isinstance(part, nn.Module):
        return None
    # A tensor that was made in inference mode counts no versions.
    return part.data_ptr() if _is_plain(part) else 0, 0 if part.is_inference() else part._version
