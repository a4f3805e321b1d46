"""Frame labels in a table that a model cannot be trained on, found in one pass over the columns."""

from __future__ import annotations

from functools import partial

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from ..data.table_values import holds, refuse_rows, within
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.losses_gmp_atl import IGNORED

_ROWS_AT_ONCE = 10_000


def refuse_unusable_frame_labels(table: datasets.Dataset, config: GMPATLConfig) -> None:
    """Refuse, by a `RequestError`, pseudo-labels beyond the model's clusters, and rows without pseudo-labels."""
    for name, clusters in (config.frame_scales or {}).items():
        kind = table.data.schema.field(name).type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not (lists and pa.types.is_integer(kind.value_type)):
            raise RequestError(
                f"the column {name} holds {kind}",
                "a list of whole numbers in each row, one per frame",
                "attach_pseudo_labels(...) makes the column",
            )
        refuse_rows(
            table,
            name,
            _rows_of_wrong_frames(table, name, clusters),
            f"a whole number from 0 to {clusters - 1} for each frame, {IGNORED} where a frame has no label",
            f"attach_pseudo_labels(...) anew, or the number of clusters that was fitted in frame_scales: {name} "
            f"has {clusters} there",
            shown=partial(_first_wrong, clusters=clusters),
        )


def _rows_of_wrong_frames(table: datasets.Dataset, name: str, clusters: int) -> npt.NDArray[np.bool_]:
    """Rows that have no list of labels, or one with a label that is no cluster."""
    wrong = np.zeros(len(table), dtype=bool)
    start = 0
    # Some rows at a time: the labels of a large corpus stay on the disk.
    for batch in table.select_columns([name]).with_format("arrow").iter(_ROWS_AT_ONCE):
        for lists in batch[name].chunks:
            labels = pc.list_flatten(lists)
            held = holds(labels, pc.or_(within(labels, clusters), pc.equal(labels, IGNORED)))
            missing = np.flatnonzero(pc.is_null(lists))
            wrong[start + missing] = True
            if not held.all():
                wrong[start + np.asarray(pc.list_parent_indices(lists))[~held]] = True
            start += len(lists)
    return wrong


def _first_wrong(labels: list[int | None] | None, clusters: int) -> int | None:
    if labels is None:
        return None
    return next(one for one in labels if one is None or (one != IGNORED and not 0 <= one < clusters))
