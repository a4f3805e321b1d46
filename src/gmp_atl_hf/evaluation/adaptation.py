"""What knowing the speaker by some unlabelled clips is worth: which clips are drawn, and what comes of them.

Each test clip is scored with statistics of other clips of its speaker, `CLIPS` of them or all there are. They are drawn
anew for each clip, `DRAWS` times: *evenly* at random among all others of the speaker, or *unevenly* among those of two
emotions alone, which are drawn for each speaker and draw. Labels decide which clips an uneven draw may take, as life
would; the statistics never see one.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .metrics import confusion_matrix, uar
from .results import AlignedPredictions, FoldResult
from .unknown import is_unknown

ADAPTED = "adapted to each speaker's unlabelled recordings"
"""What has to stand beside every number and score that knows the speaker."""

CLIPS: tuple[int | None, ...] = (1, 3, 5, 10, 20, None)
"""How many clips of the speaker are drawn; None for all others. Our choice."""

DRAWS = 3
EMOTIONS_OF_UNEVEN_DRAWS = 2
KINDS = ("even", "uneven")

MOST_CLIPS = 2_000
"""Of a speaker with more clips than these, each draw is from so many of them, taken at random: what is computed for one
clip then no longer grows with their number, and the mean over so many hardly differs from that over all.
"""

_CHUNK = 256  # clips that are drawn for at once


def name_of(clips: int | None) -> str:
    """How a number of clips is written."""
    return "all" if clips is None else str(clips)


def draw_clips(
    speaker: str, emotions: Sequence[str], kind: str, draw: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, npt.NDArray[np.bool_]]]]:
    """Draw, for each clip of a speaker, other clips of theirs; the same ones every time.

    Args:
        speaker: Whose clips they are, which seeds the draw.
        emotions: The emotion of each clip, (clips,), in an order that is always the same.
        kind: One of `KINDS`.
        draw: Number of the draw.

    Yields:
        Some clips, (some,); the clips that are drawn from, (others,), all or `MOST_CLIPS` of them; and for each number
        of clips, by `name_of`, which of these are drawn for each of the first: (some, others) bool.
        A speaker with fewer clips gives what there is; what is drawn first is in all larger draws too.
    """
    rng = np.random.default_rng([draw, zlib.crc32(speaker.encode())])
    names, count = np.asarray(emotions, dtype=str), len(emotions)
    allowed = np.full(count, True)
    if kind == "uneven":
        known = np.unique(names)
        allowed = np.isin(names, rng.choice(known, min(EMOTIONS_OF_UNEVEN_DRAWS, len(known)), replace=False))
    others = np.arange(count)
    if count > MOST_CLIPS:
        others = np.flatnonzero(allowed)
        others = np.sort(rng.choice(others, min(MOST_CLIPS, len(others)), replace=False))
        allowed = allowed[others]
    for rows in np.split(np.arange(count), range(_CHUNK, count, _CHUNK)):
        order = rng.random((len(rows), len(others)))
        order[:, ~allowed] = np.inf
        order[rows[:, None] == others] = np.inf
        rank = order.argsort(axis=1).argsort(axis=1)
        yield rows, others, {name_of(n): np.isfinite(order) & (rank < (n or count)) for n in CLIPS}


def adaptation_summary(
    results: Sequence[FoldResult], block: AlignedPredictions, labels: list[str]
) -> dict[str, Any] | None:
    """UAR against the number of clips of the speaker, pooled over folds and averaged over seeds and draws.

    None where a fold of the block was tested without an adaptation, by an earlier version or a model that has none.

    Raises:
        ValueError: The adapted predictions are of other clips than the plain ones.
    """
    counted = [result for result in results if result.seed in block.seeds and result.fold in block.folds]
    if any(result.adapted is None for result in counted):
        return None
    found: dict[int, dict[str, Mapping[str, Any]]] = {seed: {} for seed in block.seeds}
    for result in counted:
        found[result.seed] |= {str(row["id"]): row for row in result.adapted or ()}
    if any(set(rows) != set(block.ids.tolist()) for rows in found.values()):
        raise ValueError("adapted predictions are of other utterances than the plain ones")
    number = {label: index for index, label in enumerate(labels)}

    def mean_uar(kind: str, clips: str) -> float:
        every = []
        for rows in found.values():
            said = np.array([[number[label] for label in rows[one][kind][clips]] for one in block.ids.tolist()])
            every += [confusion_matrix(block.references, guesses, len(labels)) for guesses in said.T]
        return float(uar(np.stack(every)).mean())

    every = zip(block.folds_of.tolist(), block.speakers.tolist(), strict=True)
    # Nothing is drawn for clips of unknown speakers, however many there are.
    in_one_test = Counter((fold, speaker) for fold, speaker in every if not is_unknown(speaker))
    return {
        "stamp": ADAPTED,
        "draws": DRAWS,
        "emotions_of_uneven_draws": EMOTIONS_OF_UNEVEN_DRAWS,
        "uar": {name_of(n): {kind: mean_uar(kind, name_of(n)) for kind in KINDS} for n in CLIPS},
        **({"drawn_from": MOST_CLIPS} if max(in_one_test.values(), default=0) > MOST_CLIPS else {}),
    }
