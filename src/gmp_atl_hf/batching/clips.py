"""The table as a torch dataset indexed by `ClipKey`."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from torch.utils.data import Dataset

from ..data.audio import read_clip
from .feature_cache import FrontEndCache
from .sampler import ClipKey


class TableClips(Dataset[dict[str, Any]]):
    """Rows of a table with their waveform read, or with what a frozen front end makes of it.

    Decoding happens here rather than in the collator, so that loader workers share it out clip by clip. With a `cache`
    rows have what is kept in it, such as `conv_features`, in place of the `waveform`, and the audio is not looked at.
    """

    def __init__(self, table: datasets.Dataset, columns: tuple[str, ...], cache: FrontEndCache | None = None) -> None:
        kept = ["id", *(name for name in columns if name in table.column_names)]
        self.table = table.select_columns(kept if cache is not None else [*kept, "audio"])
        self.cache, self.audio = cache, table.select_columns(["audio"])
        self.names = [] if cache is None else cache.names(table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: ClipKey | int) -> dict[str, Any]:
        clip = key if isinstance(key, ClipKey) else ClipKey(int(key))
        row = {**self.table[clip.row], "key": clip}
        if self.cache is None:
            return {**row, "waveform": read_clip(row["audio"])}
        features = self.cache.read(self.names[clip.row], lambda: read_clip(self.audio[clip.row]["audio"]))
        front_end = self.cache.front_end
        return {**row, front_end.column: features, **front_end.inputs}


class InOrder(Dataset[dict[str, Any]]):
    """The rows in another order, (rows,) int64 places in the table; each still carries its place."""

    def __init__(self, clips: TableClips, order: np.ndarray) -> None:
        self.clips, self.order = clips, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.clips[int(self.order[index])]
