"""One column of frame labels for each scale, beside the rows of a table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import datasets

from ..batching.feature_cache import FrontEndCache
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .features import BATCH_SECONDS, feature_source, hidden_states_of, open_cache
from .kmeans import MultiScaleKMeans
from .label_file import COPY_FILE, LABELS_FILE, copy_for_mapping, join_parts, map_labels, put_beside, write_part
from .labelling import label_windows, windows_of


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
        table: The table; never changed.
        kmeans: Fitted clusters. They refuse features of another checkpoint, layer or setting.
        model: The model whose hidden states were clustered.
        feature_extractor: Its feature extractor.
        batch_seconds: Seconds of audio per batch of the extraction, padding included.
        description: What the progress bar says; None for no bar.
        cache: The front-end cache or its folder; None computes the front end.

    Returns:
        The table with a column `gmp_layer{L}_k{K}` per scale, each a list of int32, one per frame.

    Raises:
        RequestError: The clusters were fitted on other features, or the table has no rows.

    Example:
        >>> train = attach_pseudo_labels(table, kmeans, model, feature_extractor)  # doctest: +SKIP
    """
    source = feature_source(model, kmeans.layers, feature_extractor)
    kmeans.check_source(source)
    if len(table) == 0:
        raise RequestError("the table has no rows", "at least one recording", "label the parts that have rows")
    cache = open_cache(cache, model, feature_extractor, table, description)
    extract = hidden_states_of(model, kmeans.layers, feature_extractor, cache)
    rows, windows = table.select_columns(["id", "audio", "num_samples"]), windows_of(len(table))
    kept = table.remove_columns([column for column in kmeans.columns if column in table.column_names])
    # The labels are mapped from the disk: the system frees the file's room once nobody reads it any more.
    with tempfile.TemporaryDirectory(prefix="gmp-labels-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        for window, labels in label_windows(extract, kmeans, source, rows, windows, batch_seconds, description):
            write_part(scratch, window, rows["id"][window.start : window.stop], labels)
        join_parts(scratch, windows)
        copy_for_mapping(scratch / LABELS_FILE, scratch / COPY_FILE)
        return put_beside(kept, map_labels(scratch / COPY_FILE))
