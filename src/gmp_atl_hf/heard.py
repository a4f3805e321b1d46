"""Whom an artefact has heard: models and codebooks say it themselves, so that none is used on a speaker it knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .checkpoints import read_config
from .modeling.configuration_gmp_atl import GMPATLConfig
from .protocols.speakers import UNKNOWN
from .pseudo_labels.codebook import PROVENANCE_FILE
from .run_folder.step_folder import STEP_FILE, read_json


def heard_by_model(checkpoint: str | Path) -> list[str]:
    """Say whose recordings a checkpoint has heard.

    Args:
        checkpoint: Folder or Hub id.

    Returns:
        Speakers (`<corpus>/<speaker>`), sorted; none for a plain HuBERT that does not say, whose training corpora are
        nobody's test here.
        A model of ours that does not say gives `["unknown"]`.

    Raises:
        RequestError: There is no such checkpoint.
    """
    config: PreTrainedConfig = read_config(str(checkpoint))
    # A plain HuBERT says it too, where `gmp-atl pretrain` has made it.
    said = {"model_type": config.model_type, "seen_speakers": getattr(config, "seen_speakers", None)}
    return heard_by_description({"config": said}, Path(checkpoint))


def heard_by_description(backbone: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Say whose recordings a backbone has heard, from what `describe_backbone` gave.

    Args:
        backbone: The description.
        folder: Where the backbone lies, if it is a folder: a step of a run that is older than the record in the
            configuration has it in its `step.json`.

    Returns:
        As `heard_by_model`.
    """
    config = backbone.get("config", {})
    if config.get("seen_speakers") is not None:
        return sorted(config["seen_speakers"])
    if config.get("model_type") != GMPATLConfig.model_type:
        return []
    step = None if folder is None else folder / STEP_FILE
    data = read_json(step)["inputs"].get("data", {}) if step is not None and step.is_file() else {}
    return sorted({*data["train"], *data["dev"]}) if "train" in data and "dev" in data else [UNKNOWN]


def heard_by_codebooks(folder: Path) -> list[str]:
    """Say whose frames codebooks were fitted on.

    Args:
        folder: Where they are.

    Returns:
        Speakers, sorted.
    """
    scales: Iterable[Mapping[str, Any]] = read_json(folder / PROVENANCE_FILE)["scales"].values()
    return sorted({speaker for scale in scales for speaker in scale["training_speakers"]})
