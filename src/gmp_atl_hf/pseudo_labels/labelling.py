"""Frame labels of a table, window by window: as many rows at a time as memory holds without a thought."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from torch import Tensor

from .feature_stream import FeatureExtraction
from .kmeans import MultiScaleKMeans

WINDOW_ROWS = 256
"""Neighbouring rows of the table that are labelled together, in batches of like length."""

LABELLED_FRAMES = 4096
"""Frames whose nearest centres are sought at once; one by one, clips would cost a GPU more in starting than in work."""

WindowLabels: TypeAlias = dict[str, list[np.ndarray]]
"""Column → (frames,) int32 for each row of a window."""


def windows_of(rows: int) -> list[range]:
    """Cuts the rows of a table into windows; they do not depend on how many processes share them."""
    return [range(start, min(start + WINDOW_ROWS, rows)) for start in range(0, rows, WINDOW_ROWS)]


def label_windows(
    extraction: FeatureExtraction,
    kmeans: MultiScaleKMeans,
    table: datasets.Dataset,
    windows: Sequence[range],
    description: str | None = None,
    classes: Sequence[str | None] | None = None,
) -> Generator[tuple[range, WindowLabels], None, None]:
    """Labels windows of a table at every layer, length of averaging and K, in one pass over their audio.

    Args:
        extraction: Of the features that were clustered, prepared as they were.
        kmeans: Fitted clusters.
        table: With `num_samples` and whatever the extraction needs.
        windows: Which rows, in which order.
        description: What the progress bar says; None for no bar.
        classes: For each row the class whose centres alone are looked at; None, there or here, for all centres.

    Yields:
        Each window with the labels of its rows.
    """
    samples = np.asarray(table["num_samples"])

    def batches() -> Iterator[list[int]]:
        for window in windows:
            for batch in extraction.batches(samples[window.start : window.stop]):
                yield [window.start + row for row in batch]

    with closing(extraction.stream(table, batches(), sum(map(len, windows)), description)) as stream:
        for window in windows:
            labels: WindowLabels = {column: [np.empty(0, np.int32)] * len(window) for column in kmeans.columns}
            waiting: dict[str | None, list[tuple[int, dict[Any, Tensor]]]] = defaultdict(list)
            frames = 0
            for number, (row, states) in enumerate(stream, start=1):
                waiting[None if classes is None else classes[row]].append((row - window.start, states))
                frames += len(states[extraction.keys[0]])
                if frames >= LABELLED_FRAMES or number == len(window):
                    for of, clips in waiting.items():
                        _label(extraction, kmeans, clips, labels, of)
                    waiting.clear()
                    frames = 0
                if number == len(window):
                    break
            yield window, labels


def _label(
    extraction: FeatureExtraction,
    kmeans: MultiScaleKMeans,
    clips: Sequence[tuple[int, dict[Any, Tensor]]],
    into: WindowLabels,
    of: str | None,
) -> None:
    """Labels several clips of one class at once and puts the labels of each in its place."""
    together = {key: torch.cat([states[key] for _, states in clips]) for key in kmeans.keys}
    ends = np.cumsum([len(states[kmeans.keys[0]]) for _, states in clips])
    for column, labels in kmeans.predict(together, extraction.source, of, prepared=True).items():
        for (place, _), values in zip(clips, np.split(labels.cpu().numpy(), ends[:-1]), strict=True):
            into[column][place] = values
