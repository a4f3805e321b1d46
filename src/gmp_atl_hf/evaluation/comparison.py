"""Two sets of predictions on the same test utterances, paired over speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import counted
from .metrics import FloatArray, uar
from .power import smallest_visible_difference
from .results import FoldResult, align, choose_block, contents_of, refuse_other_rows
from .statistics import difference_bootstrap, mean_bootstrap, sign_flip_test, speaker_confusions

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
    protocol is `independent` of speakers there is no interval. Gives the comparisons, and notes on those that cannot
    be made.

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
        for first_result, other_result in zip(*sides, strict=True):
            where = f"{names[0]} and {other}, seed {first_result.seed}, fold {first_result.fold}"
            refuse_other_rows(where, contents_of(first_result), contents_of(other_result))
        comparison = compare_results(*sides, labels, independent)
        pairs = [{"seed": seed, "fold": fold} for seed, fold in counted_pairs]
        comparisons.append({"first": names[0], "other": other, **comparison, "pairs": pairs})
    return comparisons, notes


def compare_results(
    first: Sequence[FoldResult], other: Sequence[FoldResult], labels: list[str], independent: bool = True
) -> dict[str, Any]:
    """Compare two sets of predictions on the same utterances; the unit is the speaker, after a mean over seeds.

    Folds and seeds of the two may differ, the utterances of a seed may not.

    Returns:
        What `paired_over_speakers` gives for the differences first minus other; `pooled_difference` of the UARs over
        all utterances with `pooled_ci95`, which may differ, since speakers with more utterances count more;
        `per_speaker` and `remark`.

    Raises:
        ValueError: If the sides have different speakers.
    """
    firsts, others = _speaker_scores(first, labels), _speaker_scores(other, labels)
    if firsts.keys() != others.keys():
        raise ValueError(f"on one side only: {counted(len(firsts.keys() ^ others.keys()), 'speaker')}")
    speakers = sorted(firsts)
    raw = np.array([firsts[speaker] - others[speaker] for speaker in speakers])
    differences: FloatArray = np.where(np.abs(raw) < TIE, 0.0, raw)
    pooled = [_confusions(side, labels) for side in (first, other)]
    pooled_interval = difference_bootstrap(*pooled) if independent else None
    means = [float(uar(side.sum(axis=1)).mean()) for side in pooled]
    return {
        "metric": "uar",
        **paired_over_speakers([differences], independent),
        "pooled_difference": means[0] - means[1],
        "pooled_ci95": None if pooled_interval is None else list(pooled_interval),
        "per_speaker": {
            speaker: {"first": firsts[speaker], "other": others[speaker], "difference": float(difference)}
            for speaker, difference in zip(speakers, differences, strict=True)
        },
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


def _speaker_scores(results: Sequence[FoldResult], labels: list[str]) -> dict[str, float]:
    """UAR of each speaker, averaged over the seeds in which the speaker was tested."""
    per_speaker: dict[str, list[float]] = {}
    for seed in sorted({result.seed for result in results}):
        of_seed = [result for result in results if result.seed == seed]
        block = align(of_seed, [seed], sorted(result.fold for result in of_seed), labels)
        confusions = speaker_confusions(block.references, block.predictions, block.speakers.tolist(), len(labels))
        for speaker, score in zip(np.unique(block.speakers).tolist(), uar(confusions[0]).tolist(), strict=True):
            per_speaker.setdefault(speaker, []).append(float(score))
    return {speaker: float(np.mean(values)) for speaker, values in per_speaker.items()}


def _confusions(results: Sequence[FoldResult], labels: list[str]) -> Any:
    """Confusions of each seed and speaker over the complete seeds × folds block."""
    seeds, folds, _ = choose_block(results, sorted({result.seed for result in results}))
    block = align(results, seeds, folds, labels)
    return speaker_confusions(block.references, block.predictions, block.speakers.tolist(), len(labels))
