"""What can be wrong between a table and a model, found before training starts."""

from __future__ import annotations

import dataclasses
import warnings

import datasets
import torch

from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GENDERS, GMPATLPreTrainedModel
from .arguments import GMPATLTrainingArguments
from .attention import has_quick_bfloat16

NEEDED = {
    "audio": "the encoded recording, `datasets.Audio(decode=False)`",
    "num_samples": "the clip's length in samples at 16 kHz",
    "emotion": "the emotion, `datasets.ClassLabel`",
}


UNUSED_ARGUMENTS = {
    "label_smoothing_factor": "am_softmax_scale and am_softmax_margin of `model` shape the loss",
    "dataloader_drop_last": "every clip is trained on in every epoch",
    "train_sampling_strategy": "batch_seconds makes batches of clips of like length",
}
"""Arguments that would change the numbers of transformers' Trainer, which ours does not look at; and what it has."""


def check_training_arguments(arguments: GMPATLTrainingArguments, frame_labels: bool, emotions: int) -> None:
    """Refuse settings that do not go with what is trained, and warn of those that cannot be meant.

    Args:
        arguments: The settings.
        frame_labels: Whether frame labels are predicted rather than emotions.
        emotions: Number of emotions.

    Raises:
        RequestError: An argument that this trainer does not look at, early stopping or augmentation on frame labels, or
            class weights for another number of emotions.
    """
    for each in dataclasses.fields(arguments):
        value = getattr(arguments, each.name)
        if each.name in UNUSED_ARGUMENTS and value != each.default:
            raise RequestError(
                f"{each.name} is {value!r}, which this trainer does not look at",
                f"its default, {each.default!r}",
                f"leave it out: {UNUSED_ARGUMENTS[each.name]}",
            )
    if frame_labels and arguments.early_stopping_patience is not None:
        raise RequestError(
            f"early_stopping_patience is {arguments.early_stopping_patience} for training on frame labels",
            "none: frame labels have no UAR to stop by, the last step is kept",
            "remove it, and choose the length by num_train_epochs or max_steps",
        )
    if frame_labels and arguments.augment == "speed":
        raise RequestError(
            f"augment is {arguments.augment} for training on frame labels",
            "none: labels belong to the frames of the clip as it was recorded",
            "leave it to the other trainings: data.augment does",
        )
    weights = arguments.class_weights
    if not frame_labels and isinstance(weights, (list, tuple)) and len(weights) != emotions:
        raise RequestError(
            f"class_weights has {len(weights)} numbers for {emotions} emotions",
            "one weight per emotion, in label order",
            "class_weights: balanced",
        )
    if arguments.bf16 and arguments.device.type == "cpu" and not has_quick_bfloat16():
        warnings.warn(
            "bf16 is true, but torch has no quick bfloat16 for this processor: a training step takes tens of times as "
            "long as in float32. Set bf16: false, or train on a GPU",
            stacklevel=2,
        )


def train_in_float32(model: GMPATLPreTrainedModel) -> None:
    """Make parameters float32: transformers loads them as they are stored, and small updates vanish in half precision.

    Args:
        model: The model to be trained, changed in place.
    """
    half = {str(each.dtype) for each in model.parameters() if each.dtype in (torch.float16, torch.bfloat16)}
    if half:
        warnings.warn(
            f"the model's parameters are {' and '.join(sorted(half))}; they are trained in float32. Load it with "
            "dtype=torch.float32; bf16: true among the training arguments is what saves time",
            stacklevel=3,
        )
        model.float()  # type: ignore[no-untyped-call]


def check_training_table(table: datasets.Dataset, model: GMPATLPreTrainedModel) -> None:
    """Refuse a table that the model cannot be trained or evaluated on.

    Args:
        table: The table.
        model: The model; its configuration names labels and scales.

    Raises:
        RequestError: A needed column is missing, the table is empty, or labels and model disagree.
    """
    needed = dict(NEEDED)
    scales: dict[str, int] = {}
    if "labels" not in model.target_names:
        del needed["emotion"]
        scales = model.config.frame_scales or {}
        if not scales:
            raise RequestError(
                "the model has no frame_scales, so there are no frame labels to predict",
                "at least one pseudo-label column and its number of clusters",
                'give it when loading: frame_scales={"gmp_layer10_k50": 50}',
            )
        needed |= {name: f"one pseudo-label of {clusters} per frame" for name, clusters in scales.items()}
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise RequestError(
            f"the table has no column {', '.join(missing)}; it has {', '.join(table.column_names)}",
            "; ".join(f"{name}: {needed[name]}" for name in missing),
            "attach_pseudo_labels(...) adds the gmp_* columns" if scales else "rename or add the column",
        )
    if len(table) == 0:
        raise RequestError("the table has no rows", "at least one recording", "look at what was left out of the corpus")
    if "labels" in model.target_names:
        names = getattr(table.features["emotion"], "names", None)
        known = list((model.config.id2label or {}).values())
        if names != known:
            raise RequestError(
                f"the table's emotions are {names}, the model's are {known}",
                "the same names in the same order",
                "load the model with id2label and label2id of the table, or map the table's labels",
            )
    if "gender_labels" in model.target_names and "gender" in table.column_names:
        names = getattr(table.features["gender"], "names", None)
        if names != list(GENDERS):
            raise RequestError(
                f"the table's genders are {names}",
                f"a ClassLabel of {', '.join(GENDERS)} in this order, None where not known",
                "map the column, or remove it",
            )
