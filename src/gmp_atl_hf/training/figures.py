"""The figures of an evaluation: the loss and its parts, and how many are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DivergenceError
from ..evaluation.metrics import emotion_metrics
from ..modeling.losses_gmp_atl import IGNORED
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel


def figure_names(model: GMPATLPreTrainedModel) -> list[str]:
    """Name all figures that a model may have, without `eval_`, the ones to choose by first."""
    parts = model.loss_parts
    if "labels" not in model.target_names:
        return ["loss", *(f"{kind}_{part}" for kind in ("loss", "accuracy") for part in parts)]
    accuracies = [f"accuracy_{part}" for part in parts if part != "emotion"]  # WAR under a second name
    return ["uar", "war", "macro_f1", "loss", *(f"loss_{part}" for part in parts), *accuracies]


def figures_of(model: GMPATLPreTrainedModel, arrays: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Compute the figures of a table by name.

    Args:
        model: The model that was evaluated.
        arrays: Per clip the emotion logits (clips, emotions) where there are any, and sums, counts and correct items
            of each part of the loss (clips, parts), float32.
        labels: (clips,) int64 emotions; -100 where not known.

    Raises:
        DivergenceError: A score or loss is not finite.
    """
    lost = ~np.all([np.isfinite(array).all(axis=1) for array in arrays], axis=0)
    if lost.any():
        raise DivergenceError(
            f"scores or losses of {lost.sum()} of {len(labels)} clips are no finite numbers",
            "finite numbers",
            "the model's weights are damaged, its training diverged, or fp16 is too narrow for it: train it again with "
            "a lower learning_rate, with max_grad_norm, in bf16 or float32",
        )
    figures: dict[str, float] = {}
    if len(arrays) >= 3:
        sums, counts, correct = (array.sum(0, dtype=np.float64) for array in arrays[-3:])
        losses = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        figures["loss"] = float(np.dot(losses, model.part_weights))
        counted = (arrays[-2] > 0).sum(0) if "labels" in model.target_names else counts
        for name, loss, hit, count in zip(model.loss_parts, losses, correct, counted, strict=True):
            if count > 0:
                figures[f"loss_{name}"] = float(loss)
                figures[f"accuracy_{name}"] = float(hit / count)
    known = labels != IGNORED
    if "labels" in model.target_names and known.any():
        figures |= emotion_metrics(labels[known], arrays[0][known].argmax(-1), model.config.num_emotions)
    return {name: value for name, value in figures.items() if name in figure_names(model)}
