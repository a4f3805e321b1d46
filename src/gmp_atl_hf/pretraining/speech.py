"""Which recordings of the table are trained on, which are held out, and which are left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from ..data.audio import SAMPLING_RATE
from ..data.corpora.base import LeftOut
from ..errors import RequestError, counted
from ..protocols.speakers import is_unknown, people
from .recipe import SpeechSpec

_HELD_OUT_SHARE = 20
"""One in so many recordings is held out where nobody knows the speakers."""


@dataclass(frozen=True)
class Speech:
    """Rows to train on, rows for the curves, of other speakers if any are known, and those beyond a speaker's limit."""

    train: datasets.Dataset
    dev: datasets.Dataset
    left_out: list[LeftOut]

    def sizes(self) -> dict[str, dict[str, Any]]:
        """Of both parts the number of `recordings`, of `speakers`, unknown ones not counted, and of `hours`."""
        return {
            name: {
                "recordings": len(rows),
                "speakers": len(people(set(rows["speaker"]))),
                "hours": round(sum(rows["num_samples"]) / SAMPLING_RATE / 3600, 3),
            }
            for name, rows in (("train", self.train), ("dev", self.dev))
        }


def divide_speech(table: datasets.Dataset, spec: SpeechSpec, seed: int) -> Speech:
    """Divide a table by speakers; the seed decides which clips are kept, and who is held out among equals.

    Where no speaker of the table is known, it is divided by recordings, one in twenty of which is held out.

    Raises:
        RequestError: Fewer speakers than are to be held out, a limit for a speaker that is not there, or limits that
            leave nothing.
    """
    speakers = np.asarray(table["speaker"])
    counts = Counter(speakers.tolist())
    unknown = [name for name in spec.hours_of if name not in counts]
    if unknown:
        raise RequestError(
            f"data.hours_of names {', '.join(unknown)}, who is not in the corpus",
            f"speakers with their corpus, such as {min(counts)}",
            "correct data.hours_of, or leave it out: --set data.hours_of={}",
        )
    rng = np.random.default_rng(seed)
    if all(map(is_unknown, counts)):
        held_rows = _held_out_recordings(len(table), rng)
    elif len(counts) <= spec.dev_speakers:
        raise RequestError(
            f"{counted(len(counts), 'speaker')}, of whom data.dev_speakers {spec.dev_speakers} are to be held out",
            "somebody left to train on",
            "a smaller data.dev_speakers",
        )
    else:
        order = {name: int(place) for name, place in zip(sorted(counts), rng.permutation(len(counts)), strict=True)}
        held_out = set(sorted(counts, key=lambda name: (counts[name], order[name]))[: spec.dev_speakers])
        held_rows = set(np.flatnonzero([name in held_out for name in speakers]).tolist())
    kept, left_out = [], []
    used: dict[str, float] = defaultdict(float)
    lengths = np.asarray(table["num_samples"]) / (SAMPLING_RATE * 3600)
    ids = table["id"]
    for row in rng.permutation(len(table)).tolist():
        name = str(speakers[row])
        if row in held_rows:
            continue
        limit = spec.hours_of.get(name, spec.max_hours_per_speaker)
        if limit is not None and used[name] + lengths[row] > limit:
            left_out.append(LeftOut(ids[row], f"beyond {limit:g} hours of its speaker"))
            continue
        used[name] += float(lengths[row])
        kept.append(row)
    if not kept:
        set_ones = {"data.max_hours_per_speaker": spec.max_hours_per_speaker, "data.hours_of": spec.hours_of}
        limits = [key for key, value in set_ones.items() if value]
        raise RequestError(
            f"{' and '.join(limits)} {'leave' if len(limits) > 1 else 'leaves'} nothing to train on: each of the "
            f"{counted(len(left_out), 'recording')} is longer than its speaker may be heard",
            f"hours above those of a recording; the shortest has {min(lengths):.2g}",
            f"larger numbers, or leave {'them' if len(limits) > 1 else 'it'} out",
        )
    return Speech(
        table.select(sorted(kept)),
        table.select(sorted(held_rows)),
        sorted(left_out, key=lambda one: one.file),
    )


def _held_out_recordings(count: int, rng: np.random.Generator) -> set[int]:
    """Draw the rows that are held out, of recordings whose speakers nobody knows."""
    if count < 2:
        raise RequestError(
            f"{counted(count, 'recording')}, of an unknown speaker",
            "one to train on and another one that is held out",
            "more recordings, or one long one cut into several",
        )
    return set(rng.choice(count, -(-count // _HELD_OUT_SHARE), replace=False).tolist())
