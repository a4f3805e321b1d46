"""What is clustered, made of a model's states: normalised by their group, then averaged over each window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import datasets

from ..data.scale_names import SINGLE_FRAME
from .averaging import averaged, averaging_radii, feature_keys
from .feature_stream import FeatureExtraction, Stream
from .normalization import GroupStatistics


def prepared(
    extraction: FeatureExtraction, windows: Sequence[float], statistics: GroupStatistics | None
) -> FeatureExtraction:
    """The extraction with what is clustered in place of the layers' own states, clip by clip.

    A group's statistics are those of its single frames at every window: averaging normalised frames and normalising
    averaged ones is the same, and channels that move slowly keep their weight in long windows.

    Args:
        extraction: Of the states of the layers.
        windows: Seconds to average over.
        statistics: What frames are normalised by; None leaves them as they are. The tables to extract then need the
            column of the groups.

    Raises:
        RequestError: Two windows hold as many frames of this model.
    """
    if tuple(windows) == (SINGLE_FRAME,) and statistics is None:
        return extraction
    radii = averaging_radii(windows, extraction.config)

    def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        places = None if statistics is None else statistics.rows_of(table)
        with closing(extraction.extract(table, batches)) as stream:
            for row, states in stream:
                own = states if statistics is None or places is None else statistics.normalized(states, places[row])
                yield row, averaged(own, radii)

    return replace(extraction, extract=extract, keys=tuple(feature_keys(extraction.source.layers, windows)))
