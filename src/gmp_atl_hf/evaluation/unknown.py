"""Speakers whom nobody has named: what is told of one speaker is not told of them."""

from __future__ import annotations

UNKNOWN = "unknown"
"""The speaker of recordings whose speaker is not known, after the corpus' prefix: nobody can tell who that is."""


def is_unknown(speaker: str) -> bool:
    """Whether a name stands for people whom nobody has named: `<corpus>/unknown`."""
    return speaker.rpartition("/")[2].lower() == UNKNOWN
