"""`labels.parquet`: written in parts by several processes, joined by one, read back without filling the memory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ..files import check_files, damaged, whole_file, write_whole
from .labelling import WindowLabels

LABELS_FILE = "labels.parquet"
PARTS_FOLDER = "label-parts"
COPY_FILE = "labels.arrow"

_DIGEST_BYTES = hashlib.sha256().digest_size

PARTS_PER_GROUP = 8
"""Parts that make up one row group of the file."""


def part_path(folder: Path, window: range) -> Path:
    """Where the labels of a window wait until all are there."""
    return folder / PARTS_FOLDER / f"{window.start:09d}-{window.stop:09d}.parquet"


def write_part(folder: Path, window: range, ids: Sequence[str], labels: WindowLabels) -> None:
    """Writes the labels of one window, whole or not at all."""
    columns = {"id": pa.array(ids, pa.string())}
    for name, rows in labels.items():
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(rows), pa.int32()))
    content = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), content)
    encoded = content.getvalue().to_pybytes()
    write_whole(part_path(folder, window), encoded + hashlib.sha256(encoded).digest())


def read_part(folder: Path, window: range) -> pa.Table | None:
    """Reads the labels of one window; None where they are not there, or not as they were written."""
    path = part_path(folder, window)
    content = path.read_bytes() if path.is_file() else b""
    encoded, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return pq.read_table(pa.BufferReader(encoded)) if digest == hashlib.sha256(encoded).digest() else None


def join_parts(folder: Path, windows: Sequence[range]) -> None:
    """Makes one file of all parts, given all windows in order, and removes the parts."""
    schema = _part(folder, windows[0]).schema
    with whole_file(folder / LABELS_FILE) as path, pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(windows), PARTS_PER_GROUP):
            group = windows[start : start + PARTS_PER_GROUP]
            writer.write_table(pa.concat_tables([_part(folder, window) for window in group]))
    shutil.rmtree(folder / PARTS_FOLDER)


def _part(folder: Path, window: range) -> pa.Table:
    part = read_part(folder, window)
    if part is None:
        raise damaged(part_path(folder, window), "is damaged")
    return part


def copy_for_mapping(labels: Path, copy: Path) -> None:
    """Writes the labels of a `labels.parquet` uncompressed, as Arrow has them in memory, for `map_labels`."""
    check_files(labels.parent, labels.name)
    file = pq.ParquetFile(labels)
    with whole_file(copy) as path, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, file.schema_arrow) as to:
        for group in range(file.num_row_groups):
            to.write_table(file.read_row_group(group))


def map_labels(copy: Path) -> pa.Table:
    """The labels as a table whose content stays on the disk until it is read."""
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all()


def add_label_columns(table: datasets.Dataset, labels: pa.Table) -> datasets.Dataset:
    """The table with the label columns of its rows.

    Args:
        table: Rows that have been labelled.
        labels: `id` and one column per scale, in any order of rows. Where it is the table's, nothing is copied.
    """
    wanted = pa.array(table["id"][:], pa.string())
    first = pc.index(labels["id"], wanted[0]).as_py() if len(wanted) else 0
    matching = labels.slice(max(first, 0), len(wanted))
    if not matching["id"].combine_chunks().equals(wanted):
        matching = labels.take(pc.index_in(wanted, labels["id"]))
    with quiet_datasets():  # it calls what it does "Flattening the indices"
        for column in matching.column_names[1:]:
            table = table.add_column(column, matching[column])
    return table


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Hides bars that say what `datasets` does rather than what we do."""
    shown = not datasets.are_progress_bars_disabled()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
