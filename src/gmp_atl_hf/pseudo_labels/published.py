"""HuBERT's published k-means, for those who must compare with older work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .lloyd import Codebook, full_precision, lloyd_pass, one_process


def published_settings(clusters: int, seed: int) -> dict[str, Any]:
    """Arguments of scikit-learn's `MiniBatchKMeans` in HuBERT's published recipe (fairseq, simple_kmeans).

    Args:
        clusters: K.
        seed: Its random state.
    """
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


def fit_published(
    frames: Tensor, norms: Tensor, origin: Tensor, clusters: int, *, seed: int, chunk_frames: int
) -> Codebook:
    """HuBERT's published k-means, measured as our own is.

    Args:
        frames: (frames, channels) floating point, any device; the fit itself runs on the CPU.
        norms: (frames,) float32, their `squared_norms` around the origin.
        origin: (channels,) float32, same device.
        clusters: K.
        seed: Of scikit-learn's draws.
        chunk_frames: Frames handled at once when measuring.

    Returns:
        The codebook, its centres on the device of ``frames``.
    """
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(**published_settings(clusters, seed)).fit(frames.float().cpu().numpy())
    centres = torch.from_numpy(fitted.cluster_centers_).float().to(frames.device)
    with full_precision(frames.device):
        _, counts, inertia = lloyd_pass(frames, norms, origin, centres - origin, chunk_frames, one_process)
    return Codebook(centres, inertia, len(frames), int(fitted.n_iter_), int((counts == 0).sum()))
