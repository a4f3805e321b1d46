"""Training the top of the encoder alone: what is below gives the same in every epoch, so it is computed once.

Fine-tuning the last three layers of an encoder was published to be as accurate as fine-tuning all of them (arXiv
2503.03756). Below those, states of whole clips are kept on disk in half precision for as long as the training goes on;
pieces of clips are cut out of them, so that their first layers have heard what comes before and after.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..batching.feature_cache import FrontEndCache
from ..batching.layer_states import LowestLayers
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .arguments import GMPATLTrainingArguments

FOLDER = "_layer-states"
"""Folder of the states inside an output folder, while a training goes on; the underscore keeps it off the Hub."""


def refuse_trained_layers(args: GMPATLTrainingArguments, config: GMPATLConfig, adapter: bool = False) -> None:
    """Refuse a number of layers to train that the encoder does not have, or that another setting contradicts.

    Raises:
        RequestError: Says which.
    """
    count = args.trained_layers
    if count is None:
        return
    if count > config.depth:
        raise RequestError(
            f"trained_layers is {count}, and the model has {config.depth} transformer layers{_of(config)}",
            f"0 to {config.depth}, counted from the top",
            "leave it out to train the whole encoder",
        )
    if args.freeze_encoder or adapter or not args.freeze_feature_encoder:
        other = "freeze_encoder is true" if args.freeze_encoder else "the front end is trained"
        raise RequestError(
            f"trained_layers is {count}, and {'there is an adapter' if adapter else other}",
            "one of the two: trained_layers says which part of the encoder is trained, and the rest is frozen",
            "leave one of them out",
        )


def _of(config: GMPATLConfig) -> str:
    return f": what is above readout {config.readout} is left out" if config.depth < config.num_hidden_layers else ""


def train_top_layers(model: GMPATLPreTrainedModel, count: int) -> None:
    """Freeze the encoder but for its `count` highest layers, and the norm behind them where there is one."""
    model.freeze_encoder()
    encoder: Any = model.hubert.encoder
    layers = list(encoder.layers)
    trained = layers[len(layers) - count :]
    if count and model.config.do_stable_layer_norm:
        trained.append(encoder.layer_norm)
    for module in trained:
        for parameter in module.parameters():
            parameter.requires_grad = True


def why_not_kept(model: GMPATLPreTrainedModel) -> str | None:
    """What a training of the top layers does below them that is another thing every time; None if there is nothing."""
    config = model.config
    if "frame_labels" in model.target_names:
        return "frames with labels are masked below them"
    if config.masks_time or config.masks_channels:
        return "the model masks frames or channels below them (mask_time_prob and mask_feature_prob: 0 would not)"
    if config.layerdrop:
        return f"layers are left out at random (layerdrop is {config.layerdrop:g})"
    if config.readout == "sum":
        return "readout is 'sum', of all layers"
    if model.hubert.family.encodes_more:
        return f"layers of {model.hubert.family.name} also work on what comes after a clip"
    return None


def states_below(
    model: GMPATLPreTrainedModel, args: GMPATLTrainingArguments, feature_extractor: Any
) -> FrontEndCache | None:
    """States below the trained layers, to be kept in the output folder; None, with a warning, where they cannot be."""
    if args.trained_layers is None or (kept := len(model.hubert.encoder.layers) - args.trained_layers) == 0:
        return None
    if (reason := why_not_kept(model)) is not None:
        warn_not_kept(args, reason)
        return None
    front_end = LowestLayers(model, feature_extractor, kept)
    return FrontEndCache(_folder(args), model, feature_extractor, front_end)


def warn_not_kept(args: GMPATLTrainingArguments, reason: str) -> None:
    """Say that a training of the top layers computes those below in every epoch, and why."""
    if args.trained_layers is not None:
        warnings.warn(
            f"trained_layers is {args.trained_layers}; what is below is computed in every epoch, not once: {reason}",
            stacklevel=2,
        )


class KeepsStates(Protocol):
    """The trainer, as far as it is needed here.

    Attributes:
        args: Its settings.
        accelerator: Its processes.
        keeps_states: Whether a training goes on, below whose trained layers nothing changes.
    """

    args: GMPATLTrainingArguments
    accelerator: Any
    keeps_states: bool

    def is_world_process_zero(self) -> bool:
        """Whether this process is the first of all."""


@contextmanager
def keep_states(trainer: KeepsStates) -> Iterator[None]:
    """Let a trainer keep the states below its trained layers; what was kept is deleted when the training is finished.

    The layers of another training are others. After a training that was broken off, its resumption finds them.
    """
    trainer.keeps_states = True
    try:
        yield
    finally:
        trainer.keeps_states = False
    trainer.accelerator.wait_for_everyone()
    if trainer.args.trained_layers is not None and trainer.is_world_process_zero():
        shutil.rmtree(_folder(trainer.args), ignore_errors=True)


def _folder(args: GMPATLTrainingArguments) -> Path:
    return Path(args.output_dir or ".", FOLDER)
