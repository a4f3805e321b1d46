"""What a pre-training is judged by before it is used: labels in use, their stability, and masked-frame accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
from scipy.stats import entropy

from ..checkpoints import load_feature_extractor, load_model
from ..files import check_files
from ..modeling.modeling_gmp_atl import HubertForGMPATLFrameClassification
from ..pseudo_labels.label_file import LABELS_FILE
from ..report.drawing import BLUE, GREY, new_figure, save, styled
from ..run.stages import make_arguments
from ..training.trainer import GMPATLTrainer

MOST_FRAMES = 500_000
"""Frames that the agreement of two labellings is counted on, the first ones; enough for three digits."""


def describe_labels(folder: Path, scales: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """How evenly the clusters of each scale are used in a finished step of frame labels.

    Returns:
        Column → `clusters`, `used`, and `perplexity`: 2 to the entropy of the labels in bits, so as many clusters as
        would carry as much if all were used alike.
    """
    described = {}
    for column, clusters in scales.items():
        counts = np.bincount(_frames(folder, column), minlength=clusters)
        perplexity = round(float(np.exp(entropy(counts))), 2)
        described[column] = {"clusters": clusters, "used": int((counts > 0).sum()), "perplexity": perplexity}
    return described


def label_agreement(before: Path, after: Path) -> dict[str, dict[str, float]]:
    """How much the labels of one iteration say about those of the next, on the same rows.

    Returns:
        New column → old column → normalised mutual information, 0 for unrelated labels, 1 for the same partition.
    """
    from sklearn.metrics import normalized_mutual_info_score

    def read(folder: Path) -> dict[str, np.ndarray]:
        names = pyarrow.parquet.read_schema(folder / LABELS_FILE).names
        return {name: _frames(folder, name)[:MOST_FRAMES] for name in names if name != "id"}

    old, new = read(before), read(after)
    return {
        name: {other: round(float(normalized_mutual_info_score(values, others)), 4) for other, others in old.items()}
        for name, values in new.items()
    }


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


def draw_curves(report: Mapping[str, Any]) -> bytes:
    """Draw loss and frame accuracy of every iteration over its updates, as PNG; needs the extra `plots`."""
    with styled():
        return save(_curves_figure(report), "png")


def _curves_figure(report: Mapping[str, Any]) -> Any:
    iterations = report["iterations"]
    # What the trainings counted, and so what their log has.
    counted = "masked frames" if report["frame_targets"] == "masked" else "frames, masked or not,"
    figure = new_figure(3.6 * len(iterations) + 0.6, 5.2)
    axes = figure.subplots(2, len(iterations), squeeze=False, sharey="row")
    for column, entry in enumerate(iterations):
        upper, lower = axes[0][column], axes[1][column]
        training = [(row["step"], row["loss"]) for row in entry["log"] if "loss" in row]
        evaluations = [row for row in entry["log"] if "eval_loss" in row]
        steps = [row["step"] for row in evaluations]
        upper.plot(*zip(*training, strict=True), color=GREY, label="training")
        upper.plot(steps, [row["eval_loss"] for row in evaluations], color=BLUE, label="held-out speakers")
        named = {
            name: f"{facts['clusters']:g} clusters (perplexity {facts['perplexity']:.0f})"
            for name, facts in entry.get("labels", {}).items()
        }
        named |= {name: f"{name}, cosine" for name in entry.get("cosines", {})}
        for name, label in named.items():
            lower.plot(steps, [100 * row[f"eval_accuracy_{name}"] for row in evaluations], label=label)
        source = {"mfcc": "MFCCs", "teacher": "a teacher"}.get(entry["features"], "hidden states")
        what = "states" if "cosines" in entry else "labels"
        upper.set_title(f"iteration {entry['iteration']}: {what} from {source}")
        lower.set_xlabel("updates")
        for one in (upper, lower):
            one.grid()
            one.legend(fontsize=7)
    axes[0][0].set_ylabel("loss")
    measures = ["cosine with the teacher × 100" if "cosines" in one else f"{counted} right (%)" for one in iterations]
    axes[1][0].set_ylabel(", or ".join(dict.fromkeys(measures)))
    return figure


def _frames(folder: Path, column: str) -> np.ndarray:
    """All labels of a column, one clip after the other."""
    check_files(folder, LABELS_FILE)
    values = pyarrow.parquet.read_table(folder / LABELS_FILE, columns=[column])[column]
    return np.asarray(values.combine_chunks().flatten())


def summarise(report: Mapping[str, Any]) -> str:
    """One line for each iteration, for the screen."""
    lines = []
    for entry in report["iterations"]:
        if "cosines" in entry:
            cosines = ", ".join(f"{name} {value:.3f}" for name, value in entry["cosines"].items())
            lines.append(f"Iteration {entry['iteration']} (teacher): cosine with the teacher: {cosines}")
            continue
        accuracies = ", ".join(f"{name} {100 * value:.1f} %" for name, value in entry["masked_frames_right"].items())
        lines.append(f"Iteration {entry['iteration']} ({entry['features']}): masked frames right: {accuracies}")
    return "\n".join(lines)
