"""The metadata in front of a model card."""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub import ModelCardData

CARD_FILE = "README.md"


def card_metadata(task: str, encoder_type: str, **fields: Any) -> str:
    """Write a card's metadata as YAML, without the dashes around it.

    Args:
        task: The Hub's name of what the model does, `audio-classification` or `feature-extraction`.
        encoder_type: The family of the encoder, a tag of the Hub.
        fields: Further arguments of `huggingface_hub.ModelCardData`.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["speech-emotion-recognition", encoder_type, "gmp-atl"],
        **fields,
    )
    written: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=1000).strip()
