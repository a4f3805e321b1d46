"""Announces our pipeline task to transformers without loading it."""

from __future__ import annotations

import importlib
from typing import Any

from transformers import AutoModelForAudioClassification
from transformers.pipelines import PIPELINE_REGISTRY

TASK = "speech-emotion-recognition"


class _LazyTask(dict[str, Any]):
    """A task's entry whose class is loaded when it is looked up: older transformers want the class, not its name."""

    def __getitem__(self, key: str) -> Any:
        if key == "impl":
            module = importlib.import_module(f"{__package__}.pipeline")
            return module.SpeechEmotionRecognitionPipeline
        return super().__getitem__(key)


def register_task() -> None:
    """Make `pipeline("speech-emotion-recognition")` known; twice does no harm."""
    PIPELINE_REGISTRY.supported_tasks[TASK] = _LazyTask(impl=None, pt=(AutoModelForAudioClassification,), type="audio")
