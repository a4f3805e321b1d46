"""What a list of recordings says and may not mean: one person as two, one session as two, one sound as two clips."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ..errors import counted
from .corpora import Recording
from .spelling import first_few, spelling

_ROUNDING = 0.01
"""Seconds by which two segments that follow each other may overlap: lists are written with rounded times."""


def doubtful_speakers(recordings: Sequence[Recording]) -> list[str]:
    """Name speakers that may be two people, or of whom two may be one: no split by speaker is better than they are."""
    problems = [
        f"speakers {' and '.join(names)} differ in {_what_differs(names)} only: is that one person?"
        for names in _one_number(recording.speaker for recording in recordings)
    ]
    genders: dict[str, Counter[str]] = defaultdict(Counter)
    for recording in recordings:
        if recording.gender is not None:
            genders[recording.speaker][recording.gender] += 1
    return problems + [
        f"speaker {speaker} is female in {counted(count['female'], 'recording')} and male in {count['male']}: two "
        "people of one number? Then gender and number together are the speaker"
        for speaker, count in sorted(genders.items())
        if len(count) > 1
    ]


def doubtful_sessions(recordings: Sequence[Recording]) -> list[str]:
    """Name sessions of which two may be one: leaving one of them out would leave the other's people in."""
    return [
        f"sessions {' and '.join(names)} differ in {_what_differs(names)} only: is that one session?"
        for names in _one_number(one.session for one in recordings if one.session is not None)
    ]


def overlapping_segments(corpus: str, recordings: Sequence[Recording]) -> list[str]:
    """Name segments of one file that overlap in time under different speakers or emotions: one sentence, or none.

    The same sound is then in two recordings, which may fall into different parts of a split.
    """
    of_file: dict[str, list[Recording]] = defaultdict(list)
    for one in recordings:
        if one.path is not None:
            of_file[str(one.path.absolute())].append(one)
    pairs = []
    for segments in of_file.values():
        open_ones: list[Recording] = []
        for one in sorted(segments, key=_start):
            open_ones = [before for before in open_ones if _end(before) > _start(one) + _ROUNDING]
            others = [before for before in open_ones if differing(before, one)]
            if others and _end(one) > _start(one) + _ROUNDING:
                pairs.append(
                    f"{others[0].file} and {one.file} (under different {' and '.join(differing(others[0], one))})"
                )
            open_ones.append(one)
    count = counted(len(pairs), "segment overlaps", "segments overlap")
    text = f"{corpus}: {count} another one of the same file, so that the same sound is there twice: "
    return [text + first_few(pairs, 3, separator="; ")] if pairs else []


def differing(*recordings: Recording) -> list[str]:
    """Words for what recordings of the same sound are told apart by, and which makes two of them a contradiction."""
    fields = {"emotions": "emotion", "speakers": "speaker", "parts of the given split": "split"}
    return [word for word, name in fields.items() if len({getattr(one, name) for one in recordings}) > 1]


def _start(recording: Recording) -> float:
    return recording.start or 0.0


def _end(recording: Recording) -> float:
    return float("inf") if recording.end is None else recording.end


def _one_number(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that are the same once case does not count and numbers are written in one way."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[_without_decimals(_without_zeros(spelling(name)))].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _without_decimals(name: str) -> str:
    """A whole number as it was before a program took its column for one of fractions."""
    return re.sub(r"^(\d+)\.0+$", r"\1", name)


def _what_differs(names: Sequence[str]) -> str:
    if len({spelling(name) for name in names}) == 1:
        return "case or the form of their letters"
    if len({_without_zeros(name) for name in names}) == 1:
        return "leading zeros"
    cased = {spelling(name) for name in names} != set(names)
    return "case or the way of writing a number" if cased else "the way of writing a number (.0 at the end)"
