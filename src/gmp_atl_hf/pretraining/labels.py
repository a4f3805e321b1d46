"""Frame labels of the first iteration: clusters of MFCCs, written as step 2 of the method writes its own."""

from __future__ import annotations

from pathlib import Path

import datasets

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..pseudo_labels.cluster import cluster_and_label
from ..pseudo_labels.features import BATCH_SECONDS, frames_of
from ..recipe.recipe import PseudoLabelSpec
from .mfcc import DIMENSIONS, mfcc_source, mfccs_of


def make_mfcc_labels(
    folder: Path,
    config: GMPATLConfig,
    spec: PseudoLabelSpec,
    train: datasets.Dataset,
    dev: datasets.Dataset,
    description: str,
) -> None:
    """Cluster the MFCCs of the training rows and label every frame of training and development rows.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale). Of `spec`
    only the numbers of clusters and the sample are used.
    """
    cluster_and_label(
        folder,
        mfccs_of(config),
        mfcc_source(),
        DIMENSIONS,
        frames_of(train, config),
        train,
        dev,
        clusters=spec.clusters,
        sample_frames=spec.sample_frames,
        seed=spec.seed,
        batch_seconds=BATCH_SECONDS,
        description=description,
    )
