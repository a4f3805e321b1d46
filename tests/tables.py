"""Small tables with pseudo-labels, and tiny models and settings to train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Audio, ClassLabel, Dataset, Features, Sequence, Value
from transformers import Wav2Vec2FeatureExtractor

from audio_files import encoded
from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from gmp_atl_hf.training.arguments import GMPATLTrainingArguments

LABELS = ["anger", "neutral", "sadness"]
SCALES = {"gmp_layer1_k5": 5, "gmp_layer1_k7": 7}
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "final_dropout", "feat_proj_dropout")


def training_config(dropout: float = 0.0, **fields: Any) -> GMPATLConfig:
    """Two layers of 32 behind HuBERT's own strides, with many short masks so that small clips get some."""
    defaults: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "conv_dim": (8,) * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "mask_time_prob": 0.3,
        "mask_time_length": 3,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: number for number, label in enumerate(LABELS)},
        "frame_scales": SCALES,
        **dict.fromkeys(DROPOUTS, dropout),
    }
    return GMPATLConfig(**{**defaults, **fields})


def small_model(
    kind: type[GMPATLPreTrainedModel], dropout: float = 0.0, seed: int = 0, **fields: Any
) -> GMPATLPreTrainedModel:
    """A model with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    return kind(training_config(dropout, **fields))


def feature_extractor(normalise: bool = False) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=normalise)


def speech_table(clips: int, seed: int = 0, shortest: int = 2_000, longest: int = 12_000) -> Dataset:
    """Noisy tones of different lengths whose pitch follows the emotion; a third of the genders is missing.

    The clips of an emotion are not equally many, and frame labels are random.
    """
    rng = np.random.default_rng(seed)
    config = training_config()
    lengths = rng.integers(shortest, longest, clips).tolist()
    emotions = [int(number) for number in rng.choice(3, clips, p=[0.5, 0.3, 0.2])]
    columns: dict[str, list[Any]] = {
        "id": [f"tones/{row}" for row in range(clips)],
        "audio": [],
        "emotion": emotions,
        "gender": [(0, 1, None)[row % 3] for row in range(clips)],
        "num_samples": lengths,
    }
    for length, emotion in zip(lengths, emotions, strict=True):
        time = np.arange(length) / 16_000
        wave = 0.2 * np.sin(2 * np.pi * 150 * (1 + emotion) * time) + 0.1 * rng.standard_normal(length)
        columns["audio"].append({"path": None, "bytes": encoded(wave.astype(np.float32), subtype="FLOAT")})
    for name, clusters in SCALES.items():
        columns[name] = [
            rng.integers(0, clusters, frame_count(length, config.conv_kernel, config.conv_stride)).tolist()
            for length in lengths
        ]
    features = Features(
        {
            "id": Value("string"),
            "audio": Audio(decode=False),
            "emotion": ClassLabel(names=LABELS),
            "gender": ClassLabel(names=["female", "male"]),
            "num_samples": Value("int64"),
            **{name: Sequence(Value("int32")) for name in SCALES},
        }
    )
    return Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def training_arguments(folder: Path, **fields: Any) -> GMPATLTrainingArguments:
    """Settings for the CPU that log every step and neither evaluate nor save unless asked to."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "num_train_epochs": 3,
        "freeze_feature_encoder": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
    }
    return GMPATLTrainingArguments(**{**defaults, **fields})


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that differ in any bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
