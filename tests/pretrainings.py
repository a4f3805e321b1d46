"""Pre-trainings small enough to be made again and again: tones by a few speakers, listed in a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audio_files import write_audio
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from gmp_atl_hf.pretraining.run import run_pretraining
from runs import BACKBONE, changed_recipe, clip


def write_speech(root: Path, speakers: int = 5, takes: int = 3) -> Path:
    """Recordings and the CSV file that names their speakers; the first speaker speaks most."""
    lines = ["file_name,speaker"]
    for speaker in range(speakers):
        for take in range(takes * (4 if speaker == 0 else 1)):
            name = f"{speaker}/{take}.wav"
            write_audio(root / name, clip(take % 3, speaker, take))
            lines.append(f"{name},s{speaker}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "metadata.csv"


def pretrain_dict(speech: Path, **changes: Any) -> dict[str, Any]:
    """Two iterations of a few updates; `changes` as in `runs.changed_recipe`."""
    recipe = {
        "name": "murmurs",
        "corpus": {"name": "csv", "root": str(speech), "columns": {"file": "file_name", "emotion": None}},
        "data": {"max_seconds": 0.2, "dev_speakers": 1},
        "backbone": dict(BACKBONE),
        "model": {"mask_time_length": 2},
        "arguments": {"batch_seconds": 1.0, "use_cpu": True, "learning_rate": 1e-3},
        "iterations": [
            {"features": "mfcc", "clusters": [4, 6], "num_train_epochs": 2},
            {"features": "hidden-states", "layers": [-2], "clusters": [5], "start": "previous", "num_train_epochs": 2},
        ],
    }
    return changed_recipe(recipe, **changes)


def pretrain(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    return run_pretraining(PretrainRecipe.from_dict(recipe), folder)
