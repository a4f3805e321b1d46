"""How many masked frames a pre-trained model gets right, whichever frames it was trained on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets

from ..checkpoints import load_feature_extractor, load_model
from ..modeling.modeling_gmp_atl import HubertForGMPATLFrameClassification
from ..stage_settings import make_arguments
from ..steps import pseudo_labels_of
from ..training.trainer import GMPATLTrainer


def masked_frames_right(
    training: Path, labels: Path, dev: datasets.Dataset, seed: int, scratch: Path
) -> dict[str, float]:
    """Ask a finished iteration for the masked frames of speakers that it has not heard.

    Args:
        training: The iteration's finished training.
        labels: Its finished step of frame labels.
        dev: The development rows.
        seed: Of the masks.
        scratch: Folder that all processes see.

    Returns:
        Column → share of the masked frames whose cluster the model names.
    """
    fields = {"frame_targets": "masked"}
    model = load_model(HubertForGMPATLFrameClassification, training, seed, fields)
    with tempfile.TemporaryDirectory() as folder, pseudo_labels_of(labels, scratch) as labelled:
        arguments = make_arguments(Path(folder), seed, {"disable_tqdm": True}, evaluate=True)
        extractor = load_feature_extractor(training)
        trainer = GMPATLTrainer(model, arguments, None, labelled(dev), extractor, front_end_cache=False)
        metrics = trainer.evaluate()
    return {name: round(metrics[f"eval_accuracy_{name}"], 4) for name in model.loss_parts}
