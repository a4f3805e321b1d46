"""How many masked frames a pre-trained model gets right, whichever frames it was trained on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets

from ..checkpoints import load_feature_extractor, load_model
from ..modeling.modeling_gmp_atl import HubertForGMPATLFrameClassification
from ..run.stages import make_arguments
from ..training.trainer import GMPATLTrainer


def masked_accuracy(training: Path, dev: datasets.Dataset, seed: int) -> dict[str, float]:
    """Column → share of the masked frames of development rows whose cluster a finished training predicts."""
    fields = {"frame_targets": "masked"}
    model = load_model(HubertForGMPATLFrameClassification, training, seed, fields)
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_arguments(Path(folder), seed, {"disable_tqdm": True}, evaluate=True)
        extractor = load_feature_extractor(training)
        trainer = GMPATLTrainer(model, arguments, None, dev, extractor, front_end_cache=False)
        metrics = trainer.evaluate()
    return {name: round(metrics[f"eval_accuracy_{name}"], 4) for name in model.loss_parts}
