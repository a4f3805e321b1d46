"""What a learned sum over layers came to weigh, from the finished fine-tunings of a variant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors import safe_open
from scipy.special import softmax
from transformers.utils import SAFE_WEIGHTS_NAME

from ..run_folder.step_folder import StepFolder

WEIGHTS = "hubert.layer_weights"
"""Name of the sum's parameter, (states,) before its softmax; a model that reads one layer has none."""


def describe_layer_weights(variant: str, finetunes: Sequence[StepFolder]) -> str | None:
    """Say what share each layer has in the sum that a variant reads, as the mean over its finished folds.

    Args:
        variant: Its name.
        finetunes: The fine-tunings of its folds and seeds.

    Returns:
        A sentence, with 0 for what enters the first layer; None where nothing is summed, or nothing is finished.
    """
    shares = [share for step in finetunes if step.finished for share in _shares(step)]
    if not shares:
        return None
    mean, spread = np.mean(shares, axis=0), np.ptp(shares, axis=0).max()
    listed = ", ".join(f"layer {number} {100 * share:.1f} %" for number, share in enumerate(mean))
    return (
        f"{variant}: shares of the layers in the learned sum, mean of {len(shares)} fine-tunings: {listed} "
        f"(a layer differs by at most {100 * spread:.1f} points between them)."
    )


def _shares(step: StepFolder) -> list[np.ndarray]:
    """The softmax of the weights of one fine-tuning; nothing where it has none."""
    file = step.resolve() / SAFE_WEIGHTS_NAME
    if not file.is_file():
        return []  # saved in parts, as only models far larger than HuBERT are
    with safe_open(file, framework="numpy") as weights:
        return [softmax(weights.get_tensor(WEIGHTS).astype(np.float64))] if WEIGHTS in set(weights.keys()) else []
