"""What a model to be tested on a corpus has to offer, ours or anybody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from datasets import Dataset

from ..data.audio import FloatArray
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


class WaveformScorer(Protocol):
    """A model that scores waveforms, which need not be those of files."""

    @property
    def most(self) -> int | None:
        """Most samples, at 16 kHz, that it takes at once; None for no limit."""
        ...

    @property
    def sampling_rate(self) -> int:
        """Samples per second that it wants; waveforms come to it at 16 kHz nevertheless."""
        ...

    @property
    def normalizes(self) -> bool:
        """Whether its feature extractor brings every recording to the same level."""
        ...

    def batches(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        """Rows that are scored together, as `predict` would; `lengths` are their samples at 16 kHz."""
        ...

    def prepare(self, waveforms: Sequence[FloatArray]) -> Any:
        """Make a batch of (samples,) float32 waveforms at 16 kHz; may run in another thread than `outputs`."""
        ...

    def outputs(self, batch: Any, names: Sequence[str]) -> FloatArray:
        """(clips, outputs) float32 of a prepared batch; `names` are the clips', for messages."""
        ...


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

    def scorer(self, fitted: Fitted) -> WaveformScorer:
        """Load what scores waveforms; those of the table's recordings get the outputs of `predict`."""
        ...

    def rows(self, fitted: Fitted, outputs: FloatArray) -> list[Row]:
        """Rows of predictions, from what the scorer gave for every row, (rows, outputs), in the table's order."""
        ...

    def notes(self, fitted: Fitted, rows: Sequence[Row]) -> list[str]:
        """What a reader of the numbers should know, one sentence each."""
        ...


def keep(table: Dataset, rows: Sequence[int], reason: str) -> tuple[Dataset, list[LeftOut]]:
    """Some rows of a table, and the others as left out."""
    kept = set(rows)
    return table.select(rows), [LeftOut(one, reason) for row, one in enumerate(table["id"]) if row not in kept]
