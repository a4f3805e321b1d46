"""One column of frame labels for each scale, beside the rows of a table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import datasets

from ..batching.feature_cache import FrontEndCache
from ..data.table_values import usable_clips
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .classes import classes_to_label_by
from .cluster import label_table
from .feature_stream import BATCH_SECONDS
from .features import feature_source, hidden_state_extraction, open_cache
from .kmeans import MultiScaleKMeans
from .label_file import COPY_FILE, LABELS_FILE, add_label_columns, copy_for_mapping, map_labels


def attach_pseudo_labels(
    table: datasets.Dataset,
    kmeans: MultiScaleKMeans,
    model: GMPATLPreTrainedModel,
    feature_extractor: Any,
    batch_seconds: float = BATCH_SECONDS,
    description: str | None = "Attaching pseudo-labels",
    cache: FrontEndCache | str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Label every frame of a table at every scale.

    Args:
        table: The table; never changed. It needs the column that frames are normalised by, if they are, and `speaker`
            and the emotion or gender, if each was clustered by itself: who was clustered has the centres of their own.
        kmeans: Fitted clusters. They refuse features of another checkpoint, layer or setting.
        model: The model whose hidden states were clustered.
        feature_extractor: Its feature extractor.
        batch_seconds: Seconds of audio per batch of the extraction, padding included.
        description: What the progress bar says; None for no bar.
        cache: The front-end cache or its folder; None computes the front end.

    Returns:
        The table with a column per scale, each a list of int32, one per frame: `gmp_layer{L}_k{K}`, or
        `gmp_layer{L}_w{milliseconds}ms_k{K}` for states that were averaged.

    Raises:
        RequestError: The clusters were fitted on other features, or the table has no rows, lacks a column or holds what
            cannot be used.

    Example:
        >>> train = attach_pseudo_labels(table, kmeans, model, feature_extractor)  # doctest: +SKIP
    """
    table = usable_clips(table)
    source = feature_source(model, kmeans.layers, feature_extractor)
    kmeans.check_source(source)
    if len(table) == 0:
        raise RequestError("the table has no rows", "at least one recording", "label the parts that have rows")
    clustered = sorted({speaker for scale in kmeans.scales.values() for speaker in scale.training_speakers})
    classes = None if kmeans.per == "none" else classes_to_label_by(table, kmeans.per, clustered)
    cache = open_cache(cache, model, feature_extractor, table, description)
    extraction = hidden_state_extraction(model, kmeans.layers, feature_extractor, cache, batch_seconds, source)
    kept = table.remove_columns([column for column in kmeans.columns if column in table.column_names])
    # The labels are mapped from the disk: the system frees the file's room once nobody reads it any more.
    with tempfile.TemporaryDirectory(prefix="gmp-labels-", ignore_cleanup_errors=True) as folder:
        labels, copy = Path(folder, LABELS_FILE), Path(folder, COPY_FILE)
        label_table(labels.parent, extraction, kmeans, table, description, classes=classes)
        copy_for_mapping(labels, copy)
        return add_label_columns(kept, map_labels(copy))
