"""Recordings of a test that a model was trained or chosen on, whatever they and their speakers are called there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from ..checkpoints import heard_recordings, short_hash
from ..data.corpora import LeftOut
from ..data.spelling import first_few
from ..data.table import Corpus
from ..errors import RequestError, counted
from ..protocols.speakers import is_unknown
from .tested_model import keep


@dataclass(frozen=True)
class KnownRecordings:
    """What of a corpus a model knows.

    Args:
        model: What the model is called in messages.
        ids: The recordings.
        speakers: Who speaks in them; where nobody knows that, one recording says nothing of the next.
    """

    model: str
    ids: frozenset[str] = frozenset()
    speakers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: str, heard: frozenset[str], table: Dataset, digests: Mapping[str, str]) -> KnownRecordings:
        """Look for a model's recordings in a corpus, in all parts of it.

        Args:
            model: What it is called in messages.
            heard: What `heard_recordings` gives for it.
            table: The rows of the corpus.
            digests: id → hash of the samples, of those that were decoded.
        """
        rows = zip(table["id"], table["speaker"], strict=True) if heard else ()
        known = {one: who for one, who in rows if one in digests and short_hash(digests[one]) in heard}
        named = frozenset(who for who in known.values() if not is_unknown(who))
        return cls(model, frozenset(known), named)

    def refuse(self, table: Dataset, fix: str) -> None:
        """Refuse to test the model on recordings that it knows, or on others of the same speakers.

        Raises:
            RequestError: Says how many there are, and names the first.
        """
        if rows := self._rows(table):
            raise RequestError(
                f"{self.model} was trained or chosen on {counted(len(self.ids), 'recording')} of this corpus, whatever "
                f"they were called there: it knows the samples of {first_few(sorted(self.ids))}; {len(rows)} of the "
                f"{counted(len(table), 'recording')} to test on are among them or of their speakers",
                "test recordings, of speakers, that it has not heard before",
                fix,
            )

    def left_out_of(self, table: Dataset) -> tuple[Dataset, list[LeftOut]]:
        """The rows of speakers of whom the model knows no recording, and the others as left out.

        Raises:
            RequestError: No row would be left.
        """
        rows = set(self._rows(table))
        kept = [row for row in range(len(table)) if row not in rows]
        if not kept:
            raise RequestError(
                f"{self.model} was trained or chosen on recordings of every speaker of this test, whatever they were "
                f"called there: it knows the samples of {first_few(sorted(self.ids))}",
                "somebody it has not heard",
                "another corpus",
            )
        return keep(table, kept, "the model has heard the speaker, under this name or another")

    def _rows(self, table: Dataset) -> list[int]:
        pairs = enumerate(zip(table["id"], table["speaker"], strict=True)) if self.ids else ()
        return [row for row, (one, who) in pairs if one in self.ids or who in self.speakers]


def refuse_encoder(kind: str, checkpoint: str | Path, corpus: Corpus, tested: Collection[str]) -> None:
    """Refuse an encoder that knows recordings of speakers to be tested, under whatever names.

    Args:
        kind: What the encoder is called in messages, as in "backbone".
        checkpoint: Its folder or Hub id.
        corpus: The corpus, all parts of it.
        tested: The speakers.

    Raises:
        RequestError: Says how many recordings there are, and names the first.
    """
    heard = heard_recordings(checkpoint)
    known = KnownRecordings.of(f"the {kind} {checkpoint}", heard, corpus.table, corpus.digests)
    rows = [row for row, speaker in enumerate(corpus.table["speaker"]) if speaker in tested] if known.ids else []
    known.refuse(corpus.table.select(rows), f"another {kind}, or a corpus that it has not heard")
