"""What each of the three trainings is set to: our defaults, then the recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import HubertModel
from transformers.integrations import is_mlflow_available, is_tensorboard_available, is_wandb_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..data.labels import maps_of
from ..errors import RequestError, known_names
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.encoding_gmp_atl import GMPATLModel
from ..modeling.modeling_gmp_atl import (
    GMPATLEmotionModel,
    GMPATLPreTrainedModel,
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from ..pseudo_labels.averaging import averaging_radii
from ..recipe.method import Method
from ..recipe.sections import StageName
from ..training.argument_errors import explained, refuse_unknown_words
from ..training.arguments import GMPATLTrainingArguments
from ..training.checks import check_training_arguments, refuse_other_speeds
from ..training.joint import HubertForGMPATLJoint
from ..training.lora import refuse_missing_peft, target_layers
from ..training.optimizer_checks import refuse_unusable_optimizer
from ..training.speaker_normalization import refuse_checkpoints_within_epochs
from ..training.top_layers import refuse_trained_layers
from .defaults import default_arguments, default_model_fields

MODEL_CLASSES: Mapping[StageName, type[GMPATLPreTrainedModel]] = {
    "multitask": HubertForGMPATLMultiTask,
    "retrain": HubertForGMPATLFrameClassification,
    "finetune": HubertForGMPATL,
}

TRACKERS: Mapping[str, Callable[[], bool]] = {
    "tensorboard": is_tensorboard_available,
    "wandb": is_wandb_available,
    "mlflow": is_mlflow_available,
}
"""Trackers whose absence is told before anything is read."""


def stage_arguments(method: Method, stage: StageName) -> dict[str, Any]:
    """`GMPATLTrainingArguments` fields of a stage as JSON types, without what belongs to one fold."""
    own = getattr(method.stages, stage)
    data: dict[str, Any] = {"max_seconds": method.data.max_seconds}
    if stage != "retrain" and method.data.augment != "none":  # frame labels are those of the clip as it was recorded
        data["augment"] = method.data.augment
    defaults = default_arguments(stage, method.backbone, lora=own.lora is not None)
    return _plain({**defaults, **data, **own.arguments})


def learns_frame_labels(method: Method, stage: StageName) -> bool:
    """Whether a stage has frame labels to learn."""
    return stage == "retrain" or (stage == "finetune" and method.joint)


def model_class_of(method: Method, stage: StageName) -> type[GMPATLPreTrainedModel]:
    """The model that a stage trains."""
    return HubertForGMPATLJoint if stage == "finetune" and method.joint else MODEL_CLASSES[stage]


def without_trackers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of training arguments a result depends on: who is told of it, and under which name, is no part of a key."""
    return {
        name: {stage: without_trackers(each) for stage, each in value.items()} if name == "same_updates_as" else value
        for name, value in arguments.items()
        if name not in ("report_to", "run_name")
    }


def stage_model_fields(
    method: Method, stage: StageName, labels: list[str], scales: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """`GMPATLConfig` fields of a stage's model as JSON types, on top of the backbone's own.

    Args:
        method: A variant's method.
        stage: Which training.
        labels: Emotions in the table's order.
        scales: Pseudo-label column → clusters, where the stage learns frame labels.
    """
    common = dict(method.model)
    if stage == "retrain":
        # A recipe that turns SpecAugment down does not mean the masks whose frames retraining has to predict.
        common = {name: value for name, value in common.items() if name not in MODEL_CLASSES[stage].method_defaults}
    if stage != "finetune":
        common.pop("frame_weight", None)  # the weight of a loss that they do not have
    defaults = {**default_model_fields(method.backbone), **MODEL_CLASSES[stage].method_defaults}
    fields = {**defaults, **common, **getattr(method.stages, stage).model}
    # Losses know no temperature, and one that a checkpoint was calibrated to is not that of its successor.
    fields["logit_temperature"] = 1.0
    fields |= maps_of(labels)
    if learns_frame_labels(method, stage):
        fields["frame_scales"] = dict(scales or {})
    return _plain(fields)


def make_arguments(output_dir: Path, seed: int, settings: Mapping[str, Any], evaluate: bool) -> GMPATLTrainingArguments:
    """Make the arguments of one training from what `stage_arguments` gave; without an evaluation the last step is kept.

    Raises:
        RequestError: A value that transformers refuses.
    """
    fixed: dict[str, Any] = {"output_dir": str(output_dir), "seed": seed}
    if settings.get("bf16") and not torch.accelerator.is_available():
        # transformers takes bf16 for a GPU's unless told so; processors multiply such matrices too.
        fixed["use_cpu"] = True
    if not evaluate:
        fixed |= {"eval_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": None}
        fixed |= {"early_stopping_patience": None}
    refuse_missing_trackers(settings.get("report_to", "none"))
    refuse_unknown_words({**settings, **fixed})
    try:
        arguments = GMPATLTrainingArguments(**{**settings, **fixed})
        if not (arguments.bf16 or arguments.fp16):
            # Precision is part of a step's key: an environment or a launcher's default must not change it unseen.
            arguments.mixed_precision = "no"
        return arguments
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise explained(error, settings) from error


def refuse_missing_trackers(report_to: Any) -> None:
    """Refuse, by a `RequestError`, trackers that transformers does not know or that are not installed."""
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise RequestError(
                f"report_to names {name!r}", known_names(INTEGRATION_TO_CALLBACK), "report_to: tensorboard"
            )
        if name in TRACKERS and not TRACKERS[name]():
            raise RequestError(f"report_to: {name}, which is not installed", "its package", f"pip install {name}")


def backbone_fields(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """`GMPATLConfig` fields of a backbone, from what `describe_backbone` gave."""
    fields = backbone["scratch"] if "scratch" in backbone else backbone["config"]
    return {name: value for name, value in fields.items() if name not in ("model_type", "architectures")}


def check_stage_settings(method: Method, backbone: Mapping[str, Any], labels: list[str] | None) -> None:
    """Refuse stage settings that would only fail once training starts.

    Args:
        method: A variant's method.
        backbone: What `describe_backbone` gave.
        labels: Emotions in the table's order; None before the corpus is read: their number is not looked at then.

    Raises:
        RequestError: Names the stage and what does not fit.
    """
    base = backbone_fields(backbone)
    shapes = encoder_shapes(GMPATLConfig(**base))
    configs: dict[str, GMPATLConfig] = {"backbone": GMPATLConfig(**base)}
    for stage in method.stages.performed:
        try:
            config = GMPATLConfig(**{**base, **stage_model_fields(method, stage, labels or [])})
            configs[stage] = config
            _refuse_missing_layers(config, configs, method.stages.start_of(stage))
            labelled = learns_frame_labels(method, stage)
            if labelled and config.frame_targets == "masked" and not config.masks_time:
                raise ValueError("no frame would be masked, so there would be nothing to predict")
            clustered = labelled and method.pseudo_labels.control != "oracle"
            for layer in method.pseudo_labels.layers if clustered else ():
                configs[method.pseudo_labels.source].resolve_layer(layer)
            if labelled:
                averaging_radii(method.pseudo_labels.windows, config)
            if encoder_shapes(config) != shapes:
                raise ValueError("fields under `model` change the shape of the encoder, which its weights then not fit")
            arguments = make_arguments(Path("unused"), 0, stage_arguments(method, stage), evaluate=True)
            emotions = len(arguments.class_weights or ()) if labels is None else len(labels)
            check_training_arguments(arguments, stage == "retrain", emotions)
            refuse_unusable_optimizer(arguments)
            refuse_trained_layers(arguments, config, adapter=getattr(method.stages, stage).lora is not None)
            is_normalized = config.speaker_normalization != "none"
            if is_normalized and issubclass(model_class_of(method, stage), GMPATLEmotionModel):
                refuse_checkpoints_within_epochs(arguments)
            if (lora := getattr(method.stages, stage).lora) is not None:
                if stage == "finetune" and method.joint:
                    raise RequestError(
                        "`lora`, and frame_weight in its `model`",
                        "one of the two: the adapter would hold the frame heads, which the model does without",
                        "lora: null, or frame_weight: 0",
                    )
                refuse_missing_peft()
                with torch.device("meta"):  # names only, no memory and no time
                    target_layers(GMPATLModel(config), lora.target_modules)
            if labelled:
                refuse_other_speeds(arguments)
        except RequestError as error:
            raise RequestError(f"stages.{stage}: {error.found}", error.expected, error.fix) from error
        except Exception as error:  # the strict dataclass raises classes of its own for each kind of fault
            raise RequestError(
                f"stages.{stage}: {error}",
                "settings that fit the backbone",
                "see `model`, `stages` and `pseudo_labels` of the recipe",
            ) from error


def _refuse_missing_layers(config: GMPATLConfig, configs: Mapping[str, GMPATLConfig], start: str) -> None:
    """What a model does not read is not in it, so that nobody who needs more can begin from it."""
    before = configs[start]
    if config.depth > before.depth or (config.readout == "last" and before.readout != "last"):
        raise ValueError(
            f"readout is {config.readout!r}, and it begins from {start}, whose readout {before.readout!r} leaves out "
            "what comes after; write the same readout for both"
        )


def encoder_shapes(config: GMPATLConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of HuBERT's weights, by their names."""
    with torch.device("meta"):  # shapes only, no memory and no time
        tensors = HubertModel(config).state_dict()
    # Left out by HubertModel where nothing is masked, and made by our models when they need it.
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != "masked_spec_embed"}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
