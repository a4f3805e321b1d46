"""Emotion names: the explicit map from a corpus' words to ours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, counted, did_you_mean
from .corpora.base import UNLABELLED, LeftOut, Recording
from .spelling import spelling, tidy_text
from .table_values import emotions_of_table

if TYPE_CHECKING:
    from datasets import Dataset

LabelMap = Mapping[str, "str | None"]
"""A corpus' word for an emotion to ours; two words may share one of ours, None drops the recordings."""

_NO_LABEL = frozenset({"unknown", "unk", "undefined", "unlabeled", UNLABELLED, "no label", "no agreement", "na", "xxx"})
"""Words that lists have where nobody has labelled a recording, and where its annotators did not agree."""


def tidy_label_map(labels: LabelMap | None) -> LabelMap | None:
    """Spell the words of a label map, on both sides, as those of the corpus are spelt.

    Raises:
        RequestError: A word is then there twice, and means two things.
    """
    if not isinstance(labels, Mapping):
        return labels
    tidy = dict[Any, Any]()
    for key, value in labels.items():
        word, label = (tidy_text(one) if isinstance(one, str) else one for one in (key, value))
        if tidy.setdefault(word, label) != label:
            raise RequestError(
                f"the label map gives {word!r} twice, as {tidy[word]!r} and as {label!r}",
                "one meaning of every word; blanks at its ends do not make another one",
                "take one of the two out of labels",
            )
    return tidy


def check_label_map(recordings: Iterable[Recording], labels: LabelMap) -> None:
    """Refuse a label map that forgets an emotion of the data or names one that is not there.

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
        name, colon, label = absent[0].partition(":")
        # YAML takes `name:label` without a blank for one name, of nothing.
        joined = colon and name in counts and labels[absent[0]] is None
        fix = did_you_mean(absent[0], counts, f"take {absent[0]!r} out of labels")
        raise RequestError(
            f"the label map names {absent[0]!r}, which no recording has",
            f"the labels of the data: {present}",
            f"put a blank behind the colon: {{{name}: {label}}}" if joined else fix,
        )
    forgotten = {name: count for name, count in sorted(counts.items()) if name not in labels}
    if forgotten:
        raise RequestError(
            "the label map says nothing about "
            + ", ".join(f"{name!r} ({counted(count, 'recording')})" for name, count in forgotten.items()),
            "every label of the data to be kept, merged or dropped explicitly",
            "add to labels: " + ", ".join(f"{name}: {name}" for name in forgotten) + " (or null to drop)",
        )


def apply_label_map(recordings: Iterable[Recording], labels: LabelMap) -> tuple[list[Recording], list[LeftOut]]:
    """Rename, merge and drop emotions; those that stay, then those that do not, with the reason."""
    kept, left_out = [], []
    for recording in recordings:
        emotion = labels[recording.emotion]
        if emotion is None:
            left_out.append(LeftOut(recording.file, f"label {recording.emotion} dropped by the label map"))
        else:
            kept.append(replace(recording, emotion=emotion))
    return kept, left_out


def alike(labels: Iterable[str]) -> list[str]:
    """One sentence for each group of emotions that may be one: they are told apart by their spelling only."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[spelling(label)].append(label)
    return [
        f"the labels {' and '.join(names)} are {len(names)} emotions that differ in case only: merge them in labels if "
        "they are one"
        for names in groups.values()
        if len(names) > 1
    ]


def no_emotions(counts: Mapping[str, int], named: Collection[str | None]) -> list[str]:
    """One sentence for each label that may stand for recordings without one, and yet is taken for an emotion.

    Args:
        counts: Label → number of recordings.
        named: Labels that a label map has chosen, which are meant.
    """
    # As the only label it is what readers give to speech without emotions.
    words = _NO_LABEL if len(counts) > 1 else _NO_LABEL - {UNLABELLED}
    return [
        f"{counted(count, 'recording has', 'recordings have')} the label {label!r}, which is taken for an emotion: map "
        f"it to null in labels if it stands for none, or to {label!r} if it is meant"
        for label, count in sorted(counts.items())
        if label not in named and (label.casefold() in words or not any(map(str.isalnum, label)))
    ]


def label_maps(table: Dataset) -> dict[str, Any]:
    """Give a table's emotions as a model wants to know them.

    Args:
        table: The table, whose `emotion` is a `ClassLabel`.

    Returns:
        `id2label` (number → emotion) and `label2id`, for `from_pretrained(..., **label_maps(table))`.

    Raises:
        RequestError: It is no table, or has no such column.

    Example:
        >>> label_maps(table)["label2id"]  # doctest: +SKIP
        {'anger': 0, 'happiness': 1, 'neutral': 2, 'sadness': 3}
    """
    return maps_of(emotions_of_table(table))


def maps_of(names: Sequence[str]) -> dict[str, Any]:
    """`id2label` and `label2id` of emotions in their order."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
