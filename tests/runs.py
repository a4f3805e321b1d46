"""Runs small enough to be made again and again: a folder of tones, a tiny HuBERT, and looks into what a run wrote."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from audio_files import RATE, write_audio
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.run import run_recipe

EMOTIONS = ("anger", "neutral", "sadness")
SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
# As `<emotion>/<gender><number>_<take>.wav`: everything that is known of a recording is in its path.
SPEAKER_PATTERN = r"(?P<speaker>(?P<gender>[fm])\d)_\d+\.wav$"
SPLIT_PATTERN = r"(?P<split>train|dev|test)/[^/]+/(?P<speaker>(?P<gender>[fm])\d)_\d+\.wav$"
SPLIT_EMOTION_PATTERN = r"(?P<split>train|dev|test)/(?P<emotion>[^/]+)/(?P<speaker>(?P<gender>[fm])\d)_\d+\.wav$"
SPLIT = {"f1": "train", "m1": "train", "f2": "train", "m2": "dev", "f3": "test", "m3": "test"}

BACKBONE: dict[str, Any] = {
    "conv_dim": [8, 8, 16],
    "conv_kernel": [20, 15, 4],
    "conv_stride": [10, 8, 4],
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def clip(emotion: int, speaker: int, take: int) -> np.ndarray:
    """A tone whose pitch follows the emotion, and whose overtone follows the speaker; 0.1 to 0.3 seconds."""
    rng = np.random.default_rng([emotion, speaker, take])
    time = np.arange(int(rng.integers(1_600, 4_800))) / RATE
    wave = np.sin(2 * np.pi * 200 * (1 + emotion) * time) + 0.5 * np.sin(2 * np.pi * (1_500 + 150 * speaker) * time)
    return (0.2 * wave + 0.05 * rng.standard_normal(len(time))).astype(np.float32)


def write_corpus(
    root: Path,
    speakers: Iterable[str] = SPEAKERS,
    takes: int = 2,
    split: Mapping[str, str] | None = None,
    first: int = 0,
) -> Path:
    """Recordings of every speaker in every emotion; with a split, below a folder for each part of it.

    Two corpora whose `first` speakers have the same number have the same recordings, whatever the speakers' names.
    """
    for number, speaker in enumerate(speakers, first):
        for emotion, name in enumerate(EMOTIONS):
            for take in range(takes):
                folder = root / name if split is None else root / split[speaker] / name
                write_audio(folder / f"{speaker}_{take}.wav", clip(emotion, number, take))
    return root


def recipe_dict(root: Path, **changes: Any) -> dict[str, Any]:
    """The whole method in two folds and with two variants; `changes` replace values, dots (as `__`) lead into them."""
    stage = {
        "freeze_feature_encoder": False,
        "per_device_train_batch_size": 6,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
    }
    recipe: dict[str, Any] = {
        "name": "tones",
        "corpus": {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN},
        "data": {"max_seconds": 0.2},
        "protocol": {"kind": "group-k-fold", "folds": 2, "dev_speakers": 1},
        "backbone": dict(BACKBONE),
        "pseudo_labels": {"layers": [-2], "clusters": [3, 5]},
        "stages": {name: dict(stage) for name in ("multitask", "retrain", "finetune")},
        "variants": ["gmp-atl", "direct"],
    }
    return changed_recipe(recipe, **changes)


def changed_recipe(recipe: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values; `stages__finetune__learning_rate=0.1` leads into the mappings."""
    changed = copy.deepcopy(dict(recipe))
    for path, value in changes.items():
        *way, last = path.split("__")
        place = changed
        for key in way:
            place = place.setdefault(key, {})
        place[last] = value
    return changed


def given_split(root: Path, **changes: Any) -> dict[str, Any]:
    """One fold with a split that the corpus prescribes; `root` as `write_corpus(..., split=SPLIT)` made it."""
    recipe = recipe_dict(root, protocol={"kind": "given"}, variants=["gmp-atl"])
    recipe["corpus"]["speaker"] = SPLIT_EMOTION_PATTERN
    return changed_recipe(recipe, **changes)


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
    return path


def run(recipe: Mapping[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """Run a recipe in this process."""
    return run_recipe(Recipe.from_dict(recipe), output_dir=folder, **options)


# ---- looking at what a run wrote -------------------------------------------------------------------------------------


def files_of(folder: Path) -> set[str]:
    """Every file below a folder, relative to it."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files that match, by their path below the folder."""
    found = {file for pattern in patterns or ("**/*",) for file in folder.glob(pattern) if file.is_file()}
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(found)}


def results(folder: Path) -> dict[str, str]:
    """Digests of all that a run is for: weights, codebooks, frame labels, what was trained and on what, predictions.

    Left out is what says when and where: `step.json` and the report with its environment and command.
    """
    suffixes = (".safetensors", ".jsonl", ".parquet")
    names = ("training.json", "metrics.json", "split.json", "codebooks.json", "config.json", "preprocessor_config.json")
    names += ("heard_recordings.json",)
    return {
        name: digest for name, digest in digests(folder).items() if name.endswith(suffixes) or Path(name).name in names
    }


def stamps(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written, in nanoseconds."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()
    }


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
