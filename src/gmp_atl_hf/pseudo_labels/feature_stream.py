"""What flows through the pseudo-label step: features, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import datasets
import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from ..batching.length_batches import length_batches
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count
from .averaging import FeatureKey
from .codebook import FeatureSource
from .process_group import ProcessGroup

BATCH_SECONDS = 64.0
"""Seconds of audio per batch of extraction, padding included. Our choice."""

Stream: TypeAlias = Generator[tuple[int, dict[Any, Tensor]], None, None]
"""Row of the table, and layer (or other key) → (frames, channels) float32 on any device. Closing it early frees what it
holds."""

Extract: TypeAlias = Callable[[datasets.Dataset, Iterable[Sequence[int]]], Stream]
"""Gives the features of a table's rows in the batches and the order asked for."""


@dataclass(frozen=True)
class FeatureExtraction:
    """How to get features of a table's rows, and what they are.

    Args:
        extract: Streams the features.
        source: What the states are that they are made of; it names the layers.
        channels: Their width.
        config: Configuration of the model that has as many frames.
        batch_seconds: Seconds of audio per batch, padding included.
        keys: What the features of a clip are called; the layers where they are the states themselves.
    """

    extract: Extract
    source: FeatureSource
    channels: int
    config: GMPATLConfig
    batch_seconds: float = BATCH_SECONDS
    keys: tuple[FeatureKey, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys:
            object.__setattr__(self, "keys", self.source.layers)

    def batches(self, samples: np.ndarray) -> Iterator[list[int]]:
        """Batches of neighbours in length, given (rows,) lengths in samples."""
        return length_batches(samples, self.batch_seconds)

    def stream(
        self, table: datasets.Dataset, batches: Iterable[Sequence[int]], clips: int, description: str | None
    ) -> Stream:
        """The features of these batches, `clips` rows in all, with a progress bar; no bar without a description."""
        with (
            closing(self.extract(table, batches)) as stream,
            tqdm(total=clips, desc=description, unit="clip", disable=description is None) as bar,
        ):
            for item in stream:
                bar.update()  # first, for whoever has the last clip does not ask for more
                yield item

    def share(self, table: datasets.Dataset, description: str | None, group: ProcessGroup) -> Stream:
        """The features of all rows that are this process's to work on, in one pass, with a progress bar."""
        # Batches are those of one process, whoever works on them: they decide the last bits of a state.
        shard: Sequence[list[int]] = group.shard(list(self.batches(np.asarray(table["num_samples"]))))
        return self.stream(table, shard, sum(map(len, shard)), description)


def frames_of(table: datasets.Dataset, config: GMPATLConfig) -> list[int]:
    """The number of frames that a model makes of each row, from its `num_samples`."""
    return [frame_count(n, config.conv_kernel, config.conv_stride) for n in table["num_samples"]]
