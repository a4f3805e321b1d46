"""The gender of a speaker, where not all of their recordings say it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable


def genders_of_speakers(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """Give each speaker the known gender that most of their recordings have; None where none has any.

    Args:
        pairs: Speaker and gender of each recording, the gender None where it is not known.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for speaker, gender in pairs:
        counts[speaker].update([] if gender is None else [gender])
    return {speaker: known.most_common(1)[0][0] if known else None for speaker, known in counts.items()}
