"""Frame labels of the first iteration: clusters of MFCCs, written as step 2 of the method writes its own."""

from __future__ import annotations

from pathlib import Path

import datasets

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..pseudo_labels.cluster import cluster_and_label
from ..pseudo_labels.kmeans import MultiScaleKMeans
from ..recipe.recipe import PseudoLabelSpec
from .mfcc import mfcc_extraction


def make_mfcc_labels(
    folder: Path,
    config: GMPATLConfig,
    spec: PseudoLabelSpec,
    train: datasets.Dataset,
    dev: datasets.Dataset,
    description: str,
) -> None:
    """Cluster the MFCCs of the training rows and label every frame of training and development rows.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale).

    Args:
        folder: The step's folder, unfinished.
        config: The model's configuration, for the geometry of its frames.
        spec: Numbers of clusters and the sample; its layers and source are not used.
        train: Training rows; clusters see nothing else.
        dev: Development rows.
        description: What the progress bars say.
    """
    kmeans = MultiScaleKMeans(spec.clusters, spec.seed)
    cluster_and_label(folder, mfcc_extraction(config), kmeans, spec.sample_frames, train, dev, description)
