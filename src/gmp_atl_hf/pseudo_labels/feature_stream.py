"""What flows through the pseudo-label step: features, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeAlias

import datasets
from torch import Tensor
from tqdm.auto import tqdm

Stream: TypeAlias = Generator[tuple[int, dict[int, Tensor]], None, None]
"""Row of the table, and layer → (frames, channels) float32 on any device. Closing it early frees what it holds."""

Extract: TypeAlias = Callable[[datasets.Dataset, Iterable[Sequence[int]]], Stream]
"""Gives the features of a table's rows in the batches and the order asked for."""


def shown(stream: Stream, clips: int, description: str | None) -> Stream:
    """The same stream with a progress bar.

    Args:
        stream: Features.
        clips: How many will come.
        description: What the bar says; None for no bar.
    """
    with closing(stream), tqdm(total=clips, desc=description, unit="clip", disable=description is None) as bar:
        for item in stream:
            bar.update()  # first, for whoever has the last clip does not ask for more
            yield item
