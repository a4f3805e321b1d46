"""What a model to be tested on a corpus has to offer, ours or anybody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from datasets import Dataset

from ..data.corpora import LeftOut
from ..protocols.leakage import HeldOut

Row = dict[str, Any]
"""A row of `predictions.jsonl`."""


@dataclass(frozen=True)
class Fitted:
    """A corpus as a model can be tested on it.

    Args:
        table: Its rows, with the emotions numbered as in `names`.
        names: All answers that the model may give.
        left_out: Recordings that it cannot be tested on, with the reason.
        stamps: What has to stand beside every number.
        facts: What else a program that reads the report may want to know, JSON types.
    """

    table: Dataset
    names: list[str]
    left_out: list[LeftOut] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class TestedModel(Protocol):
    """A model that has been loaded, and refused if it cannot be tested."""

    @property
    def seen(self) -> Sequence[str]:
        """Whom it was trained on, see `seen_speakers`."""
        ...

    @property
    def heard(self) -> frozenset[str]:
        """What recordings it knows, see `heard_recordings`."""
        ...

    @property
    def corpus_labels(self) -> Mapping[str, str | None] | None:
        """What becomes of the corpus' emotions when it is read; None for nothing."""
        ...

    def fit(self, table: Dataset) -> Fitted:
        """Bring the emotions of a corpus and the answers of the model together, or refuse them."""
        ...

    def predict(self, fitted: Fitted, batch_size: int, held_out: HeldOut) -> list[Row]:
        """Answer for every row, in the table's order."""
        ...

    def notes(self, fitted: Fitted, rows: Sequence[Row]) -> list[str]:
        """What a reader of the numbers should know, one sentence each."""
        ...


def keep(table: Dataset, rows: Sequence[int], reason: str) -> tuple[Dataset, list[LeftOut]]:
    """Some rows of a table, and the others as left out."""
    kept = set(rows)
    return table.select(rows), [LeftOut(one, reason) for row, one in enumerate(table["id"]) if row not in kept]
