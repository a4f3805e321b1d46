"""What can be wrong between a table and a model, found before training starts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from accelerate.utils import parse_flag_from_env
from transformers import Trainer
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import HubStrategy

from ..data.audio import SAMPLING_RATE
from ..data.spelling import first_few
from ..data.table_values import (
    CLIPS,
    emotions_of_table,
    plain,
    refuse_missing_columns,
    refuse_no_feature_extractor,
    refuse_other_tables,
    refuse_other_text,
    refuse_unusable_emotions,
    refuse_unusable_genders,
    refuse_unusable_lengths,
)
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.families_gmp_atl import longest_samples
from ..modeling.modeling_gmp_atl import GMPATLEmotionModel, GMPATLPreTrainedModel
from .arguments import UARS, GMPATLTrainingArguments
from .bfloat16_on_cpu import has_native_bfloat16
from .figures import figure_names
from .table_values import refuse_unusable_frame_labels

_SEARCH = "make a new model and trainer for each setting, or let the recipe's `search` do it"
_BATCHES = "batches are dealt to processes so that losses do not depend on their number"
UNUSED_PARAMETERS = {
    "model_init": _SEARCH,
    "hyperparameter_search": _SEARCH,
    "compute_loss_func": "emotion_loss of the model and class_weights choose the loss, or override compute_loss",
}
"""What transformers' Trainer has and ours does not; and what to use instead."""

UNUSED_ARGUMENTS = {
    "label_smoothing_factor": "am_softmax_scale and am_softmax_margin of `model` shape the loss",
    "average_tokens_across_devices": "counts are always those of all devices",
    "dataloader_drop_last": "every clip is trained on in every epoch",
    "dataloader_in_order": "a step is made of certain batches",
    "train_sampling_strategy": "batch_seconds makes batches of clips of like length",
    "length_column_name": "lengths are those of the column num_samples",
    "include_num_input_tokens_seen": "the column num_samples says how much is trained on",
    "include_for_metrics": "compute_metrics gets logits and labels; predict() gives them in the order of the table",
    "batch_eval_metrics": "figures such as UAR are those of the whole table",
    "eval_do_concat_batches": "figures such as UAR are those of the whole table",
    "prediction_loss_only": "an evaluation always has all figures",
    "label_names": "the model says which columns are its labels",
    "neftune_noise_alpha": "there are no embeddings of tokens; augment and the model's masks vary what the model gets",
    "use_liger_kernel": "it has no kernels for HuBERT",
    "liger_kernel_config": "it has no kernels for HuBERT",
    "use_cache": "nothing is generated",
    "parallelism_config": "each process holds the whole model, or use deepspeed or fsdp",
}
"""Arguments of transformers that ours does not look at; and why, or what it has."""

UNUSED_ACCELERATION = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler")
"""Fields of `accelerator_config` about batches, which are not Accelerate's here."""

SUPPORTED_PUSHES = ("end", "every_save")
"""`hub_strategy` without files to resume from, which are pickles."""


def base_of(model: Any) -> GMPATLPreTrainedModel:
    """Give the model of ours inside what PEFT or torch.compile have wrapped around it, or a `RequestError`."""
    inner = getattr(model, "_orig_mod", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    if not isinstance(inner, GMPATLPreTrainedModel):
        raise RequestError(
            f"model is {'None' if model is None else 'a ' + type(inner).__name__}",
            "HubertForGMPATL, HubertForGMPATLMultiTask or HubertForGMPATLFrameClassification, also inside a PeftModel",
            "HubertForGMPATL.from_pretrained(...) takes a HuBERT, or another encoder",
        )
    return inner


def tables_of(dataset: Any) -> dict[str, Any]:
    """Give the tables of an `eval_dataset` by name, `""` for one that has none."""
    if dataset is None:
        return {}
    return dict(dataset) if isinstance(dataset, dict) else {"": dataset}


def plain_tables(dataset: Any) -> Any:
    """An `eval_dataset` with each of its tables as it is stored, see `plain`."""
    return {name: plain(table) for name, table in dataset.items()} if isinstance(dataset, dict) else plain(dataset)


def is_sharded(trainer: Trainer) -> bool:
    """Whether FSDP or DeepSpeed cuts tensors up, so that no process has the whole of them."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


_NEED_A_WHOLE_MODEL = {
    "average_epochs": ("its weights are averaged", "average_epochs: 0"),
    "trained_layers": ("states below the trained layers are kept", "leave it out"),
}
"""Arguments that FSDP and DeepSpeed do not go with; why, and how to do without."""


def _refuse_pieces(arguments: GMPATLTrainingArguments) -> None:
    """Refuse what needs a whole model where arguments or launcher let FSDP or DeepSpeed cut the weights up."""
    launched = any(parse_flag_from_env(name) for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))
    if not (launched or arguments.fsdp or arguments.deepspeed):
        return
    for name, (why, without) in _NEED_A_WHOLE_MODEL.items():
        value = getattr(arguments, name)
        if value != getattr(GMPATLTrainingArguments, name):  # its default
            raise RequestError(
                f"{name} is {value}, under FSDP or DeepSpeed",
                f"a model that each process holds as a whole, since {why}",
                f"DistributedDataParallel (the default of `accelerate launch`), or {without}",
            )


def check_trainer(
    model: GMPATLPreTrainedModel,
    arguments: GMPATLTrainingArguments,
    train_dataset: Any,
    eval_dataset: Any,
    parameters: Mapping[str, Any],
) -> None:
    """Refuse what a trainer is given where it has no meaning here, or does not go together.

    `parameters` are all others by name, the stock trainer's among them.

    Raises:
        RequestError: Names the parameter, the argument or the column.
    """
    for table in [*([] if train_dataset is None else [train_dataset]), *tables_of(eval_dataset).values()]:
        check_training_table(table, model)
    emotions = "labels" in model.target_names
    check_training_arguments(arguments, not emotions, model.config.num_emotions)
    if "frame_labels" in model.target_names:
        refuse_other_speeds(arguments)
    given = {name for name, value in parameters.items() if value is not None}
    for name in sorted(given & UNUSED_PARAMETERS.keys()):
        raise RequestError(f"this trainer has no {name}", "a trainer without it", UNUSED_PARAMETERS[name])
    refuse_no_feature_extractor(parameters.get("processing_class"), "processing_class")
    for name in sorted(given & {"compute_metrics", "preprocess_logits_for_metrics"}):
        if not emotions:
            raise RequestError(
                f"{name} is given for training on frame labels",
                "none: it gets emotion logits, which there are none of",
                f"leave {name} out: loss and accuracy at each scale are always there",
            )
    for name in ("head_learning_rate", "layer_decay"):
        if getattr(arguments, name) is not None and any(parameters.get("optimizers") or ()):
            raise RequestError(
                f"{name} is {getattr(arguments, name)}, and an optimiser of your own is given",
                "one of the two",
                f"put the parameters into groups of your optimiser, and leave {name} out",
            )
    metric = arguments.metric_for_best_model
    if not emotions and metric in UARS:
        return  # the default, which trainings on frame labels pass by
    if metric is None or arguments.eval_strategy == "no" or "compute_metrics" in given or eval_dataset is None:
        return
    known = [f"{name}_{figure}".lstrip("_") for name in tables_of(eval_dataset) for figure in figure_names(model)]
    if metric.removeprefix("eval_") not in known:
        raise RequestError(
            f"metric_for_best_model is {metric!r}",
            f"one of {', '.join(known)}",
            f"metric_for_best_model={known[0]!r}",
        )


def check_adapter(model: Any, base: GMPATLPreTrainedModel, arguments: GMPATLTrainingArguments) -> None:
    """Refuse a training of which an adapter would not save everything, or with parts to train that are frozen.

    Raises:
        RequestError: Names what is frozen, or missing among the adapter's `modules_to_save`.
    """
    if hasattr(model, "peft_config"):
        if arguments.freeze_encoder:
            raise RequestError(
                "freeze_encoder is true, and the adapters are in the encoder: they would be frozen with it",
                "adapters that are trained; peft freezes the rest of the encoder by itself",
                "leave freeze_encoder out, or train the heads of a model without an adapter",
            )
        weights = base.hubert.layer_weights
        if weights is not None and not weights.requires_grad:
            raise RequestError(
                "readout is 'sum', and the weights of the sum are frozen, as peft freezes what is in no module",
                "weights that are trained; this trainer saves them with the adapter",
                "add_lora(model), or model.get_base_model().hubert.layer_weights.requires_grad_(True)",
            )
        saved = {name for name, module in base.named_modules() if hasattr(module, "modules_to_save")}
        if hasattr(base, "standardization") and base.config.standardize and "standardization" not in saved:
            raise RequestError(
                "standardize is true, and the adapter would not save mean and deviation of the training clips",
                "standardization among its modules_to_save",
                'LoraConfig(modules_to_save=["classifier", "standardization"], …)',
            )
    if arguments.head_epochs and isinstance(base, GMPATLEmotionModel) and not base.head_parameters():
        raise RequestError(
            f"head_epochs is {arguments.head_epochs}, and all heads are frozen",
            "a head that is trained",
            'modules_to_save=["classifier"] of an adapter, or head_epochs: 0',
        )


def check_training_arguments(arguments: GMPATLTrainingArguments, frame_labels: bool, emotions: int) -> None:
    """Refuse settings that do not go with what is trained, and warn of those that cannot be meant.

    Raises:
        RequestError: An argument that this trainer does not look at, early stopping or augmentation on frame labels,
            class weights for another number of emotions, or a model cut up that is needed whole.
    """
    for each in dataclasses.fields(arguments):
        value = getattr(arguments, each.name)
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        if each.name in UNUSED_ARGUMENTS and value != default:
            raise RequestError(
                f"{each.name} is {value!r}, which this trainer does not look at",
                f"its default, {default!r}",
                f"leave it out: {UNUSED_ARGUMENTS[each.name]}",
            )
    for name in UNUSED_ACCELERATION:
        value, default = getattr(arguments.accelerator_config, name), getattr(AcceleratorConfig(), name)
        if value != default:
            raise RequestError(
                f"accelerator_config has {name} {value!r}, which this trainer does not look at",
                f"its default, {default!r}",
                f"leave it out: {_BATCHES}",
            )
    _refuse_pieces(arguments)
    if arguments.push_to_hub and arguments.hub_strategy not in SUPPORTED_PUSHES:
        raise RequestError(
            f"hub_strategy is {str(HubStrategy(arguments.hub_strategy).value)!r}",
            f"{' or '.join(SUPPORTED_PUSHES)}: what a training resumes from is pickled, and no pickle is sent",
            "hub_strategy='every_save' sends the model of each checkpoint",
        )
    if frame_labels and arguments.early_stopping_patience is not None:
        raise RequestError(
            f"early_stopping_patience is {arguments.early_stopping_patience} for training on frame labels",
            "none: frame labels have no UAR to stop by, the last step is kept",
            "remove it, and choose the length by num_train_epochs or max_steps",
        )
    if frame_labels and arguments.head_epochs:
        raise RequestError(
            f"head_epochs is {arguments.head_epochs} for training on frame labels",
            "none: these heads read frames, not one vector for each clip",
            "leave it to the trainings on emotions",
        )
    if frame_labels:
        refuse_other_speeds(arguments)
    weights = arguments.class_weights
    if not frame_labels and isinstance(weights, (list, tuple)) and len(weights) != emotions:
        raise RequestError(
            f"class_weights has {len(weights)} numbers for {emotions} emotions",
            "one weight per emotion, in label order",
            "class_weights: balanced",
        )
    if arguments.bf16 and arguments.device.type == "cpu" and not has_native_bfloat16():
        warnings.warn(
            "bf16 is true, but torch has no quick bfloat16 for this processor: a training step takes tens of times as "
            "long as in float32. Set bf16: false, or train on a GPU",
            stacklevel=2,
        )


def refuse_other_speeds(arguments: GMPATLTrainingArguments) -> None:
    """Refuse, by a `RequestError`, clips played faster or slower where frames have labels."""
    if arguments.augment == "speed":
        raise RequestError(
            f"augment is {arguments.augment} for training on frame labels",
            "none: labels belong to the frames of the clip as it was recorded",
            "augment: none (in a recipe, under data), or model.frame_weight: 0 for a fine-tuning without frame labels",
        )


def check_training_table(table: Any, model: GMPATLPreTrainedModel, scores_alone: bool = False) -> None:
    """Refuse a table that the model cannot be trained or evaluated on.

    Args:
        table: What is to be trained or evaluated on.
        model: The model.
        scores_alone: Whether the table may do without emotions: in all of its rows, not in some.

    Raises:
        RequestError: It is no table, a needed column is missing, it is empty, labels and model disagree, or rows have
            values that cannot be used.
    """
    refuse_other_tables(table)
    needed = dict(CLIPS)
    scales: dict[str, int] = {}
    emotions = "labels" in model.target_names
    if emotions:
        needed["emotion"] = "the emotion, `datasets.ClassLabel`"
    if not emotions or "frame_labels" in model.target_names:
        scales = model.config.frame_scales or {}
        if not scales:
            raise RequestError(
                "the model has no frame_scales, so there are no frame labels to predict",
                "at least one pseudo-label column and its number of clusters",
                'give it when loading: frame_scales={"gmp_layer10_k50": 50}',
            )
        needed |= {name: f"one pseudo-label of {clusters} per frame" for name, clusters in scales.items()}
    fix = "attach_pseudo_labels(...) adds the gmp_* columns" if scales else "rename or add the column"
    refuse_missing_columns(table, needed, fix)
    if len(table) == 0:
        raise RequestError("the table has no rows", "at least one recording", "look at what was left out of the corpus")
    for name in ("id", "speaker"):
        if name in table.column_names:
            refuse_other_text(table, name)
    refuse_unusable_lengths(table)
    refuse_long_clips(table, model.config)
    if emotions:
        names = getattr(table.features["emotion"], "names", None)
        known = model.config.emotions
        if names is None:
            emotions_of_table(table)
        if names != known:
            raise RequestError(
                f"the table's emotions are {names}, the model's are {known}",
                "the same names in the same order",
                "load the model with id2label and label2id of the table, or map the table's labels",
            )
        refuse_unusable_emotions(table, known, scores_alone)
    if "gender_labels" in model.target_names and "gender" in table.column_names:
        refuse_unusable_genders(table)
    if "frame_labels" in model.target_names:
        refuse_unusable_frame_labels(table, model.config)


def refuse_long_clips(table: datasets.Dataset, config: GMPATLConfig) -> None:
    """Refuse, by a `RequestError`, clips that the encoder has no places for.

    Pieces of them would do for training, but not for tests.
    """
    most = longest_samples(config)
    if most is None:
        return
    samples = np.asarray(table["num_samples"])
    long = np.flatnonzero(samples > most).tolist()
    if long:
        ids = table["id"] if "id" in table.column_names else [f"row {row}" for row in range(len(table))]
        named = [f"{ids[row]} has {samples[row] / SAMPLING_RATE:g} s" for row in long]
        raise RequestError(
            ("" if len(long) == 1 else f"{len(long)} of {len(table)} clips are too long: ") + first_few(named),
            f"at most {most / SAMPLING_RATE:g} s, for which {config.encoder_type} encoders have places",
            "a corpus of segments (`start` and `end` of the reader `csv`), or another backbone",
        )
