"""What pictures show beyond test predictions: how the trainings went and what the clusters stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..evaluation.metrics import IntArray


@dataclass(frozen=True)
class TrainingLog:
    """The log of one training.

    Args:
        stage: `multitask`, `retrain` or `finetune`.
        seed: Seed of the run.
        fold: Number of the fold.
        best_step: The optimiser step that was kept.
        log: Entries as the trainer makes them: `step`, `epoch` and either `loss` with its parts as `loss_<part>`, or
            the same and metrics with `eval_` in front.
    """

    stage: str
    seed: int
    fold: int
    best_step: int
    log: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ClusterUsage:
    """How often each cluster of a scale (`gmp_layer{L}_k{K}`) occurs in each emotion.

    `counts` are frames of training recordings, shape (emotions, clusters); other folds have other clusters.
    """

    scale: str
    seed: int
    fold: int
    counts: IntArray

    @property
    def used(self) -> int:
        """Number of clusters that occur at all."""
        return int(np.count_nonzero(self.counts.sum(axis=0)))

    @property
    def perplexity(self) -> float:
        """Exponential of the entropy of the clusters: how many equally frequent ones would be as varied."""
        return math.exp(_entropy(self.counts.sum(axis=0)))

    @property
    def explained(self) -> float:
        """Share of the entropy of emotions that knowing a frame's cluster takes away, from 0 to 1."""
        emotions = _entropy(self.counts.sum(axis=1))
        shared = emotions + _entropy(self.counts.sum(axis=0)) - _entropy(self.counts.ravel())
        return max(0.0, shared / emotions) if emotions > 0 else 0.0


@dataclass(frozen=True)
class TrainingDiagnostics:
    """Per variant, logs of its trainings (all seeds and folds) and the use of its clusters (one seed and fold)."""

    logs: Mapping[str, Sequence[TrainingLog]] = field(default_factory=dict)
    usage: Mapping[str, Sequence[ClusterUsage]] = field(default_factory=dict)


def _entropy(counts: IntArray) -> float:
    """Entropy in nats of the distribution that some counts make."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log(share)).sum())
