"""Refuse recipes whose parts contradict each other or name what does not exist, before any work starts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import Any, NamedTuple

from ..data.scale_names import refuse_odd_windows
from ..errors import RequestError, did_you_mean, known_names
from ..protocols.settings import ProtocolSettings
from ..ranges import refuse_absurd_numbers
from .convert import IN_WORDS, describe
from .sections import STAGE_NAMES, CorpusSpec, PseudoLabelSpec, StagesSpec

FOLDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
"""Names that may name a folder of a run."""

_BEST = "leave it out: the best epoch is the one with the highest eval_uar"
RUN_OWNED: Mapping[str, str] = {
    "output_dir": "give --output-dir to the command",
    "seed": "use `seeds` at the top of the recipe",
    "data_seed": "use `seeds` at the top of the recipe",
    "do_train": "use `skip` to leave a stage out",
    "do_eval": "leave it out: development speakers come from `protocol`",
    "do_predict": "leave it out: test speakers come from `protocol`",
    "resume_from_checkpoint": "leave it out: running the same command again continues where it stopped",
    "restore_callback_states_from_checkpoint": "leave it out: a continued training must equal an undisturbed one",
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    "remove_unused_columns": "leave it out: the collator needs every column",
    "label_names": "leave it out: the stage decides which labels it needs",
    "push_to_hub": "leave it out: an unfinished stage is never published",
}
"""Training arguments that the run sets itself, and what to write instead."""

_FROM_LABELS = "leave it out: it follows from the corpus and `labels`"
MODEL_OWNED: Mapping[str, str] = {
    "num_labels": _FROM_LABELS,
    "id2label": _FROM_LABELS,
    "label2id": _FROM_LABELS,
    "frame_scales": "use `pseudo_labels.layers` and `pseudo_labels.clusters`",
    "logit_temperature": "leave it out: it is fitted on development speakers",
    "seen_speakers": "leave it out: the run records whom a model was trained on",
    "architectures": "leave it out: the stage decides which model it trains",
    "transformers_version": "leave it out: saving a model writes it",
}
"""Configuration fields that the run sets itself, and what to write instead."""

_OTHER_HEADS = "leave it out: it is for speech recognition, or for transformers' own classifier"
MODEL_UNUSED: Mapping[str, str] = {
    "use_weighted_layer_sum": "use `readout: sum`",
    "classifier_proj_size": _OTHER_HEADS,
    "ctc_loss_reduction": _OTHER_HEADS,
    "ctc_zero_infinity": _OTHER_HEADS,
}
"""Configuration fields that a checkpoint may have and that none of our models looks at."""

_PLAIN_KINDS = {"None" if kind is NoneType else kind.__name__: kind for kind in IN_WORDS}


def check_name(name: str) -> None:
    """Refuse a recipe's name that can name no folder."""
    if not FOLDER_NAME.fullmatch(name):
        expected = "lower-case letters, digits and . _ -, 100 at most (it names a folder)"
        raise RequestError(f"`name` is {describe(name)}", expected)


def check_corpora(
    protocol: ProtocolSettings, corpora: Sequence[CorpusSpec], labels: Mapping[str, str | None] | None
) -> None:
    """Refuse a protocol across corpora that names none of the recipe's, and guessed labels across corpora.

    Raises:
        RequestError: Says what to write instead.
    """
    if protocol.kind != "cross-corpus":
        return
    names = [str(corpus.options.get("corpus_name") or corpus.name) for corpus in corpora]
    if protocol.test_corpora is None:
        raise RequestError(
            "`protocol.kind` is cross-corpus, and `protocol.test` is missing",
            f"the corpora to test on: one or more of {', '.join(names)}",
            f"protocol: {{kind: cross-corpus, test: [{names[-1]}]}}",
        )
    from ..data.corpora.from_file import is_corpus_file

    # A corpus in a Python file has the name that the file gives it; whether it is there is seen once it is read.
    in_files = any(is_corpus_file(name) for name in names)
    for name in (*(protocol.train_corpora or ()), *protocol.test_corpora):
        if name not in names and not in_files:
            raise RequestError(
                f"`protocol` names the corpus {name!r}", f"{known_names(names)} of `corpus`", did_you_mean(name, names)
            )
    without = [n for n, corpus in zip(names, corpora, strict=True) if corpus.options.get("labels") is None]
    if labels is None and without:
        raise RequestError(
            f"cross-corpus without a label map for {without[0]}",
            "an explicit map: corpora call the same emotion by different names, and different ones by the same",
            "labels: {happiness: happy, joy: happy, boredom: null, …} for all corpora, or `labels` in each corpus",
        )


def check_coherence(
    stages: StagesSpec, pseudo_labels: PseudoLabelSpec, backbone: str | Mapping[str, Any], labelled: bool
) -> None:
    """Refuse stages that contradict each other; `labelled` where a training has frame labels to learn.

    Raises:
        RequestError: With the settings that do not go together, and what to write instead.
    """
    if not stages.performed:
        raise RequestError(
            "all three stages have `skip: true`", "at least one training", "stages: {finetune: {skip: false}}"
        )
    for name in ("multitask", "retrain"):
        if getattr(stages, name).same_updates_as_all:
            raise RequestError(
                f"`stages.{name}.same_updates_as_all` is true", "it at `stages.finetune` only", "remove it there"
            )
        if "frame_weight" in getattr(stages, name).model:
            raise RequestError(
                f"`stages.{name}.model.frame_weight` is set, where there is no second loss",
                "it at `stages.finetune.model` only",
                "remove it there",
            )
    _check_starts(stages)
    _check_lora(stages)
    if not labelled:
        return
    refuse_odd_windows(pseudo_labels.windows)
    if pseudo_labels.control != "oracle" and pseudo_labels.source == "multitask" and stages.multitask.skip:
        raise RequestError(
            "`pseudo_labels.source` is multitask, and `stages.multitask` has `skip: true`",
            "a model that exists to take the pseudo-labels from",
            "pseudo_labels: {source: backbone}",
        )
    if isinstance(backbone, Mapping):
        _check_layers(pseudo_labels.layers, backbone)


def check_replay(stages: StagesSpec, pseudo_labels: PseudoLabelSpec, asked: bool) -> None:
    """Refuse plain speech that nobody would hear, where a variant itself has `asked` for it, or that has no labels.

    Raises:
        RequestError: With the settings that do not go together, and what to write instead.
    """
    if stages.retrain.skip:
        if asked:
            raise RequestError(
                "`replay` is set, and `stages.retrain` has `skip: true`",
                "a retraining, which alone hears plain speech",
                "remove `replay` there, or perform the retraining",
            )
    elif pseudo_labels.control == "oracle":
        raise RequestError(
            "`replay` is set, and `pseudo_labels.control` is oracle: plain speech has no emotion to be labelled with",
            "frame labels from clusters for what has no emotion",
            "{name: oracle, base: oracle-labels, set: {replay: null}}",
        )


def _check_starts(stages: StagesSpec) -> None:
    performed, skipped = ["backbone"], []
    for name in STAGE_NAMES:
        stage = getattr(stages, name)
        if stage.skip:
            skipped.append(name)
            continue
        if stage.start not in ("auto", *performed):
            why = "which `skip: true` leaves out" if stage.start in skipped else "which does not come before it"
            raise RequestError(
                f"`stages.{name}.start` is {stage.start}, {why}",
                known_names(["auto", *performed]),
                f"stages: {{{name}: {{start: auto}}}}",
            )
        if stage.start_weight != 1 and stages.start_of(name) == "backbone":
            raise RequestError(
                f"`stages.{name}.start_weight` is {stage.start_weight:g}, and the stage starts from the backbone",
                "a start that an earlier stage has trained, towards which the weight leads from the backbone",
                f"remove it from `stages.{name}`, or give the stage another `start`",
            )
        performed.append(name)


def _check_lora(stages: StagesSpec) -> None:
    """Refuse what would not happen beside adapters, or what they would not belong to."""
    for name in stages.performed:
        stage = getattr(stages, name)
        if stage.lora is None:
            continue
        for setting, usual in (("freeze_encoder", False), ("freeze_feature_encoder", True)):
            if stage.arguments.get(setting, usual) is not usual:
                raise RequestError(
                    f"`stages.{name}` has `lora`, and `{setting}` is {str(stage.arguments[setting]).lower()}",
                    "adapters, which leave the encoder as it is but are trained themselves",
                    f"remove `{setting}`, or set `stages.{name}.lora: null`",
                )
        if stage.start_weight != 1:
            raise RequestError(
                f"`stages.{name}` has `lora`, and `start_weight` is {stage.start_weight:g}",
                "a start that is kept somewhere: an adapter belongs to the weights that it was trained on",
                "remove one of them",
            )


def _check_layers(layers: Sequence[int], backbone: Mapping[str, Any]) -> None:
    """Only a backbone from scratch says here how deep it is; of others the run finds out when it reads them."""
    depth = backbone.get("num_hidden_layers", 12)
    if not isinstance(depth, int):
        return  # refused by `check_field_names`
    seen: dict[int, int] = {}
    for layer in layers:
        resolved = layer if layer > 0 else depth + 1 + layer
        if not 1 <= resolved <= depth:
            raise RequestError(
                f"`pseudo_labels.layers` has {layer}, and the backbone has {depth} transformer layers",
                f"1 to {depth}, or -1 (the last) to -{depth}",
            )
        if resolved in seen:
            raise RequestError(
                f"`pseudo_labels.layers` has {seen[resolved]} and {layer}, the same one of {depth} layers",
                "each layer once",
                "remove one of them",
            )
        seen[resolved] = layer


class KnownFields(NamedTuple):
    """What a mapping of the recipe may hold.

    Args:
        kinds: Name to type annotation.
        owned: Names that the run sets itself, and what to write instead.
        own_keys: Further keys of the same mapping, for suggestions.
        elsewhere: Names that belong to another mapping, and which.
        unused: Names that would change nothing, and what to write instead.
    """

    kinds: Mapping[str, Any]
    owned: Mapping[str, str]
    own_keys: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = {}
    unused: Mapping[str, str] = {}


def check_field_names(backbone: str | Mapping[str, Any], model: Mapping[str, Any], stages: StagesSpec) -> None:
    """Refuse unknown names, and plainly wrong kinds, where a recipe passes names on to transformers.

    Raises:
        RequestError: With the nearest right name, or what to write instead of a field that the run sets itself.
    """
    known_backbone, known_model, known_arguments = known_fields()
    if isinstance(backbone, Mapping):
        check_names(backbone, "`backbone`", known_backbone)
    check_names(model, "`model`", known_model)
    for name in STAGE_NAMES:
        stage = getattr(stages, name)
        check_names(stage.model, f"`stages.{name}.model`", known_model)
        check_names(stage.arguments, f"`stages.{name}`", known_arguments)


@cache
def known_fields() -> tuple[KnownFields, KnownFields, KnownFields]:
    """Fields of a backbone, of a model, and of a stage's arguments."""
    # Imported here: reading a recipe must not load torch.
    from transformers import HubertConfig

    from ..modeling.configuration_gmp_atl import GMPATLConfig
    from ..training.arguments import GMPATLTrainingArguments

    hubert, model, arguments = map(_annotations, (HubertConfig, GMPATLConfig, GMPATLTrainingArguments))
    known_stage = ("skip", "start", "start_weight", "lora", "model", "same_updates_as_all")
    in_model = dict.fromkeys(set(model) - set(hubert), "`model`")
    stage_elsewhere = {name: "`model`, of the recipe or of this stage" for name in model if name not in arguments}
    # In every checkpoint's configuration, and derived.
    stored = {"model_type": str, "num_feat_extract_layers": int}
    known_backbone = KnownFields({**hubert, **stored}, MODEL_OWNED, elsewhere=in_model)
    known_model = KnownFields(
        model, MODEL_OWNED, elsewhere={n: "a stage" for n in arguments if n not in model}, unused=MODEL_UNUSED
    )
    return known_backbone, known_model, KnownFields(arguments, RUN_OWNED, known_stage, stage_elsewhere)


def _annotations(cls: Any) -> dict[str, Any]:
    # As they are written: `HfArgumentParser` replaces the types of the fields, `float | None` by `float`.
    written: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        written |= inspect.get_annotations(base)
    return {item.name: written[item.name] for item in fields(cls) if item.init and not item.name.startswith("_")}


_USUAL = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "warmup": "warmup_steps",
    "scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "patience": "early_stopping_patience",
    "accumulation": "gradient_accumulation_steps",
}
"""What arguments are called elsewhere."""


def check_names(mapping: Mapping[str, Any], where: str, known: KnownFields) -> None:
    """Refuse names, kinds and numbers that a mapping of a recipe cannot hold."""
    for name, value in mapping.items():
        if name in known.owned:
            raise RequestError(f"{where} sets `{name}`, which the run sets itself", fix=known.owned[name])
        if name in known.unused:
            raise RequestError(f"{where} sets `{name}`, which no GMP-ATL model uses", fix=known.unused[name])
        if name not in known.kinds:
            fix = f"it belongs to {known.elsewhere[name]}" if name in known.elsewhere else None
            if (usual := _USUAL.get(str(name).lower())) in known.kinds:
                fix = fix or f"did you mean `{usual}`?"
            candidates = [*known.own_keys, *(n for n in known.kinds if n not in known.owned)]
            raise RequestError(
                f"unknown key `{name}` in {where}",
                "a field of "
                + ("GMPATLTrainingArguments" if "learning_rate" in known.kinds else "the model's configuration"),
                fix or did_you_mean(name, [*candidates, *known.elsewhere]),
            )
        _check_kind(value, known.kinds[name], f"{where} has `{name}`, which is")
    refuse_absurd_numbers(mapping, where)


def _check_kind(value: Any, hint: Any, what: str) -> None:
    """Refuse a value of another kind; hints that are not made of plain kinds are left to transformers."""
    kinds = (hint.__name__ if isinstance(hint, type) else str(hint)).split(" | ")
    if "float" in kinds:
        kinds = ["float", *(kind for kind in kinds if kind not in ("float", "int"))]
    if not all(kind in _PLAIN_KINDS for kind in kinds):
        return
    allowed = [_PLAIN_KINDS[kind] for kind in kinds]
    given = float if type(value) is int and float in allowed else type(value)
    if given not in allowed:
        raise RequestError(f"{what} {describe(value)}", " or ".join(IN_WORDS[kind] for kind in allowed))
