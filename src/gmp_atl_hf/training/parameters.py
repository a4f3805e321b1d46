"""Parameters in training: their precision, and groups of them with a learning rate of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel


def train_in_float32(model: GMPATLPreTrainedModel) -> None:
    """Make parameters float32: they are loaded as they are stored, and small updates vanish in half precision."""
    half = {str(each.dtype) for each in model.parameters() if each.dtype in (torch.float16, torch.bfloat16)}
    if half:
        warnings.warn(
            f"the model's parameters are {' and '.join(sorted(half))}; they are trained in float32. Load it with "
            "dtype=torch.float32; bf16: true among the training arguments is what saves time",
            stacklevel=3,
        )
        model.float()  # type: ignore[no-untyped-call]


def split_groups(
    optimizer: torch.optim.Optimizer, chosen: Callable[[Tensor], bool], rate: Callable[[float], float]
) -> None:
    """Move the chosen parameters of each group into a group of their own, whose rate follows from the group's."""
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if chosen(parameter)]
        if own:
            group["params"] = [parameter for parameter in group["params"] if not chosen(parameter)]
            optimizer.add_param_group({**group, "params": own, "lr": rate(group["lr"])})
