"""What a training is set to where a recipe says nothing.

Our choice throughout: the paper's settings are not known. Those of an encoder that was trained before are usual values,
looked at for fine-tuning alone on the encoders of this package (`docs/results.md`); an encoder from scratch has nothing
to keep, and no states worth standardising when its training begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..recipe.sections import StageName

_FROM_SCRATCH: Mapping[StageName, Mapping[str, Any]] = {
    "multitask": {"learning_rate": 1e-4, "num_train_epochs": 15, "warmup_steps": 0.1},
    "retrain": {"learning_rate": 1e-4, "num_train_epochs": 40, "warmup_steps": 0.1},
    "finetune": {"learning_rate": 1e-4, "num_train_epochs": 15, "warmup_steps": 0.1},
}

# The heads alone first, then everything, at rates that fall by layer: what the encoder knows is not torn up by heads
# that know nothing yet.
_ON_CLIPS: Mapping[str, Any] = {
    "head_epochs": 20,
    "head_learning_rate": 1e-3,
    "learning_rate": 1e-4,
    "layer_decay": 0.7,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 8,
    "warmup_steps": 0.1,
    "class_weights": "balanced",
}

# Retraining at 1e-4 costs Whisper's encoder nine points of UAR, and gains `mini` and `small` nothing on their
# development speakers (`docs/results.md`): an encoder that nobody has tried is moved little.
_PRE_TRAINED: Mapping[StageName, Mapping[str, Any]] = {
    "multitask": _ON_CLIPS,
    "retrain": {"learning_rate": 1e-5, "head_learning_rate": 1e-3, "num_train_epochs": 6, "warmup_steps": 0.1},
    "finetune": _ON_CLIPS,
}

# Adapters begin as nothing and tear nothing up: the low ones are to learn as much as the high ones.
_OF_ADAPTERS: Mapping[str, Any] = {"learning_rate": 1e-3}

# The last layer as it is: the norm after it was not trained in every encoder. Without standardising, a few channels of
# large mean and variance hide all others from a cosine.
_MODEL: Mapping[str, Any] = {"readout": -1, "pooling": "statistics", "standardize": True}


def default_arguments(stage: StageName, backbone: str | Mapping[str, Any], lora: bool = False) -> Mapping[str, Any]:
    """`GMPATLTrainingArguments` fields of a stage.

    Args:
        stage: Which training.
        backbone: The recipe's: a name, or a configuration from scratch.
        lora: Whether adapters are trained in place of the encoder.
    """
    found = (_FROM_SCRATCH if isinstance(backbone, Mapping) else _PRE_TRAINED)[stage]
    if not lora:
        return found
    return {**{name: value for name, value in found.items() if name != "layer_decay"}, **_OF_ADAPTERS}


def default_model_fields(backbone: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """`GMPATLConfig` fields of all models, for a recipe's backbone: a name, or a configuration from scratch.

    Retraining has them, too: what it does not read would not be there for the fine-tuning to begin from.
    """
    return {} if isinstance(backbone, Mapping) else _MODEL
