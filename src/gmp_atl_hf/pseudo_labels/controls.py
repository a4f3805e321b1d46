"""Frame labels that are no pseudo-labels: controls, which show whether the content of the labels matters at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ..data.scale_names import ScaleName
from ..errors import RequestError
from ..files import whole_file, write_whole
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..version import __version__
from .codebook import EXTENDED_VERSION, PROVENANCE_FILE
from .feature_stream import frames_of
from .label_file import LABELS_FILE, join_parts, write_part
from .labelling import windows_of

MOST_FRAMES = 10**9 - 1
"""Frames that numpy draws from without replacement, 5,500 hours."""


def write_oracle_labels(
    folder: Path, config: GMPATLConfig, train: datasets.Dataset, dev: datasets.Dataset | None
) -> None:
    """Write the emotion of each clip as the label of each of its frames: what the best labels could know.

    Written: `labels.parquet` and `codebooks.json`, as clustering writes them, without any centres.

    Args:
        folder: The step's folder, unfinished.
        config: Of the model that has as many frames.
        train: Training rows.
        dev: Development rows, labelled for logging only.
    """
    emotions = train.features["emotion"].names
    column = str(ScaleName(None, len(emotions)))
    rows = train if dev is None else datasets.concatenate_datasets([train, dev])
    counts, windows = frames_of(rows, config), windows_of(len(rows))
    ids, told = rows["id"], rows["emotion"]
    for window in windows:
        labels = [np.full(counts[row], told[row], np.int32) for row in window]
        write_part(folder, window, ids[window.start : window.stop], {column: labels})
    join_parts(folder, windows)
    scale = {"k": len(emotions), "emotions": emotions, "training_speakers": sorted(set(train["speaker"]))}
    content: dict[str, Any] = {
        "format_version": EXTENDED_VERSION,
        "package_version": __version__,
        "control": "oracle",
        "scales": {column: scale},
    }
    write_whole(folder / PROVENANCE_FILE, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def shuffle_frame_labels(folder: Path, parts: Sequence[int], seed: int) -> None:
    """Permute the labels of a `labels.parquet` over all frames of each part of its rows, for each scale by itself.

    Every permutation is as likely as any other, and each label stays as frequent as it was. Labels are drawn without
    replacement from how often each occurs, so that memory does not depend on the number of frames.

    Args:
        folder: Where the file is; it is replaced.
        parts: Numbers of neighbouring rows that share their labels: those of training, then of development.
        seed: Of the permutations.

    Raises:
        RequestError: A part has more frames than can be drawn from.
    """
    file = pq.ParquetFile(folder / LABELS_FILE)
    columns = file.schema_arrow.names[1:]
    left = {(name, part): np.zeros(0, np.int64) for name in columns for part in range(len(parts))}
    for table, part in _pieces(file, parts):
        for name in columns:
            left[name, part] = _added(left[name, part], np.bincount(_values(table, name)))
    if max((int(counts.sum()) for counts in left.values()), default=0) > MOST_FRAMES:
        raise RequestError(
            "more frames to shuffle than can be drawn from",
            f"at most {MOST_FRAMES:,}, 5,500 hours",
            "leave the variant with pseudo_labels.control: shuffled out, or take fewer recordings",
        )
    draws = {key: np.random.default_rng([seed, columns.index(key[0]), key[1]]) for key in left}
    with whole_file(folder / LABELS_FILE) as path, pq.ParquetWriter(path, file.schema_arrow) as writer:
        for table, part in _pieces(file, parts):
            shuffled = {"id": table["id"].combine_chunks()}
            for name in columns:
                random, counts = draws[name, part], left[name, part]
                drawn = random.multivariate_hypergeometric(counts, len(_values(table, name)), method="marginals")
                left[name, part] = counts - drawn
                values = random.permutation(np.repeat(np.arange(len(drawn), dtype=np.int32), drawn))
                lengths = np.asarray(table[name].combine_chunks().value_lengths())
                ends = np.cumsum([0, *lengths], dtype=np.int32)
                shuffled[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.int32()))
            writer.write_table(pa.table(shuffled, schema=file.schema_arrow))


def _pieces(file: pq.ParquetFile, parts: Sequence[int]) -> Iterator[tuple[pa.Table, int]]:
    """The row groups of a file, cut where one part of its rows ends, each with the number of its part."""
    ends = np.cumsum(parts)
    row = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        while len(table):
            part = int(np.searchsorted(ends, row, side="right"))
            piece = table.slice(0, int(ends[part]) - row)
            yield piece, part
            row += len(piece)
            table = table.slice(len(piece))


def _values(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].combine_chunks().flatten(), np.int64)


def _added(counts: np.ndarray, more: np.ndarray) -> np.ndarray:
    both = np.zeros(max(len(counts), len(more)), np.int64)
    both[: len(counts)] += counts
    both[: len(more)] += more
    return both
