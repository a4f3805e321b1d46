"""Which training speakers the best epoch of a fold is chosen on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import RequestError, counted
from .speakers import Speakers, people

SHARE = 0.2
"""Share of the training speakers that serve as development speakers: our choice, what most public recipes hold out."""

MOST = 20
"""Never more development speakers than this by default: enough for a steady UAR, and they are lost to training."""


def development_speakers(
    speakers: Speakers,
    train: Sequence[str],
    wanted: int | None,
    groups: Sequence[Sequence[str]],
    served: Mapping[str, int],
    seed: tuple[int, int],
) -> list[str]:
    """Choose development speakers from the training speakers of a fold.

    Genders in turn, those first who have served in the fewest folds so far, so that over the folds all speakers serve;
    never one without whom an emotion would be missing from training. Recordings whose speaker is not known stay in
    training: they are of many people, perhaps most of the corpus.

    Args:
        speakers: All speakers of the table.
        train: The training speakers.
        wanted: How many; None for the usual share, or for a whole group.
        groups: Groups of the training speakers, the best first: with `wanted` None, the first group without which
            training still has every emotion is the choice.
        served: Speaker to the number of folds served in so far.
        seed: Seed and number of the fold; decides among equals.

    Returns:
        The speakers; none where nobody on the training side is known, unless some are wanted.

    Raises:
        RequestError: When training cannot spare that many speakers.
    """
    known = people(train)
    if wanted == 0 or (wanted is None and not known):
        return []
    if wanted is None:
        for group in groups:
            if speakers.emotions_of(s for s in train if s not in group) == speakers.emotions_of(train):
                return list(group)
    number = wanted or usual_number(speakers, known)
    chosen = _choose(speakers, train, known, min(number, len(train) - 1), served, seed)
    if len(chosen) < (wanted or 1):
        who = "speaker" if len(known) == len(train) else "known speaker"
        raise RequestError(
            f"fold {seed[1]} has {counted(len(known), who)} on its training side and can spare {len(chosen)} of "
            f"them for development, not {wanted or 1}",
            "somebody left to train on, and every emotion left in training",
            "use fewer dev_speakers (0: no choice of the best epoch), drop or merge a rare emotion, or use another "
            "protocol",
        )
    return chosen


def usual_number(speakers: Speakers, known: Sequence[str]) -> int:
    """The default number: about a fifth, at most 20, at least 1, and 2 where both genders have two to spare."""
    per_gender = [sum(speakers.genders[speaker] == gender for speaker in known) for gender in ("female", "male")]
    return min(MOST, max(2 if min(per_gender) >= 2 else 1, round(SHARE * len(known))))


def _choose(
    speakers: Speakers,
    train: Sequence[str],
    known: Sequence[str],
    number: int,
    served: Mapping[str, int],
    seed: tuple[int, int],
) -> list[str]:
    """Choose up to a number of the known training speakers, one after the other."""
    place = np.random.default_rng(seed).permutation(len(known)).tolist()
    order = dict(zip(known, place, strict=True))
    bearers = Counter(emotion for speaker in train for emotion in speakers.emotions[speaker])
    left = Counter(speakers.genders[speaker] for speaker in known)
    taken: Counter[str | None] = Counter()
    chosen: list[str] = []

    def rank(speaker: str) -> tuple[bool, int, int, int]:
        gender = speakers.genders[speaker]
        # The last training speaker of a gender stays as long as anybody else can go.
        last = gender is not None and left[gender] == 1
        return last, taken[gender], served[speaker], order[speaker]

    while len(chosen) < number:
        able = [s for s in order if s not in chosen and all(bearers[emotion] > 1 for emotion in speakers.emotions[s])]
        if not able:
            break
        best = min(able, key=rank)
        chosen.append(best)
        left[speakers.genders[best]] -= 1
        taken[speakers.genders[best]] += 1
        bearers.subtract(speakers.emotions[best].keys())
    return chosen
