"""Batches of clips of similar length, for extraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..data.audio import SAMPLING_RATE


def length_batches(samples: Sequence[int] | np.ndarray, batch_seconds: float) -> Iterator[list[int]]:
    """Cuts rows, given their lengths in samples at 16 kHz, into batches of neighbours in length, shortest first.

    A batch has at most so many seconds, padding included; a single longer clip makes a batch of its own.
    """
    limit = batch_seconds * SAMPLING_RATE
    lengths = np.asarray(samples)
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * int(lengths[row]) > limit:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
