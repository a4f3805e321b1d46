"""Variants: names for sets of overrides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import RequestError, did_you_mean, known_names
from ..run_folder.layout import RESERVED_NAMES
from .checks import FOLDER_NAME
from .sections import REPLAY, VariantSpec

_DIRECT: Mapping[str, Any] = {"stages.multitask.skip": True, "stages.retrain.skip": True}

BUILT_IN_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    # The whole method, and what it is to be compared with.
    "gmp-atl": {},
    "direct": _DIRECT,
    "direct-long": {**_DIRECT, "stages.finetune.same_updates_as_all": True},
    "tapt": {"stages.multitask.skip": True, "pseudo_labels.source": "backbone"},
    "multitask-only": {"stages.retrain.skip": True},
    # One part of the method changed or taken away.
    "no-gender": {"stages.multitask.model.emotion_weight": 1.0},
    "single-scale": {"pseudo_labels.clusters": [100]},
    "last-layer": {"pseudo_labels.layers": [-1]},
    "two-layers": {"pseudo_labels.layers": [-3, -1]},
    "per-emotion": {"pseudo_labels.per": "emotion"},
    "per-gender": {"pseudo_labels.per": "gender"},
    "all-frames": {"stages.retrain.model.frame_targets": "all"},
    "windows": {
        "pseudo_labels.windows": [0.5, 1.0],
        "pseudo_labels.normalize": "speaker",
        "stages.retrain.model.frame_targets": "all",
    },
    "retrain-from-multitask": {"stages.retrain.start": "multitask"},
    "joint": {
        "stages.retrain.skip": True,
        "stages.finetune.start": "backbone",
        "stages.finetune.model.frame_weight": 0.1,
        "stages.finetune.model.frame_targets": "all",
    },
    "cross-entropy": {"stages.finetune.model.emotion_loss": "cross-entropy"},
    "frozen-encoder": {"stages.finetune.freeze_encoder": True},
    "averaged": {"stages.finetune.average_epochs": 3},
    # Controls: frame labels that are not those of the method.
    "shuffled-labels": {"pseudo_labels.control": "shuffled"},
    "oracle-labels": {"pseudo_labels.control": "oracle"},
}
"""Built-in variants, each a name for a set of overrides and nothing more.

`gmp-atl` is the whole method; `direct` and `direct-long` are fine-tuning alone, with its own updates and with those of
the whole method; `tapt` takes frame labels from the untouched backbone; `multitask-only` leaves out the retraining. The
others change one part: emotion alone in the first training; one codebook of 100 clusters; labels from the last layer,
or from two; each emotion or gender clustered by itself; all frames predicted in place of the masked ones; the same
with clusters of states averaged over half a second and a second, normalised by speaker; retraining that goes on from
the multi-task model; frame labels as a second loss of the fine-tuning in place of the retraining; cross-entropy in
place of AM-Softmax; an encoder that the fine-tuning leaves as the retraining made it; and the mean of the weights of
the last three epochs in place of those of the epoch that development speakers choose. The last two are controls:
frame labels permuted over all frames, and the emotion of the clip in place of frame labels."""


# It is not built in because only its user knows where there is plain speech.
_REPLAY_FIX = f"{{name: {REPLAY}, set: {{replay: {{root: data/speech}}}}}}, the root being your folder of plain speech"


def variant_overrides(variant: VariantSpec, path: str, shared: Collection[str]) -> dict[str, Any]:
    """All overrides of a variant, as dotted path to value: those of its base, then its own.

    Args:
        variant: The variant.
        path: Where it is in the recipe, for error messages.
        shared: Keys of the recipe that no variant may change.

    Raises:
        RequestError: When the name or the base is unknown, or an override touches what variants share.
    """
    built_in = variant.name in BUILT_IN_VARIANTS
    if built_in and (variant.set or variant.base):
        raise RequestError(
            f"`{path}` gives the built-in name {variant.name} to something else",
            "a name of its own",
            f"{{name: my-{variant.name}, base: {variant.name}, set: {{…}}}}",
        )
    if not built_in and not variant.set:
        raise RequestError(
            f"`{path}` is {variant.name!r}, which is no built-in variant and sets nothing",
            known_names(BUILT_IN_VARIANTS) + ", or {name: …, set: {dotted.path: value}}",
            _REPLAY_FIX if variant.name == REPLAY else did_you_mean(variant.name, BUILT_IN_VARIANTS),
        )
    if not FOLDER_NAME.fullmatch(variant.name) or variant.name in RESERVED_NAMES:
        raise RequestError(
            f"`{path}.name` is {variant.name!r}",
            "lower-case letters, digits and . _ - (it names a folder), and no folder that every run has",
        )
    if variant.base is not None and variant.base not in BUILT_IN_VARIANTS:
        raise RequestError(
            f"`{path}.base` is {variant.base!r}",
            known_names(BUILT_IN_VARIANTS),
            did_you_mean(variant.base, BUILT_IN_VARIANTS),
        )
    for dotted in variant.set:
        if dotted.split(".")[0] in shared:
            raise RequestError(
                f"`{path}.set` changes `{dotted}`",
                f"variants that share {', '.join(shared)}, so that they can be compared",
                "make a second recipe for it",
            )
    return {**BUILT_IN_VARIANTS[variant.base or (variant.name if built_in else "gmp-atl")], **variant.set}
