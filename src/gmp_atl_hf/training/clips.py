"""The table as a torch dataset whose rows are asked for by `ClipKey`."""

from __future__ import annotations

from typing import Any

import datasets
from torch.utils.data import Dataset

from ..data.audio import read_clip
from .sampler import ClipKey


class TableClips(Dataset[dict[str, Any]]):
    """Rows of a table with their waveform read.

    Decoding happens here rather than in the collator, so that loader workers share it out clip by clip.

    Args:
        table: The table, with an `audio` column of encoded files.
        columns: Other columns that a row shall carry.
    """

    def __init__(self, table: datasets.Dataset, columns: tuple[str, ...]) -> None:
        self.table = table.select_columns(["id", "audio", *(name for name in columns if name in table.column_names)])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: ClipKey | int) -> dict[str, Any]:
        clip = key if isinstance(key, ClipKey) else ClipKey(int(key))
        row = self.table[clip.row]
        return {**row, "key": clip, "waveform": read_clip(row["audio"])}
