"""Tensors of a finished model that its configuration has no place for: with them, its scores would be others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.utils import cached_file

from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLEmotionModel

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""What the weights of a checkpoint may be called, in the order in which they are looked for."""

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_FIELDS = {
    "standardization": "standardize: true",
    "pooling": "pooling: attention",
    "layer_weights": "readout: sum",
    "classifier": "emotion_loss: cross-entropy",
    "emotion_classifier": "emotion_loss: cross-entropy",
    "encoder": "more num_hidden_layers",
}
"""What a tensor's name begins with → the field of the configuration that has a place for it."""


def refuse_surplus(
    model: GMPATLEmotionModel, what: str, checkpoint: str | Path, unexpected: Collection[str] = ()
) -> None:
    """Refuse, by a `RequestError`, weights of a finished model for which its configuration has no place.

    Allowed are heads that score no emotions, what stands for masked frames, what belongs above the encoder of stock
    checkpoints, and layers above the one that is read, which are left out on purpose.

    Args:
        model: The model as loaded.
        what: What the weights are called in the message.
        checkpoint: Folder or Hub id.
        unexpected: Names that transformers found no place for; it passes over heads and what is above a layer.
    """
    own = {name.removeprefix("hubert.") for name in model.state_dict()}
    passed_over = re.compile(
        rf"(pooling|standardization|{model.emotion_head})\.|layer_weights$|encoder\.(layers\.\d+|layer_norm)\."
    )
    found = {name for name in _names_of(checkpoint) if passed_over.match(name.removeprefix("hubert."))}
    found |= {name for name in unexpected if not name.endswith("masked_spec_embed")}
    names = {name: name.removeprefix("hubert.") for name in found}
    surplus = sorted(name for name, plain in names.items() if plain not in own and not _is_left_out(model, plain))
    if surplus:
        field = _FIELDS.get(names[surplus[0]].split(".")[0])
        raise RequestError(
            f"{what} holds tensors that config.json has no place for: {', '.join(surplus[:5])}",
            f"the configuration that the {len(surplus)} tensors belong to" + (f", such as {field}" if field else ""),
            "put back the config.json that was saved with these weights, or copy the whole model again",
        )


def _is_left_out(model: GMPATLEmotionModel, name: str) -> bool:
    """Whether a tensor of the encoder is above what the heads read, and so in no model of this configuration."""
    config = model.config
    if (layer := _LAYER.match(name)) is not None:
        return config.depth <= int(layer[1]) < config.num_hidden_layers
    return config.readout != "last" and name.startswith("encoder.layer_norm.")


def _names_of(checkpoint: str | Path) -> set[str]:
    """Names of all tensors in the weights of a checkpoint."""
    for name in WEIGHT_FILES:
        file = cached_file(str(checkpoint), name, _raise_exceptions_for_missing_entries=False)
        if file is None:
            continue
        if name.endswith(".index.json"):
            return set(json.loads(Path(file).read_text("utf-8"))["weight_map"])
        if name.endswith(".bin"):
            return set(torch.load(file, map_location="meta", weights_only=True))
        with safe_open(file, "pt") as tensors:
            return set(tensors.keys())
    return set()
