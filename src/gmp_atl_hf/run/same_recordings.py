"""Recordings of a test that a model was trained or chosen on, whatever they and their speakers are called there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from ..checkpoints import short_hash
from ..data.corpora import LeftOut
from ..data.spelling import first_few
from ..errors import RequestError
from ..protocols.speakers import is_unknown
from .tested_model import keep


def refuse_heard(table: Dataset, digests: Mapping[str, str], heard: frozenset[str], model: str | Path) -> None:
    """Refuse to test a model on recordings that it knows.

    Args:
        table: The rows to test on.
        digests: id → hash of the samples, of those that were decoded.
        heard: What `heard_recordings` gives for the model.
        model: Folder or Hub id, for the message.

    Raises:
        RequestError: Says how many there are, and names the first.
    """
    if known := _known(table, digests, heard):
        raise RequestError(
            f"{model} was trained or chosen on {len(known)} of {len(table)} recordings of this corpus, whatever they "
            f"were called there: it knows the samples of {first_few(known)}",
            "test recordings that it has not heard before",
            "--unseen-only tests on the other speakers; or give another corpus",
        )


def without_heard(
    table: Dataset, digests: Mapping[str, str], heard: frozenset[str], model: str | Path
) -> tuple[Dataset, list[LeftOut]]:
    """The rows of speakers of whom a model knows no recording, and the others as left out; see `refuse_heard`.

    Raises:
        RequestError: No row would be left.
    """
    known = {*_known(table, digests, heard)}
    pairs = list(zip(table["id"], table["speaker"], strict=True))
    # Where nobody knows who speaks, one recording says nothing of the next.
    speakers = {speaker for one, speaker in pairs if one in known and not is_unknown(speaker)}
    kept = [row for row, (one, speaker) in enumerate(pairs) if one not in known and speaker not in speakers]
    if not kept:
        raise RequestError(
            f"{model} was trained or chosen on recordings of every speaker of this corpus, whatever they were called "
            f"there: it knows the samples of {first_few(sorted(known))}",
            "somebody it has not heard",
            "another corpus",
        )
    return keep(table, kept, "the model has heard the speaker, under this name or another")


def _known(table: Dataset, digests: Mapping[str, str], heard: frozenset[str]) -> list[str]:
    return [one for one in table["id"] if one in digests and short_hash(digests[one]) in heard] if heard else []
