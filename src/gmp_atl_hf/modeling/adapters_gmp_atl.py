"""What an adapter says of the model that it was trained in, and what a model takes over from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import cached_file

from .configuration_gmp_atl import GMPATLConfig

ADAPTER_MODEL_CONFIG = "gmp_atl_config.json"
"""Beside an adapter, the configuration of the model that it was trained in. Not `config.json`: transformers would look
for a whole model beside it."""

ADAPTER_BASE = "gmp_atl_base.json"
"""Beside an adapter, the hashes of the weights that it was trained on and does not bring itself."""

_OF_THE_HEADS = ("id2label", "pooling", "standardize", "speaker_normalization", "readout", "emotion_loss")
"""What decides which head there is, and so whether an adapter's fits."""

_OF_THE_SCORES = ("am_softmax_scale", "am_softmax_margin", "logit_temperature", "seen_speakers")


def note_adapter(model: Any, place: str | None) -> None:
    """Take over calibration and speakers of an adapter; where it does not say them, its training is unknown.

    Args:
        model: The model that loads the adapter; its configuration is changed in place.
        place: The adapter's folder or Hub id.

    Raises:
        ValueError: It was trained in a model whose head is another one, which would be left untrained, or whose
            weights are others.
    """
    config: GMPATLConfig = model.config
    file = None if place is None else _file_beside(place, ADAPTER_MODEL_CONFIG)
    if file is None:
        config.note_unknown_training()
        return
    theirs = type(config).from_json_file(file)
    for name in _OF_THE_HEADS:
        if getattr(theirs, name) != getattr(config, name):
            raise ValueError(
                f"{place} was trained in a model with {name} {getattr(theirs, name)!r}, and this one has "
                f"{getattr(config, name)!r}; load it with gmp_atl_hf.SpeechEmotionClassifier, or merge it into its "
                "model once: gmp-atl merge ADAPTER FOLDER"
            )
    _refuse_other_base(model, place)
    for name in _OF_THE_SCORES:
        setattr(config, name, getattr(theirs, name))


def note_base(model: nn.Module, folder: Path, is_of_adapter: Callable[[str], bool]) -> None:
    """Write beside an adapter the hashes of the weights that its training has left as they were.

    Args:
        model: The model, with the adapter's modules in it.
        folder: Where the adapter was saved.
        is_of_adapter: Whether a parameter, by its name, is in the adapter's file.
    """
    kept = {
        name.replace(".base_layer.", "."): _hash_of(each)
        for name, each in model.named_parameters()
        # Not every checkpoint has what stands for masked frames, and no score depends on it.
        if not (each.requires_grad or is_of_adapter(name) or name.endswith("masked_spec_embed"))
    }
    (folder / ADAPTER_BASE).write_text(json.dumps({"float32_sha256": kept}, indent=2) + "\n", encoding="utf-8")


def changed_weights(model: nn.Module, place: str | None) -> list[str]:
    """Names of a model's weights that are not those which an adapter was trained on.

    Args:
        model: The model that the adapter is to be put on, in float32.
        place: The adapter's folder or Hub id.

    Returns:
        The names; none where the adapter does not say what it was trained on, as those of other trainers.
    """
    file = None if place is None else _file_beside(place, ADAPTER_BASE)
    if file is None:
        return []
    noted: dict[str, str] = json.loads(Path(file).read_text("utf-8"))["float32_sha256"]
    own = {name: each for name, each in model.named_parameters() if name in noted}
    return [name for name, each in own.items() if _hash_of(each) != noted[name]]


def _refuse_other_base(model: nn.Module, place: str | None) -> None:
    """Refuse, by a `ValueError`, to put an adapter on weights that are not those which it was trained on."""
    weights = {each.dtype for each in model.parameters()}
    # In half precision no weight is what it was.
    changed = changed_weights(model, place) if weights == {torch.float32} else []
    if changed:
        raise ValueError(
            f"{place} was trained on other weights than this model has: {len(changed)} tensors, "
            f"{', '.join(changed[:3])}; load it on the model that it was trained on, or train it again"
        )


def _hash_of(parameter: torch.Tensor) -> str:
    values: Any = parameter.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(values).hexdigest()


def _file_beside(place: str, name: str) -> str | None:
    """A file of a folder or Hub repository; None where it is not there, or cannot be asked for."""
    missing = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    found: str | None = cached_file(place, name, **dict.fromkeys(missing, False))
    return found
