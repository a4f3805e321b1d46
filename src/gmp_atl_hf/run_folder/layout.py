"""The names of the files and folders of a run; whoever reads or writes one of them asks here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError

RECIPE_FILE = "recipe.yaml"
REPORT_FILE = "report.json"
LEFT_OUT_FILE = "left_out.jsonl"
ENVIRONMENT_FILE = "environment.json"
PREDICTIONS_FILE = "predictions.jsonl"
ADAPTED_FILE = "adapted.jsonl"
METRICS_FILE = "metrics.json"
SPLIT_FILE = "split.json"
USAGE_FILE = "usage.json"
TRAINING_FILE = "training.json"
DEV_LOGITS_FILE = "dev_logits.jsonl"

ADAPTER = "adapter"  # inside of a step or model that was trained with `lora`
MODEL = "model"
BACKBONE = "backbone"
CORPUS = "corpus"
FIGURES = "figures"
FRONT_END = "front-end"
TENSORBOARD = "_tensorboard"  # no variant begins so
RESERVED_NAMES = frozenset({MODEL, BACKBONE, CORPUS, FIGURES, FRONT_END})
"""Folders that a run has of its own; no variant may take their names."""

ALL_SPEAKERS = "all-speakers"
"""In place of a fold's name: the training that follows cross-validation."""

STEP_NAMES = {
    "multitask": "1-multitask",
    "pseudo-labels": "2-pseudo-labels",
    "retrain": "3-retrain",
    "finetune": "4-finetune",
}


@dataclass(frozen=True)
class FoldFolder:
    """What belongs to one variant, seed and fold."""

    path: Path

    @property
    def predictions(self) -> Path:
        """Scores of the test recordings."""
        return self.path / PREDICTIONS_FILE

    @property
    def adapted(self) -> Path:
        """What the model says once it knows some clips of the speaker; not there where it cannot be adapted."""
        return self.path / ADAPTED_FILE

    @property
    def metrics(self) -> Path:
        """What follows from the predictions; written last, so with it the test is done."""
        return self.path / METRICS_FILE

    def step(self, stage: str) -> Path:
        """Folder of a step, by the name of its stage."""
        return self.path / STEP_NAMES[stage]


@dataclass(frozen=True)
class RunFolder:
    """What belongs to a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was run."""
        return self.path / RECIPE_FILE

    @property
    def report(self) -> Path:
        """The numbers."""
        return self.path / REPORT_FILE

    @property
    def environment(self) -> Path:
        """The machines that it ran on."""
        return self.path / ENVIRONMENT_FILE

    @property
    def model(self) -> Path:
        """The model to ship."""
        return self.path / MODEL

    @property
    def corpus(self) -> Path:
        """Recordings that the run has made itself, those of `demo`."""
        return self.path / CORPUS

    @property
    def front_end(self) -> Path:
        """The front-end cache."""
        return self.path / FRONT_END

    def backbone(self, seed: int, variant: str | None = None) -> Path:
        """The untrained backbone of a seed; with a variant, that of this variant alone."""
        return self.path / BACKBONE / (variant or "") / f"seed-{seed}"

    def fold(self, variant: str, seed: int, number: int | str) -> FoldFolder:
        """What belongs to a fold, by its number from 1, or by its name."""
        name = number if isinstance(number, str) else f"fold-{number:02d}"
        return FoldFolder(self.path / variant / f"seed-{seed}" / name)

    def steps(self, variant: str) -> Iterator[Path]:
        """Folders of all steps of a variant, whatever their seed and fold, finished or not."""
        folders = sorted(self.path.glob(f"{variant}/seed-*/*/[0-9]-*"))
        return (folder for folder in folders if folder.is_dir())


def refuse_pretraining(folder: Path) -> None:
    """Refuse the folder of a pre-training where that of a run is wanted, and say what can be done with it."""
    if not any(folder.glob("iteration-1/[12]-*")):
        return
    encoder = folder / MODEL
    raise RequestError(
        f"{folder} is a pre-training: it has no test results, no classifier and no card; its encoder is {encoder}",
        "the folder of a run, which gmp-atl run makes",
        f"gmp-atl run RECIPE --set backbone={encoder}, or gmp-atl probe {encoder} --corpus NAME --root ROOT",
    )
