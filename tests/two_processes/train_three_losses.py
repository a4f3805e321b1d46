"""Train each of the models, one with its front end cached, one its head first, one averaged, one its top; evaluate.

What came out is written to the file named first.

Started by tests with one process or several; a step holds eight clips however many there are. Not a test itself.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gmp_atl_hf.modeling.modeling_gmp_atl import (
    GMPATLPreTrainedModel,
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.joint import HubertForGMPATLJoint
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import feature_extractor, small_model, speech_table, training_arguments

MODELS: dict[str, type[GMPATLPreTrainedModel]] = {
    "multitask": HubertForGMPATLMultiTask,
    "retrain": HubertForGMPATLFrameClassification,
    "finetune": HubertForGMPATL,
    "cached": HubertForGMPATL,
    "head-first": HubertForGMPATL,
    "joint": HubertForGMPATLJoint,
    "top": HubertForGMPATL,
}
HEAD_FIRST: dict[str, Any] = {
    "readout": "sum",
    "standardize": True,
    "do_stable_layer_norm": True,  # whose last layer norm a sum leaves out
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
FIELDS: dict[str, dict[str, Any]] = {
    "head-first": HEAD_FIRST,
    "joint": {"frame_weight": 0.5},
    "top": {"mask_time_prob": 0.0, "mask_feature_prob": 0.0},  # or what is below could not be kept
}
CLIPS_PER_STEP = 8
STEPS = 10


def train(name: str, batch_size: int, accumulation: int, folder: Path, **fields: Any) -> dict[str, Any]:
    """Losses, gradient norms, the parts, development metrics and predictions of one training."""
    # 27 clips: the last step of an epoch holds three, so that in four batches one is empty.
    table, dev = speech_table(27), speech_table(7, seed=1)
    settings = {
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "max_steps": STEPS,
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-4,
        "class_weights": "balanced",
        "max_seconds": 0.5,
        # Gradients are logged before they are clipped; clipping would hide a wrong scale from the losses.
        "max_grad_norm": 1e9,
        "freeze_feature_encoder": name in ("cached", "top"),
        "trained_layers": 1 if name == "top" else None,
        "head_epochs": 3 if name == "head-first" else 0,
        "average_epochs": 2 if name == "joint" else 0,
    }
    trainer = GMPATLTrainer(
        small_model(MODELS[name], **FIELDS.get(name, {})),
        training_arguments(folder, **{**settings, **fields}),
        table,
        dev,
        feature_extractor(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="trained_layers is")  # what is below would not be kept
        trainer.train()
    assert (trainer.front_end_cache is not None) == (name in ("cached", "top"))
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    result: dict[str, Any] = {
        "world_size": trainer.accelerator.num_processes,
        "losses": [entry["loss"] for entry in logged],
        "norms": [entry["grad_norm"] for entry in logged],
        "parts": [{k: v for k, v in entry.items() if k.startswith("loss_")} for entry in logged],
        "dev": {k: v for k, v in trainer.evaluate().items() if not k.endswith(("runtime", "second", "time", "epoch"))},
    }
    if name != "retrain":
        result["logits"] = trainer.predict(dev).predictions.tolist()
    return result


def main() -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    splits = [(CLIPS_PER_STEP // processes, 1), (1, CLIPS_PER_STEP // processes)]
    results: dict[str, dict[str, Any]] = {}
    folder = Path(sys.argv[1]).parent  # one for all processes: they share the front-end cache
    for name in MODELS:
        for batch_size, accumulation in splits:
            results[f"{name} {batch_size} x {accumulation}"] = train(name, batch_size, accumulation, folder)
    if int(os.environ.get("RANK", "0")) == 0:
        Path(sys.argv[1]).write_text(json.dumps(results), encoding="utf-8")
    # Threads that still serve the group when the interpreter ends can abort the process.
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
