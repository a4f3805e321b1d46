"""Overrides by dotted path, and the names for sets of them: variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..run_folder.layout import RESERVED_NAMES
from .checks import FOLDER_NAME, describe, did_you_mean, known_names, load_yaml

if TYPE_CHECKING:
    from .recipe import VariantSpec

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
    "all-frames": {"stages.retrain.model.frame_targets": "all"},
    "retrain-from-multitask": {"stages.retrain.start": "multitask"},
    "cross-entropy": {"stages.finetune.model.emotion_loss": "cross-entropy"},
    "frozen-encoder": {"stages.finetune.freeze_encoder": True},
}
"""Built-in variants, each a name for a set of overrides and nothing more.

`gmp-atl` is the whole method; `direct` and `direct-long` are fine-tuning alone, with its own updates and with those of
the whole method; `tapt` takes frame labels from the untouched backbone; `multitask-only` leaves out the retraining. The
others change one part: emotion alone in the first training; one codebook of 100 clusters; labels from the last layer,
or from two; all frames predicted in place of the masked ones; retraining that goes on from the multi-task model;
cross-entropy in place of AM-Softmax; and an encoder that the fine-tuning leaves as the retraining made it."""

NOT_PER_VARIANT = ("name", "corpus", "labels", "protocol", "search", "seeds", "variants", "final")
"""What variants share, so that their numbers can be compared."""


def variant_overrides(variant: VariantSpec, path: str) -> dict[str, Any]:
    """Give all overrides of a variant: those of its base, then its own.

    Args:
        variant: The variant.
        path: Where it is in the recipe, for error messages.

    Returns:
        Dotted path to value.

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
            did_you_mean(variant.name, BUILT_IN_VARIANTS),
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
        if dotted.split(".")[0] in NOT_PER_VARIANT:
            raise RequestError(
                f"`{path}.set` changes `{dotted}`",
                f"variants that share {', '.join(NOT_PER_VARIANT)}, so that they can be compared",
                "make a second recipe for it",
            )
    return {**BUILT_IN_VARIANTS[variant.base or (variant.name if built_in else "gmp-atl")], **variant.set}


def apply_override(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value in a recipe that is still plain dicts and lists; unknown names are refused later, when it is read.

    Args:
        recipe: The plain recipe, changed in place.
        dotted: The path, such as `pseudo_labels.clusters`, or `corpus.0.root` inside a list.
        value: The new value; a mapping replaces the old one whole.

    Raises:
        RequestError: When the path leads through something that has no keys.
    """
    keys = dotted.split(".")
    place: Any = recipe
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth])
        index: str | int = key
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                raise RequestError(
                    f"`{dotted}`: `{where}` is a list of {len(place)}",
                    f"a number from 0 to {len(place) - 1} after `{where}`",
                    f"{where}.0" + "".join(f".{k}" for k in keys[depth:]),
                )
            index = int(key)
        elif not isinstance(place, dict):
            raise RequestError(f"`{dotted}`: `{where}` is {describe(place)}", "a mapping", f"set `{where}` as a whole")
        if depth == len(keys) - 1:
            place[index] = value
        else:
            if isinstance(place, dict) and place.get(key) is None:
                place[key] = {}  # a section that is left out or empty
            place = place[index]


def parse_override(text: str) -> tuple[str, Any]:
    """Read `key.path=value`, the value as YAML.

    Args:
        text: Such as `pseudo_labels.clusters=[50, 100]`.

    Returns:
        The dotted path and the value.

    Raises:
        RequestError: When there is no `=`, an empty key, or the value is no YAML.

    Example:
        >>> parse_override("data.shuffle_labels=true")
        ('data.shuffle_labels', True)
    """
    dotted, equals, value = text.partition("=")
    dotted = dotted.strip()
    if not equals or not all(dotted.split(".")):
        raise RequestError(f"the override {text!r}", "key.path=value", "for example pseudo_labels.clusters=[50]")
    return dotted, load_yaml(value, f"the override {text!r}")


def with_overrides(recipe: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `key.path=value` texts to a plain recipe, in order.

    Args:
        recipe: The plain recipe, changed in place.
        overrides: The texts.

    Returns:
        The same recipe.
    """
    for text in overrides:
        apply_override(recipe, *parse_override(text))
    return recipe
