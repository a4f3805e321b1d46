"""HuBERT's published k-means, for those who must compare with older work."""

from __future__ import annotations

from typing import Any

import torch

from ..numerics import float32_matmul
from .lloyd import CentredFrames, Codebook, lloyd_pass


def published_settings(clusters: int, seed: int) -> dict[str, Any]:
    """Arguments of scikit-learn's `MiniBatchKMeans` in HuBERT's published recipe (fairseq, simple_kmeans)."""
    return {
        "n_clusters": clusters,
        "init": "k-means++",
        "n_init": 20,
        "batch_size": 10_000,
        "max_iter": 100,
        "tol": 0.0,
        "max_no_improvement": 100,
        "reassignment_ratio": 0.0,
        "compute_labels": False,
        "random_state": seed,
    }


def fit_published(data: CentredFrames, clusters: int, *, seed: int) -> Codebook:
    """HuBERT's published k-means, fitted on the CPU and measured as our own is."""
    from sklearn.cluster import MiniBatchKMeans

    frames = data.frames
    fitted = MiniBatchKMeans(**published_settings(clusters, seed)).fit(frames.float().cpu().numpy())
    centres = torch.from_numpy(fitted.cluster_centers_).float().to(frames.device)
    with float32_matmul(frames.device):
        _, counts, inertia = lloyd_pass(data, centres - data.origin)
    return Codebook(centres, inertia, len(frames), int(fitted.n_iter_), int((counts == 0).sum()))
