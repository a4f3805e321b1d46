"""Labels shuffled within each speaker: the control experiment that shows what chance level looks like."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.columns import replace_column
from .fold import Fold

if TYPE_CHECKING:
    from datasets import Dataset


def shuffle_labels(table: Dataset, fold: Fold, seed: int) -> Dataset:
    """Permute the emotions of training and development recordings within each speaker, evenly.

    What a model learns from such labels is chance level, with each speaker's own share of every emotion kept. The
    labels are dealt so that the recordings of each true emotion get every label about equally often: any permutation
    would do in the mean, but where angry clips happen to be called angry a little more often than anything else, that
    is learned, and single seeds end far from chance. Test recordings keep their true labels.

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
