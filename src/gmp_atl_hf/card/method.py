"""What the paper states and what we chose, for the settings of one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints import locate
from ..data.scale_names import SINGLE_FRAME
from ..errors import counted
from ..files import STEP_FILE, read_json
from ..modeling.configuration_gmp_atl import GMPATLConfig, layer_of
from ..modeling.families_gmp_atl import family_of
from ..pseudo_labels.codebook import PROVENANCE_FILE
from ..pseudo_labels.positions import removes_positions
from ..recipe.sections import StageName
from ..run_folder.layout import ALL_SPEAKERS, STEP_NAMES, TRAINING_FILE, RunFolder
from ..run_folder.step_folder import StepFolder
from .facts import RunFacts

ABSTRACT = "stated in the abstract"
SUMMARIES = "stated, by summaries of the paper"
OURS = "our choice"
ABLATION = "left out or changed on purpose (ablation)"
CONTROL = "a control, not the method"


class Setting(NamedTuple):
    """A row of the table: a part of the method, how it is here, and who says that it should be so."""

    part: str
    value: str
    source: str


def method_settings(facts: RunFacts) -> list[Setting]:
    """List the method's parts in their order, with their values and where each comes from.

    arXiv 2405.02151 is known by its abstract, and by third-party summaries of its text; what neither says is our
    choice.
    """
    method, config = facts.method, facts.config
    performed = method.stages.performed
    rows = [
        Setting("Encoder", _encoder(facts), ABSTRACT + "; which size is our choice"),
        _test_speakers(facts),
    ]
    if "multitask" in performed:
        weight = {**method.model, **method.stages.multitask.model}.get("emotion_weight", config.emotion_weight)
        rows.append(Setting("1. Emotion and gender trained together", "yes", ABSTRACT + " and summaries"))
        value = f"{weight:g} · emotion + {1 - weight:g} · gender, cross-entropies"
        rows.append(Setting("Weights of the two losses", value, OURS))
    else:
        rows.append(Setting("1. Emotion and gender trained together", "not done in this variant", ABLATION))
    if not facts.chosen.needs_frame_labels:
        rows.append(Setting("2. and 3. Frame labels and retraining", "not done in this variant", ABLATION))
    else:
        rows += _frame_label_settings(facts)
        rows += _retraining_settings(facts)
    rows += _finetuning_settings(facts)
    return rows + _adapter_settings(facts)


def _adapter_settings(facts: RunFacts) -> list[Setting]:
    """Which trainings left the encoder as it is and trained adapters beside its layers."""
    stages = facts.chosen.stages
    found = ((STEP_NAMES[stage], getattr(stages, stage).lora) for stage in stages.performed)
    return [
        Setting(
            f"Trained in {step}",
            f"LoRA adapters of rank {lora.r} at {', '.join(lora.target_modules)}, and the heads",
            OURS,
        )
        for step, lora in found
        if lora is not None
    ]


def _test_speakers(facts: RunFacts) -> Setting:
    if not facts.speaker_independent:
        return Setting("Test speakers", "seen in training as well, or not known", ABLATION)
    value = "never seen in training, clustering, choice of the epoch or calibration"
    return Setting("Test speakers", value, SUMMARIES)


def encoder_name(config: GMPATLConfig) -> str:
    """What people call the encoder's family."""
    return family_of(config.encoder_type).name


def _encoder(facts: RunFacts) -> str:
    config, backbone = facts.config, facts.method.backbone
    name = encoder_name(config)
    size = f"{config.depth} layers of {config.hidden_size}, {facts.parameters / 1e6:.1f} million parameters"
    # A folder's name says nothing to anyone else, and may say too much.
    known = isinstance(backbone, str) and not backbone.startswith((".", "/", "~")) and backbone.count("/") == 1
    if isinstance(backbone, str) and locate(backbone) != backbone:
        source = "which comes with the package gmp_atl_hf (CC BY 4.0; its card there names whose speech it is made of)"
        return f"{name}, {size}, from `{backbone}`, {source}"
    if isinstance(backbone, Mapping):
        return f"{name}, {size}, from scratch (no pre-training)"
    return f"{name}, {size}, from {f'`{backbone}`' if known else 'a checkpoint'}"


def _retraining_settings(facts: RunFacts) -> list[Setting]:
    part = f"3. {encoder_name(facts.config)} retrained on the frame labels"
    if facts.method.stages.retrain.skip:
        return [Setting(part, "not done in this variant", ABLATION)]
    return [
        Setting(part, "cross-entropy, summed over scales", SUMMARIES),
        _start(facts, "retrain", "Retraining starts from", stated="backbone"),
        Setting("Frames that count in retraining", _frame_targets(facts, "retrain"), OURS),
        *_replay(facts),
    ]


def _replay(facts: RunFacts) -> list[Setting]:
    """How much plain speech this very model was retrained on as well."""
    if facts.chosen.replay is None:
        return []
    heard = read_json(_step_of(facts, "retrain") / TRAINING_FILE)["replay"]
    size = f"{counted(heard['recordings'], 'recording')}, {heard['hours']:.3g} hours"
    value = f"{size}, without emotions, labelled by these clusters"
    return [Setting("Plain speech beside the training clips in retraining", value, OURS)]


def _step_of(facts: RunFacts, stage: str) -> Path:
    """The folder of a step of this very model, also where another variant performed it."""
    fold = ALL_SPEAKERS if facts.cross_validated else facts.summary["per_fold"][0]["fold"]
    return StepFolder(RunFolder(facts.folder).fold(facts.variant, facts.seed, fold).step(stage), {}).resolve()


def _places_removed(facts: RunFacts) -> bool:
    """Whether frames were clustered without their places' means; runs of an earlier version kept them everywhere."""
    if not removes_positions(facts.method.pseudo_labels.positions, facts.config):
        return False
    return "positions" in read_json(_step_of(facts, "pseudo-labels") / PROVENANCE_FILE)


def _frame_targets(facts: RunFacts, stage: StageName) -> str:
    method = facts.chosen
    fields: Mapping[str, Any] = {**method.model, **getattr(method.stages, stage).model}
    return "masked ones" if fields.get("frame_targets", facts.config.frame_targets) == "masked" else "all"


def _frame_label_settings(facts: RunFacts) -> list[Setting]:
    method, config = facts.method, facts.config
    spec = method.pseudo_labels
    if spec.control == "oracle":
        return [Setting("2. Frame labels", "the emotion of the clip at every frame", CONTROL)]
    # Of the model that was clustered: the fine-tuned one may have fewer.
    layers = [layer_of(layer, config.num_hidden_layers) for layer in spec.layers]
    third_last = layers == [config.num_hidden_layers - 2]
    shuffled = [Setting("Frame labels", "permuted over all frames", CONTROL)] if spec.control == "shuffled" else []
    return [
        Setting(
            "2. Hidden states clustered by k-means at several scales",
            f"of {'the multi-task model' if spec.source == 'multitask' else 'the untouched backbone'}",
            ABSTRACT if spec.source == "multitask" else ABLATION,
        ),
        Setting(
            "Layer",
            f"{', '.join(map(str, layers))} of {config.num_hidden_layers}",
            f"{SUMMARIES}: the third-last" if third_last else f"{OURS}; the third-last is {SUMMARIES}",
        ),
        *_prepared_states(facts),
        Setting("Numbers of clusters", ", ".join(map(str, spec.clusters)), OURS),
        Setting("Clusters fitted on", f"training {facts.units} only", OURS),
        *shuffled,
    ]


def _prepared_states(facts: RunFacts) -> list[Setting]:
    """What became of hidden states before they were clustered, where anything did."""
    spec, rows = facts.method.pseudo_labels, []
    if _places_removed(facts):
        rows.append(Setting("Mean state of each place in a clip", "taken away before clustering", OURS))
    if spec.normalize != "none":
        value = f"by the mean and deviation of their own {spec.normalize}"
        rows.append(Setting("Frames centred and scaled before clustering", value, OURS))
    if spec.per != "none":
        rows.append(Setting("Clusters", f"of each {spec.per} by itself, the centres joined", OURS))
    if spec.windows != (SINGLE_FRAME,):
        value = ", ".join(f"{window:g}" for window in spec.windows) + f" s ({SINGLE_FRAME} s: the frame as it is)"
        rows.append(Setting("Frames averaged before clustering over", value, OURS))
    return rows


def _finetuning_settings(facts: RunFacts) -> list[Setting]:
    method, config = facts.method, facts.config
    angular = config.emotion_loss == "am-softmax"
    rows = [
        _start(facts, "finetune", "4. Fine-tuning on emotions starts from", stated="retrain"),
        Setting("Loss", "AM-Softmax" if angular else "cross-entropy", SUMMARIES if angular else ABLATION),
    ]
    if angular:
        values = f"{config.am_softmax_scale:g} and {config.am_softmax_margin:g}"
        rows.append(Setting("Scale s and margin m", values, OURS))
    if facts.chosen.joint:
        weight = {**facts.chosen.model, **facts.chosen.stages.finetune.model}["frame_weight"]
        value = f"cross-entropy of each scale, times {weight:g}; frames that count: {_frame_targets(facts, 'finetune')}"
        rows.append(Setting("Frame labels as a second loss", value, ABLATION))
    rows.append(Setting("States that the head reads", _readout(config), OURS))
    standardized = ", standardised by the training clips" if config.standardize else ""
    if config.speaker_normalization == "speaker":
        standardized = ", standardised in training by the clip's own speaker, in use by all training clips"
    rows.append(Setting("Pooling of frames", config.pooling + standardized, OURS))
    rows.append(Setting("Learning rates, epochs, batches, masks", "see `recipe.yaml`", OURS))
    for dotted, tried in method.search.items():
        part = f"{dotted.rsplit('.', 1)[-1]}, chosen in each fold by development {facts.units}"
        here = read_json(facts.model / STEP_FILE)["inputs"]["settings"][dotted]
        rows.append(Setting(part, f"of {', '.join(map(str, tried))}; {here} in this model", OURS))
    rows.append(Setting("Epoch", _epoch(facts), OURS))
    return rows


def _epoch(facts: RunFacts) -> str:
    """Which epoch of the fine-tuning the model is."""
    stage = facts.chosen.stages.finetune
    if epochs := stage.arguments.get("average_epochs", 0):
        return f"the mean of the weights of the last {epochs}"
    if stage.keeps_last_step:
        return "the last"
    epoch = "the last" if not facts.temperatures else f"that of the best UAR on development {facts.units}"
    return f"{epoch}{_length(facts)}, the median of the folds" if facts.cross_validated else epoch


def _length(facts: RunFacts) -> str:
    """How long the model of all speakers was fine-tuned, as far as its step still says."""
    step = RunFolder(facts.folder).fold(facts.variant, facts.seed, ALL_SPEAKERS).step("finetune") / STEP_FILE
    inputs = read_json(step)["inputs"] if step.is_file() else {}
    if "stop_after" in inputs:
        return f": {inputs['stop_after']:.3g} epochs"
    return f": {counted(inputs['stop_at'], 'update')}" if "stop_at" in inputs else ""


def _readout(config: GMPATLConfig) -> str:
    if config.readout == "sum":
        return "a sum of all layers with learned weights"
    return "those of the last layer" if config.readout == "last" else f"those of layer {config.readout_layer}"


_STARTS = {
    "backbone": "the original {encoder}",
    "multitask": "the multi-task model",
    "retrain": "the retrained {encoder}",
}


def _start(facts: RunFacts, stage: StageName, part: str, stated: str) -> Setting:
    """Where a training starts from; `stated` is where it does by the paper."""
    stages, name = facts.chosen.stages, encoder_name(facts.config)
    start, weight = stages.start_of(stage), getattr(stages, stage).start_weight
    path = "" if weight == 1 else f", {weight:g} of the way to it from the original {name}"
    return Setting(
        part, _STARTS[start].format(encoder=name) + path, SUMMARIES if start == stated and not path else ABLATION
    )
