"""Which small encoder learns most per CPU second: short pre-trainings of several shapes on the same frame labels.

    python benchmarks/shapes.py SPEECH.csv [--seconds 240] [--shapes "192 x 6;256 x 4"]

Each shape is trained for the same CPU seconds on clusters of MFCCs and then asked for the masked frames of speakers
that it was not trained on. Printed: parameters, updates, masked frames right, and audio seconds encoded per CPU second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from gmp_atl_hf import GMPATLConfig, GMPATLTrainer, HubertForGMPATLFrameClassification
from gmp_atl_hf.checkpoints import default_feature_extractor, quiet_transformers
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.environment import describe_environment
from gmp_atl_hf.pretraining.mfcc import make_mfcc_labels
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from gmp_atl_hf.pretraining.run import DEFAULT_ARGUMENTS
from gmp_atl_hf.pretraining.speech import divide_speech
from gmp_atl_hf.recipe.sections import PseudoLabelSpec
from gmp_atl_hf.run.stages import make_arguments
from gmp_atl_hf.run.steps import pseudo_labels_of
from gmp_atl_hf.training.bfloat16_on_cpu import has_native_bfloat16

CLUSTERS = (100,)
SHAPES: dict[str, dict[str, Any]] = {
    "192 x 6": {},
    "192 x 4": {"num_hidden_layers": 4},
    "256 x 6": {"hidden_size": 256, "intermediate_size": 1024, "conv_dim": [64, 128, 256]},
    "256 x 4": {"hidden_size": 256, "intermediate_size": 1024, "conv_dim": [64, 128, 256], "num_hidden_layers": 4},
    "192 x 6, short filters": {"conv_dim": [32, 64, 192], "conv_kernel": [20, 15, 4], "conv_stride": [10, 8, 4]},
}
"""Changes to the recipe's backbone; "256 x 4" is four layers of width 256."""


class StopAfter(TrainerCallback):
    """Ends a training after some CPU seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.process_time() + seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the time is over."""
        control.should_training_stop = time.process_time() >= self.end


def main() -> None:
    """Train every shape and print what it has learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--shapes", default=";".join(SHAPES))
    given = parser.parse_args()
    recipe = PretrainRecipe.from_yaml("pretrain-mini-mfcc", [f"corpus.root={given.speech}"])
    assert not isinstance(recipe.backbone, str)
    corpus = [{"name": spec.name, "root": spec.root, **spec.options} for spec in recipe.corpus]
    speech = divide_speech(read_corpora(corpus).table, recipe.data, recipe.seed)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        config = GMPATLConfig(**recipe.backbone)
        spec = PseudoLabelSpec((1,), CLUSTERS, "backbone", recipe.sample_frames, recipe.seed)
        make_mfcc_labels(Path(folder), config, spec, speech.train, speech.dev, "MFCC labels")
        with pseudo_labels_of(Path(folder), Path(folder)) as labelled:
            parts = labelled(speech.train), labelled(speech.dev)
            rows = [learn(name, recipe, *parts, given.seconds, Path(folder)) for name in given.shapes.split(";")]
    print(json.dumps({"cpu_seconds": given.seconds, "rows": rows, "environment": describe_environment()}))


def learn(
    name: str, recipe: PretrainRecipe, train: Dataset, dev: Dataset, seconds: float, folder: Path
) -> dict[str, Any]:
    """Train one shape for some CPU seconds and say what it knows then."""
    assert not isinstance(recipe.backbone, str)
    scales = {f"gmp_layer0_k{k}": k for k in CLUSTERS}
    set_seed(recipe.seed)
    shape = {**recipe.backbone, **recipe.model, **SHAPES[name], "frame_scales": scales}
    model = HubertForGMPATLFrameClassification(GMPATLConfig(**shape))
    settings = {**DEFAULT_ARGUMENTS, **recipe.arguments, "max_seconds": recipe.data.max_seconds, "disable_tqdm": True}
    settings |= {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 50, "max_steps": 100_000}
    settings["bf16"] = has_native_bfloat16()
    arguments = make_arguments(folder / name, recipe.seed, settings, evaluate=False)
    extractor = default_feature_extractor(model.config)
    trainer = GMPATLTrainer(model, arguments, train, dev, extractor, callbacks=[StopAfter(seconds)])
    trainer.train()
    model.config.frame_targets = "masked"  # whatever was trained on; what is hidden is what has to be guessed
    metrics = trainer.evaluate()
    row = {
        "shape": name,
        "parameters": sum(p.numel() for p in model.hubert.parameters()),
        "updates": trainer.state.global_step,
        "bf16": settings["bf16"],
        "masked_frames_right": round(metrics[f"eval_accuracy_{next(iter(scales))}"], 4),
        "loss": round(metrics["eval_loss"], 4),
        "encoded_seconds_per_cpu_second": round(_speed(model), 1),
    }
    print(row, flush=True)
    return row


def _speed(model: HubertForGMPATLFrameClassification) -> float:
    model.eval()
    clip = {"input_values": torch.randn(1, 80_000), "attention_mask": torch.ones(1, 80_000, dtype=torch.long)}
    with torch.inference_mode():
        model.encode(**clip)
        begun = time.process_time()
        for _ in range(10):
            model.encode(**clip)
    return 50 / (time.process_time() - begun)


if __name__ == "__main__":
    main()
