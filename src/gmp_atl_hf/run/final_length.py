"""How long the model of all speakers is trained, which has nobody to choose its epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stop:
    """Where a training ends; by default where it was planned to.

    Args:
        epoch: Number of epochs, any fraction.
        step: Number of optimiser steps.
    """

    epoch: float | None = None
    step: int | None = None


def best_epoch(training: Mapping[str, Any]) -> float | None:
    """The epochs after which a training was at its best step, by its `training.json`; None where that does not say."""
    for entry in reversed(training.get("log", [])):
        if entry.get("epoch"):
            return round(training["best_step"] * float(entry["epoch"]) / int(entry["step"]), 6)
    return None


def stop_like(folds: Sequence[Mapping[str, Any]]) -> Stop:
    """The median of the folds' best epochs: with more speakers an epoch has more steps than any fold's.

    Args:
        folds: `best_step` and `best_epoch` of each. Where a fold lacks the latter, since its training logged nothing or
            its search was made by an older version, the median of the steps is taken.
    """
    epochs = [each["best_epoch"] for each in folds if each.get("best_epoch") is not None]
    if len(epochs) < len(folds):
        return stop_at_step(folds)
    return Stop(epoch=statistics.median(epochs))


def stop_at_step(folds: Sequence[Mapping[str, Any]]) -> Stop:
    """The median of the folds' best steps, as in models that were made by older versions."""
    return Stop(step=round(statistics.median(each["best_step"] for each in folds)))
