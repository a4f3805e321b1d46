"""Two sets of predictions on the same test utterances, paired over speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import counted
from .metrics import FloatArray, uar
from .power import smallest_visible_difference
from .results import AlignedPredictions, FoldResult, align, choose_block, contents_of, refuse_other_rows
from .statistics import difference_bootstrap, holm, mean_bootstrap, sign_flip_test, speaker_confusions
from .unknown import named

TIE = 1e-12
"""Differences below this are the same value computed in two orders of additions."""

COMPARISON_REMARK = (
    "Paired over speakers by flipping signs. Folds share training data, so the speakers are not independent and the "
    "p value is a guide, not a proof."
)


def compare_variants(
    variants: Mapping[str, Sequence[FoldResult]], labels: list[str], seeds: Sequence[int], independent: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare the first variant of a run with each other one, on the complete seeds × folds block that both have.

    `labels` are the emotions in index order, `seeds` those of the run, the first preferred among equals; unless the
    protocol is `independent` of speakers there is no interval. Gives the comparisons, each with `p_holm` where there
    are several, and notes on those that cannot be made.

    Raises:
        ValueError: If two variants were tested on different utterances of one fold.
    """
    names = list(variants)
    comparisons, notes = [], []
    for other in names[1:]:
        first_of = {(r.seed, r.fold): r for r in variants[names[0]]}
        other_of = {(r.seed, r.fold): r for r in variants[other]}
        shared = first_of.keys() & other_of.keys()
        if not shared:
            notes.append(f"{names[0]} and {other} are not compared: no fold is finished in both.")
            continue
        # The same rule as for the tables: a speaker's mean is over the same seeds as every other's.
        block_seeds, folds, _ = choose_block([first_of[pair] for pair in shared], seeds)
        counted_pairs = sorted((seed, fold) for seed in block_seeds for fold in folds)
        sides = [first_of[pair] for pair in counted_pairs], [other_of[pair] for pair in counted_pairs]
        if not named(row["speaker"] for result in sides[0] for row in result.predictions).any():
            notes.append(f"{names[0]} and {other} are not compared: no test speaker is known.")
            continue
        for first_result, other_result in zip(*sides, strict=True):
            where = f"{names[0]} and {other}, seed {first_result.seed}, fold {first_result.fold}"
            refuse_other_rows(where, contents_of(first_result), contents_of(other_result))
        comparison = compare_results(*sides, labels, independent)
        pairs = [{"seed": seed, "fold": fold} for seed, fold in counted_pairs]
        comparisons.append({"first": names[0], "other": other, **comparison, "pairs": pairs})
    add_holm(comparisons)
    return comparisons, notes


def add_holm(tests: Sequence[dict[str, Any]]) -> None:
    """Put `p_holm`, its `p` corrected for the number of tests, into each of several; one alone needs none."""
    if len(tests) > 1:
        for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
            test["p_holm"] = corrected


def compare_results(
    first: Sequence[FoldResult], other: Sequence[FoldResult], labels: list[str], independent: bool = True
) -> dict[str, Any]:
    """Compare two sets of predictions on the same utterances; the unit is the speaker, after a mean over seeds.

    Folds and seeds of the two may differ, the utterances of a seed may not. Of each side the complete seeds × folds
    block counts.

    Returns:
        What `paired_over_speakers` gives for the differences first minus other; `pooled_difference` of the UARs over
        all utterances with `pooled_ci95`, which may differ, since speakers with more utterances count more;
        `per_speaker` and `remark`. Unknown speakers are in `pooled_difference` alone: `unknown_utterances` is the
        number of their utterances.

    Raises:
        ValueError: If the sides have different speakers, or none that is known.
    """
    blocks = [_block(side, labels) for side in (first, other)]
    everybody, others = (np.unique(block.speakers).tolist() for block in blocks)
    if everybody != others:
        raise ValueError(f"on one side only: {counted(len({*everybody} ^ {*others}), 'speaker')}")
    known = named(everybody)
    if not known.any():
        raise ValueError("no test speaker is known, so there is nobody to compare over")
    confusions = [
        speaker_confusions(block.references, block.predictions, block.speakers.tolist(), len(labels))
        for block in blocks
    ]
    speakers = [speaker for speaker, counts in zip(everybody, known, strict=True) if counts]
    scores = [uar(side).mean(axis=0)[known] for side in confusions]
    raw = scores[0] - scores[1]
    differences: FloatArray = np.where(np.abs(raw) < TIE, 0.0, raw)
    pooled_interval = difference_bootstrap(confusions[0][:, known], confusions[1][:, known]) if independent else None
    means = [float(uar(side.sum(axis=1)).mean()) for side in confusions]
    return {
        "metric": "uar",
        **paired_over_speakers([differences], independent),
        "pooled_difference": means[0] - means[1],
        "pooled_ci95": None if pooled_interval is None else list(pooled_interval),
        "per_speaker": {
            speaker: {"first": float(mine), "other": float(theirs), "difference": float(difference)}
            for speaker, mine, theirs, difference in zip(speakers, *scores, differences, strict=True)
        },
        "unknown_utterances": int((~named(blocks[0].speakers.tolist())).sum()),
        "remark": COMPARISON_REMARK,
    }


def paired_over_speakers(groups: Sequence[FloatArray], independent: bool = True) -> dict[str, Any]:
    """Test the mean over groups, such as corpora, of the mean over speakers of a paired difference.

    Signs are flipped speaker by speaker within each group. One group is the usual test of a mean over speakers.

    Args:
        groups: One difference per speaker, one float64 array (speakers,) per group; exact zeros are ties.
        independent: Whether no test speaker was trained on; otherwise there is no interval.

    Returns:
        `mean_difference` with its interval `ci95`, its `p`, `smallest_attainable_p`, `exact`, `n` speakers, `ties`
        among them, and `smallest_visible_difference`.

    Raises:
        ValueError: If there is no group, or one is empty.
    """
    visible = smallest_visible_difference(groups)  # refuses empty groups, too
    # A speaker's share of the mean of means; flipping its sign flips that of the difference.
    test = sign_flip_test(np.concatenate([group / (group.size * len(groups)) for group in groups]))
    interval = mean_bootstrap(groups) if independent else None
    return {
        "mean_difference": float(np.mean([group.mean() for group in groups])),
        "ci95": None if interval is None else list(interval),
        "p": test.p,
        "smallest_attainable_p": test.smallest_attainable_p,
        "exact": test.exact,
        "n": test.n,
        "ties": int(sum(np.count_nonzero(group == 0) for group in groups)),
        "smallest_visible_difference": visible,
    }


def _block(results: Sequence[FoldResult], labels: list[str]) -> AlignedPredictions:
    """The complete seeds × folds block."""
    seeds, folds, _ = choose_block(results, sorted({result.seed for result in results}))
    return align(results, seeds, folds, labels)
