"""Speakers whom nobody has named: what is told of one speaker is not told of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..errors import counted

UNKNOWN = "unknown"
"""The speaker of recordings whose speaker is not known, after the corpus' prefix: nobody can tell who that is."""


def is_unknown(speaker: str) -> bool:
    """Whether a name stands for people whom nobody has named: `<corpus>/unknown`."""
    return speaker.rpartition("/")[2].lower() == UNKNOWN


def people(speakers: Iterable[str]) -> list[str]:
    """Those of some speakers whom somebody has named; what stands for unknown ones is nobody who can be counted."""
    return [speaker for speaker in speakers if not is_unknown(speaker)]


def counted_people(speakers: Iterable[str]) -> str:
    """Count some speakers, each once, in words: `2 speakers`, `2 speakers and unknown ones`, `unknown speakers`."""
    everybody = set(speakers)
    known = len(people(everybody))
    return known_and_unknown(known, known < len(everybody))


def known_and_unknown(known: int, unknown: bool) -> str:
    """Say how many speakers are known, and whether there are `unknown` ones, whom nobody can count."""
    if not unknown:
        return counted(known, "speaker")
    return f"{counted(known, 'speaker')} and unknown ones" if known else "unknown speakers"


def named(speakers: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Which of some speakers are people whom somebody has named: (n,) bool."""
    return np.array([not is_unknown(speaker) for speaker in speakers], dtype=np.bool_)
