"""Parameters in training: their precision, and groups of them with a learning rate of their own."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..modeling.encoding_gmp_atl import GMPATLModel
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


def decay_by_layer(optimizer: torch.optim.Optimizer, hubert: GMPATLModel, decay: float) -> None:
    """Multiply the rate of each transformer layer by `decay` for each layer above it, and of all below once more."""
    encoder: Any = hubert.encoder
    above = [] if hubert.config.do_stable_layer_norm else encoder.layer_norm.parameters()
    below = {id(each) for name, each in hubert.named_parameters() if not name.startswith("encoder.")}
    below |= {id(each) for each in (*encoder.pos_conv_embed.parameters(), *above)}
    below -= {id(getattr(hubert, "layer_weights", None))}
    chosen = [below, *({id(each) for each in layer.parameters()} for layer in encoder.layers)]
    for height, own in enumerate(chosen):
        factor = decay ** (len(chosen) - 1 - height)
        split_groups(optimizer, partial(_is_in, own), partial(operator.mul, factor))


def _is_in(chosen: set[int], parameter: Tensor) -> bool:
    return id(parameter) in chosen


def split_groups(
    optimizer: torch.optim.Optimizer, chosen: Callable[[Tensor], bool], rate: Callable[[float], float]
) -> None:
    """Move the chosen parameters of each group into a group of their own, whose rate follows from the group's."""
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if chosen(parameter)]
        if own:
            group["params"] = [parameter for parameter in group["params"] if not chosen(parameter)]
            optimizer.add_param_group({**group, "params": own, "lr": rate(group["lr"])})
