"""Files that embeddings are written to row by row: parquet in row groups, npz a row of its largest member at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

METADATA_KEY = "gmp_atl_hf"
"""Key of the parquet schema's metadata under which model, layer and the rest stand, as JSON."""

TEXTS = ("id", "file", "speaker", "gender", "emotion", "error")

_GROUP_ROWS, _GROUP_VALUES = 1_000, 4 << 20
"""A row group is written at so many rows or numbers, whatever comes first: 16 MB of embeddings in memory."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recording.

    Args:
        id: What it is known by: that of the corpus' table, or the path.
        file: The name people know it by.
        speaker: Who speaks; None where it is not known. So for gender and emotion.
        gender: Female or male.
        emotion: The label.
        num_samples: Its length at 16 kHz; None where it could not be read.
        embedding: (width,) or, frame by frame, (frames, width) float32; None where it could not be read.
        error: Why it has none.
    """

    id: str
    file: str
    speaker: str | None = None
    gender: str | None = None
    emotion: str | None = None
    num_samples: int | None = None
    embedding: npt.NDArray[np.float32] | None = None
    error: str | None = None


class Writer(Protocol):
    """Takes rows one by one."""

    def write(self, row: Row) -> None:
        """Write a row, or keep it until there are enough."""

    def close(self) -> None:
        """Write what is left; without it the file cannot be read."""


class ParquetRows:
    """Rows as parquet, a row group at a time.

    Args:
        path: Where to.
        metadata: Model, layer and the rest, JSON types.
        frames: Whether embeddings are (frames, width), lists of lists in the file.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], frames: bool) -> None:
        vector = pa.list_(pa.float32())
        types = [(name, pa.string()) for name in TEXTS[:-1]]
        types += [("num_samples", pa.int64()), ("embedding", pa.list_(vector) if frames else vector)]
        types.append(("error", pa.string()))
        self.schema = pa.schema(types, metadata={METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
        self._file = pq.ParquetWriter(path, self.schema)
        self._rows: list[Row] = []
        self._values = 0

    def write(self, row: Row) -> None:
        """Keep a row until its group is full."""
        self._rows.append(row)
        self._values += 0 if row.embedding is None else row.embedding.size
        if len(self._rows) >= _GROUP_ROWS or self._values >= _GROUP_VALUES:
            self._flush()

    def close(self) -> None:
        """Write the last group and the footer."""
        if self._rows:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        columns = {
            name: [_as_lists(row.embedding) if name == "embedding" else getattr(row, name) for row in self._rows]
            for name in self.schema.names
        }
        self._file.write_table(pa.table(columns, schema=self.schema))
        self._rows, self._values = [], 0


class NpzRows:
    """Rows as npz: `embedding` is streamed into its member; the other columns, short texts and numbers, follow it.

    Args:
        path: Where to.
        metadata: As of `ParquetRows`; the member `metadata` holds it as text.
        shape: (recordings, width) of all that will be written: numpy puts it before the numbers.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], shape: tuple[int, int]) -> None:
        self.metadata, self.shape = metadata, shape
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._member = self._zip.open("embedding.npy", "w", force_zip64=True)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._member, header)
        self._texts: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._lengths: list[int] = []

    def write(self, row: Row) -> None:
        """Write a row; one without an embedding is not a number throughout, and has no samples."""
        vector = np.full(self.shape[1], np.nan, "<f4") if row.embedding is None else row.embedding.astype("<f4")
        assert vector.shape == self.shape[1:]
        self._member.write(vector.tobytes())
        for name, texts in self._texts.items():
            texts.append(getattr(row, name) or "")
        self._lengths.append(row.num_samples or 0)

    def close(self) -> None:
        """Write the other members and the directory."""
        self._member.close()
        for name, texts in self._texts.items():
            self._add(name, np.asarray(texts, dtype=np.str_))
        self._add("num_samples", np.asarray(self._lengths, dtype=np.int64))
        self._add("metadata", np.asarray(json.dumps(self.metadata, ensure_ascii=False)))
        self._zip.close()

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)


def _as_lists(embedding: npt.NDArray[np.float32] | None) -> Any:
    """What pyarrow takes: a vector as it is, frames as a list of vectors."""
    return list(embedding) if embedding is not None and embedding.ndim == 2 else embedding
