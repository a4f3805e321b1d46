"""The `datasets` map step that writes one column of frame labels for each scale."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import datasets
import numpy as np
from datasets.fingerprint import Hasher

from ..front_end.cache import FrontEndCache
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .features import BATCH_SECONDS, feature_source, hidden_states_of
from .kmeans import MultiScaleKMeans
from .label_file import quiet_datasets
from .labels import WINDOW_ROWS, label_windows, windows_of


def attach_pseudo_labels(
    table: datasets.Dataset,
    kmeans: MultiScaleKMeans,
    model: GMPATLPreTrainedModel,
    feature_extractor: Any,
    batch_seconds: float = BATCH_SECONDS,
    description: str = "Attaching pseudo-labels",
    cache: FrontEndCache | None = None,
) -> datasets.Dataset:
    """Label every frame of a table at every scale.

    Args:
        table: The table; never changed.
        kmeans: Fitted clusters. They refuse features of another checkpoint, layer or setting.
        model: The model whose hidden states were clustered.
        feature_extractor: Its feature extractor.
        batch_seconds: Seconds of audio per batch of the extraction, padding included.
        description: What the progress bar says.
        cache: As for `extract_features`.

    Returns:
        The table with a column `gmp_layer{L}_k{K}` per scale, each a list of int32, one per frame.

    Raises:
        RequestError: The clusters were fitted on other features.
    """
    source = feature_source(model, kmeans.layers, feature_extractor)
    kmeans.check_source(source)
    windows = windows_of(len(table))
    extract = hidden_states_of(model, kmeans.layers, feature_extractor, cache)
    features = datasets.Features({column: datasets.List(datasets.Value("int32")) for column in kmeans.columns})
    with closing(label_windows(extract, kmeans, source, table, windows, batch_seconds)) as stream:

        def label(_rows: dict[str, Any], indices: list[int]) -> dict[str, list[np.ndarray]]:
            window, labels = next(stream)
            assert (indices[0], indices[-1] + 1) == (window.start, window.stop)
            return labels

        # Only the new columns are written: the map would otherwise encode the audio again, for which datasets 5 wants
        # torchcodec. The fingerprint is given because hashing the closure would pickle the whole model.
        labelled = table.select_columns(["num_samples"]).map(
            label,
            batched=True,
            with_indices=True,
            batch_size=WINDOW_ROWS,
            writer_batch_size=WINDOW_ROWS,
            remove_columns=["num_samples"],
            features=features,
            new_fingerprint=Hasher.hash([table._fingerprint, kmeans.fingerprint, sorted(source.checkpoint.items())]),
            load_from_cache_file=False,
            desc=description,
        )
    kept = table.remove_columns([column for column in kmeans.columns if column in table.column_names])
    with quiet_datasets():
        return datasets.concatenate_datasets([kept, labelled], axis=1)
