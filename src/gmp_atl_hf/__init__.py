"""GMP-ATL speech emotion recognition as a Hugging Face extension.

Importing the package registers its models with transformers' Auto classes and its pipeline task with transformers'
pipelines, and loads everything else on first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .interrupt import quiet_interrupt_of_command

quiet_interrupt_of_command()  # first: what comes next takes seconds

from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from .inference.pipeline_task import register_task
from .modeling.configuration_gmp_atl import SHIPPED, GMPATLConfig
from .modeling.encoding_gmp_atl import GMPATLModel
from .modeling.modeling_gmp_atl import HubertForGMPATL
from .version import __version__

AutoConfig.register(GMPATLConfig.model_type, GMPATLConfig, exist_ok=True)
AutoModel.register(GMPATLConfig, GMPATLModel, exist_ok=True)
AutoModelForAudioClassification.register(GMPATLConfig, HubertForGMPATL, exist_ok=True)
register_task()
SHIPPED |= {file.parent.name: str(file.parent) for file in Path(__file__).parent.glob("backbones/*/config.json")}

if TYPE_CHECKING:
    from .batching.collator import GMPATLDataCollator
    from .checkpoints import load_feature_extractor
    from .data.labels import label_maps
    from .data.table import load_corpus
    from .embeddings.embed import embed_corpus, embed_files
    from .evaluation.evaluate_metric import SpeechEmotionMetric
    from .inference.classifier import SpeechEmotionClassifier
    from .inference.speakers import SpeakerStatistics
    from .modeling.modeling_gmp_atl import HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
    from .protocols.protocol import Protocol
    from .pseudo_labels.attach import attach_pseudo_labels
    from .pseudo_labels.features import extract_features
    from .pseudo_labels.kmeans import MultiScaleKMeans
    from .recipe.recipe import Recipe
    from .run.run import run_recipe
    from .training.arguments import GMPATLTrainingArguments
    from .training.lora import add_lora
    from .training.lora_settings import LoraSettings
    from .training.trainer import GMPATLTrainer

__all__ = [
    "GMPATLConfig",
    "GMPATLDataCollator",
    "GMPATLModel",
    "GMPATLTrainer",
    "GMPATLTrainingArguments",
    "HubertForGMPATL",
    "HubertForGMPATLFrameClassification",
    "HubertForGMPATLMultiTask",
    "LoraSettings",
    "MultiScaleKMeans",
    "Protocol",
    "Recipe",
    "SpeakerStatistics",
    "SpeechEmotionClassifier",
    "SpeechEmotionMetric",
    "__version__",
    "add_lora",
    "attach_pseudo_labels",
    "embed_corpus",
    "embed_files",
    "extract_features",
    "label_maps",
    "load_corpus",
    "load_feature_extractor",
    "run_recipe",
]

_MODULES = {
    "GMPATLDataCollator": "batching.collator",
    "GMPATLTrainer": "training.trainer",
    "GMPATLTrainingArguments": "training.arguments",
    "HubertForGMPATLFrameClassification": "modeling.modeling_gmp_atl",
    "HubertForGMPATLMultiTask": "modeling.modeling_gmp_atl",
    "LoraSettings": "training.lora_settings",
    "MultiScaleKMeans": "pseudo_labels.kmeans",
    "Protocol": "protocols.protocol",
    "Recipe": "recipe.recipe",
    "SpeakerStatistics": "inference.speakers",
    "SpeechEmotionClassifier": "inference.classifier",
    "SpeechEmotionMetric": "evaluation.evaluate_metric",
    "add_lora": "training.lora",
    "attach_pseudo_labels": "pseudo_labels.attach",
    "embed_corpus": "embeddings.embed",
    "embed_files": "embeddings.embed",
    "extract_features": "pseudo_labels.features",
    "label_maps": "data.labels",
    "load_corpus": "data.table",
    "load_feature_extractor": "checkpoints",
    "run_recipe": "run.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
