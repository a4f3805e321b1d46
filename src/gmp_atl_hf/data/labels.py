"""Emotion names: the explicit map from a corpus' words to ours, and the shuffled labels of the control experiment."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from .corpora.base import LeftOut, Recording
from .spelling import spelling

if TYPE_CHECKING:
    from datasets import Dataset

    from ..protocols.fold import Fold

LabelMap = Mapping[str, "str | None"]
"""A corpus' word for an emotion to ours; two words may share one of ours, None drops the recordings."""


def check_label_map(recordings: Iterable[Recording], labels: LabelMap) -> None:
    """Refuse a label map that forgets an emotion of the data or names one that is not there.

    Args:
        recordings: All recordings the map is meant for.
        labels: The map.

    Raises:
        RequestError: Names the emotions with their number of recordings, or the nearest right name.
    """
    counts = Counter(recording.emotion for recording in recordings)
    present = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    for key, value in labels.items():
        if not isinstance(key, str) or not (value is None or (isinstance(value, str) and value)):
            raise RequestError(
                f"the label map has the entry {key!r}: {value!r}",
                "a name to the left, a name or null to the right",
                "put quotes round words that YAML takes for something else, such as 'no' or 'off'",
            )
    absent = [key for key in labels if key not in counts]
    if absent:
        near = difflib.get_close_matches(absent[0], list(counts), n=1)
        raise RequestError(
            f"the label map names {absent[0]!r}, which no recording has",
            f"the labels of the data: {present}",
            f"did you mean {near[0]!r}?" if near else f"take {absent[0]!r} out of labels",
        )
    forgotten = {name: count for name, count in sorted(counts.items()) if name not in labels}
    if forgotten:
        raise RequestError(
            "the label map says nothing about "
            + ", ".join(f"{name!r} ({count} recordings)" for name, count in forgotten.items()),
            "every label of the data to be kept, merged or dropped explicitly",
            "add to labels: " + ", ".join(f"{name}: {name}" for name in forgotten) + " (or null to drop)",
        )


def apply_label_map(recordings: Iterable[Recording], labels: LabelMap) -> tuple[list[Recording], list[LeftOut]]:
    """Rename, merge and drop emotions.

    Args:
        recordings: Recordings whose every emotion is in the map (`check_label_map`).
        labels: The map.

    Returns:
        The recordings that stay, with our names, and those that do not, with the reason.
    """
    kept, left_out = [], []
    for recording in recordings:
        emotion = labels[recording.emotion]
        if emotion is None:
            left_out.append(LeftOut(recording.file, f"label {recording.emotion} dropped by the label map"))
        else:
            kept.append(replace(recording, emotion=emotion))
    return kept, left_out


def alike(labels: Iterable[str]) -> list[str]:
    """Name emotions that may be one emotion: they differ in their spelling only.

    Args:
        labels: The emotions of a table.

    Returns:
        One sentence for each group of them.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[spelling(label)].append(label)
    return [
        f"the labels {' and '.join(names)} are {len(names)} emotions that differ in case only: merge them in labels if "
        "they are one"
        for names in groups.values()
        if len(names) > 1
    ]


def label_maps(table: Dataset) -> dict[str, Any]:
    """Give a table's emotions as a model wants to know them.

    Args:
        table: The table, whose `emotion` is a `ClassLabel`.

    Returns:
        `id2label` (number → emotion) and `label2id`, for `from_pretrained(..., **label_maps(table))`.

    Raises:
        RequestError: The table has no such column.

    Example:
        >>> label_maps(table)["label2id"]  # doctest: +SKIP
        {'anger': 0, 'happiness': 1, 'neutral': 2, 'sadness': 3}
    """
    names = getattr(table.features.get("emotion"), "names", None)
    if names is None:
        raise RequestError(
            f"the table has the columns {', '.join(table.column_names)}, and no emotion of datasets.ClassLabel",
            "the emotion of each recording as a datasets.ClassLabel",
            'load_corpus makes one; table.class_encode_column("emotion") makes one of names',
        )
    return maps_of(names)


def maps_of(names: Sequence[str]) -> dict[str, Any]:
    """`id2label` and `label2id` of emotions in their order."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def shuffle_labels(table: Dataset, fold: Fold, seed: int) -> Dataset:
    """Permute the emotions of training and development recordings within each speaker, evenly.

    The control experiment: what a model learns from such labels is chance level, with each speaker's own share of every
    emotion kept. The labels are dealt so that the recordings of each true emotion get every label about equally often:
    any permutation would do in the mean, but where angry clips happen to be called angry a little more often than
    anything else, that is learned, and single seeds end far from chance. Test recordings keep their true labels.

    Args:
        table: The table.
        fold: Whose training and development speakers get permuted labels.
        seed: Another seed gives another permutation.

    Returns:
        The same table, row by row and column by column, with the `emotion` column changed.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, (name, speaker) in enumerate(zip(table["id"], table["speaker"], strict=True)):
        if fold.part_of is None or fold.part_of[name] != "test":
            rows[speaker].append(row)
    emotions = np.asarray(list(table["emotion"]))
    rng = np.random.default_rng([seed, fold.number])
    for speaker in sorted({*fold.train, *fold.dev}):
        own = np.array(rows.get(speaker, []), dtype=int)
        mixed = rng.permutation(own)
        by_emotion = mixed[np.argsort(emotions[mixed], kind="stable")]
        emotions[by_emotion] = _dealt(emotions[own], rng)
    return replace_column(table, "emotion", emotions.tolist())


def _dealt(emotions: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """The same labels in another order: those of each kind at even distances, the first of them drawn."""
    kinds, counts = np.unique(emotions, return_counts=True)
    places = [(np.arange(count) + rng.random()) / count for count in counts]
    return np.repeat(kinds, counts)[np.argsort(np.concatenate(places))] if places else emotions


def replace_column(table: Dataset, name: str, values: Sequence[object], feature: object | None = None) -> Dataset:
    """Put other values into a column, at the same place.

    Args:
        table: The table.
        name: The column.
        values: One value per row.
        feature: The type of the new values; that of the old ones by default.

    Returns:
        A new table; the given one is untouched.
    """
    order = table.column_names
    feature = feature or table.features[name]
    return table.remove_columns(name).add_column(name, list(values), feature=feature).select_columns(order)
