"""How sure a number is: intervals by resampling speakers, and a paired test over speakers.

Utterances of one speaker resemble each other, so speakers are the unit that is drawn, never utterances. Nobody knows
how many people `<corpus>/unknown` is, so those utterances are never drawn.

Few speakers who are drawn again and again differ too little: the percentiles of the resamples alone would miss the
truth in one case of ten where there are ten speakers. So the intervals over speakers have these percentiles moved away
from the figure itself, to `t / 1.96 · sqrt(n / (n - 1))` times their distance: `t` is the 97.5th percentile of
Student's distribution with `n - 1` degrees of freedom, `n` the number of speakers. How often they hold the truth is
in `docs/recipes.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .metrics import FloatArray, IntArray, label_indices, per_class_recall, uar
from .unknown import named

MIN_SPEAKERS = 5
"""Fewer speakers than this give no interval: resampling them tells almost nothing about other speakers."""

MAX_EXACT = 20
"""Up to this many non-zero differences all sign patterns are enumerated (2^20 of them)."""

MIN_SPEAKERS_A_SIDE = 3
"""Fewer female or male speakers than this give no interval for the gap between them."""

MIN_UTTERANCES = 10
"""Fewer utterances of a speaker than this give no interval for that speaker."""

STUDENT = (1.5895, 2.5558, 2.8225, 2.3723, 1.96)
"""The 97.5th percentile of Student's distribution as a polynomial in 1 / degrees of freedom, highest power first.

These are the first terms of its expansion about the normal one (Abramowitz and Stegun, 26.7.5), right to 0.05 % from
four degrees of freedom. Five numbers, so that an interval can be rebuilt without scipy (`examples/verify_report.py`).
"""

DRAWS = 100_000
"""Random sign patterns where there are too many to enumerate."""


class SignFlipResult(NamedTuple):
    """What a sign-flip test found.

    Args:
        p: Two-sided p value.
        smallest_attainable_p: The p value if all non-zero differences had the same sign.
        exact: Whether all sign patterns were enumerated.
        n: Number of differences, zeros included.
    """

    p: float
    smallest_attainable_p: float
    exact: bool
    n: int


class GenderGap(NamedTuple):
    """How much better one gender is recognised than the other.

    Args:
        difference: UAR of female minus UAR of male speakers, over the labels that both have; averaged over seeds.
            Utterances of unknown speakers count here and nowhere else.
        interval: 95 % interval from resampling the speakers of each side; None for too few, or with unknown ones.
        labels: Indices of the labels that both have.
        speakers: Number of female and of male speakers that are known by name.
    """

    difference: float
    interval: tuple[float, float] | None
    labels: list[int]
    speakers: tuple[int, int]


def speaker_confusions(
    references: npt.ArrayLike, predictions_per_seed: npt.ArrayLike, speakers: Sequence[str], num_labels: int
) -> IntArray:
    """Count a confusion matrix per seed and speaker.

    Args:
        references: True label indices, shape (n,).
        predictions_per_seed: Predicted label indices, shape (seeds, n).
        speakers: The speaker of each utterance.
        num_labels: Number of labels C.

    Returns:
        Counts of utterances, shape (seeds, speakers, C, C), int64; speakers in sorted order.

    Raises:
        ValueError: If shapes do not fit, nothing is given or a label is out of range.
    """
    true = label_indices(references, num_labels, "references")
    guesses = [label_indices(guess, num_labels, "predictions") for guess in np.atleast_2d(predictions_per_seed)]
    if len(speakers) != true.size or any(guess.size != true.size for guess in guesses):
        sizes = ", ".join(str(guess.size) for guess in guesses)
        raise ValueError(f"{true.size} references, {sizes} predictions and {len(speakers)} speakers do not fit")
    names, owner = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    cells = (owner * num_labels + true) * num_labels
    shape = (len(names), num_labels, num_labels)
    return np.stack([np.bincount(cells + guess, minlength=int(np.prod(shape))).reshape(shape) for guess in guesses])


def resample_weights(num_speakers: int, samples: int, seed: int) -> IntArray:
    """Draw all P speakers with replacement, `samples` times; counts (samples, P) int64, each row sums to P."""
    drawn = np.random.default_rng(seed).integers(num_speakers, size=(samples, num_speakers))
    flat = drawn + np.arange(samples)[:, None] * num_speakers
    return np.bincount(flat.ravel(), minlength=samples * num_speakers).reshape(samples, num_speakers)


def speaker_bootstrap(
    references: npt.ArrayLike,
    predictions_per_seed: npt.ArrayLike,
    speakers: Sequence[str],
    num_labels: int,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95 % interval of the pooled UAR, averaged over seeds, by resampling speakers.

    A drawn speaker brings all of their utterances, for all seeds at once. Labels that no drawn speaker has are left
    out of that sample's mean, as everywhere. Utterances of unknown speakers are left out. Arguments and errors are
    those of `speaker_confusions`; None for fewer than five known speakers.
    """
    confusions = speaker_confusions(references, predictions_per_seed, speakers, num_labels)[:, _known(speakers)]
    num_speakers = confusions.shape[1]
    if num_speakers < MIN_SPEAKERS:
        return None
    drawn = _resampled_uar(confusions, resample_weights(num_speakers, samples, seed))
    return _stretched(drawn, _pooled_uar(confusions), _stretch(np.ones(1), [num_speakers]), least=0.0)


def utterance_bootstrap(
    references: npt.ArrayLike, predictions_per_seed: npt.ArrayLike, num_labels: int, samples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of one speaker's UAR by resampling utterances within each label.

    It says how much a speaker's UAR owes to the few utterances that were recorded, and nothing about other speakers.
    Label indices are (n,) and (seeds, n); a drawn utterance counts with its mean over seeds. None for fewer than ten
    utterances, and where all are right or all wrong: the interval would have no width.
    """
    true = label_indices(references, num_labels, "references")
    hits = (np.atleast_2d(predictions_per_seed) == true).mean(axis=0)
    if true.size < MIN_UTTERANCES or hits.min() == hits.max():
        return None
    generator = np.random.default_rng(seed)
    recalls = [
        own[generator.integers(own.size, size=(samples, own.size))].mean(axis=1)
        for own in (hits[true == label] for label in np.unique(true))
    ]
    return _interval(np.mean(recalls, axis=0))


def difference_bootstrap(
    first: IntArray, other: IntArray, samples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of first minus other pooled UAR on the same speakers.

    Both are confusions (seeds, speakers, C, C) as `speaker_confusions` gives them, speakers in the same order; each
    resample draws the same speakers for both. None for fewer than five speakers.

    Raises:
        ValueError: If the sides have different numbers of speakers.
    """
    if first.shape[1:] != other.shape[1:]:
        raise ValueError(f"confusions of shape {first.shape} and {other.shape} are not of the same speakers")
    num_speakers = first.shape[1]
    if num_speakers < MIN_SPEAKERS:
        return None
    weights = resample_weights(num_speakers, samples, seed)
    drawn = _resampled_uar(first, weights) - _resampled_uar(other, weights)
    return _stretched(drawn, _pooled_uar(first) - _pooled_uar(other), _stretch(np.ones(1), [num_speakers]))


def mean_bootstrap(groups: Sequence[FloatArray], samples: int = 2000, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over groups of means over speakers; one group is a plain mean.

    The values are differences of UAR. Several groups have the degrees of freedom of Satterthwaite.

    Args:
        groups: One value per speaker, one float64 array (speakers,) per group; each group is resampled apart.
        samples: Number of resamples.
        seed: Seed of the first group's resampling; that of the next one is higher by one.

    Returns:
        Lower and upper bound; None where a group has fewer than five speakers.
    """
    if min(group.size for group in groups) < MIN_SPEAKERS:
        return None
    means = [
        resample_weights(group.size, samples, seed + place) @ group / group.size for place, group in enumerate(groups)
    ]
    variances = np.array([group.var(ddof=1) / group.size for group in groups])
    centre = float(np.mean([group.mean() for group in groups]))
    return _stretched(np.mean(means, axis=0), centre, _stretch(variances, [group.size for group in groups]))


def gender_gap(
    references: npt.ArrayLike,
    predictions_per_seed: npt.ArrayLike,
    speakers: Sequence[str],
    genders: Sequence[str],
    num_labels: int,
    samples: int = 2000,
    seed: int = 0,
) -> GenderGap | None:
    """Compare female and male speakers over the labels that both have; None where a gender or such a label is missing.

    `genders` has one entry per utterance and leaves out all but `female` and `male`; the speakers of each side are
    resampled apart. Other arguments and errors are those of `speaker_confusions`.
    """
    gender_of, speaker_of = np.asarray(genders, dtype=str), np.asarray(speakers, dtype=str)
    true, guesses = np.asarray(references), np.atleast_2d(predictions_per_seed)
    sides, known = [], []
    for gender in ("female", "male"):
        rows = gender_of == gender
        if not rows.any():
            return None
        sides.append(speaker_confusions(true[rows], guesses[:, rows], speaker_of[rows].tolist(), num_labels))
        known.append(sides[-1][:, _known(speaker_of[rows].tolist())])
    differences, common = _recall_gap(*(side.sum(axis=1) for side in sides))
    if not common[0].any():
        return None
    counts = (known[0].shape[1], known[1].shape[1])
    # The difference has the utterances of unknown speakers in it: an interval without them would be of another one.
    all_known = all(side.sum() == named_ones.sum() for side, named_ones in zip(sides, known, strict=True))
    interval = _gap_interval(known, samples, seed) if all_known and min(counts) >= MIN_SPEAKERS_A_SIDE else None
    return GenderGap(float(differences.mean()), interval, np.flatnonzero(common[0]).tolist(), counts)


def sign_flip_test(differences: npt.ArrayLike, seed: int = 0) -> SignFlipResult:
    """Test whether paired differences, one per speaker, are centred at zero, two-sided, by flipping their signs.

    If the two sides were interchangeable, each difference would be as likely with the other sign. p is the share of
    sign patterns whose mean is at least as far from zero as the observed one. Zeros stay zero under any sign and never
    change p. All patterns are enumerated up to 20 non-zero differences, else drawn by the seed.

    Raises:
        ValueError: If there is no difference or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size == 0:
        raise ValueError("no differences: a paired test needs at least one speaker")
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite")
    nonzero = values[values != 0]
    m = nonzero.size
    if m == 0:
        return SignFlipResult(1.0, 1.0, True, values.size)
    # The tolerance lets patterns with the same sum count as ties, whatever the order of their additions.
    threshold = abs(nonzero.sum()) - 1e-12 * np.abs(nonzero).sum()
    if m <= MAX_EXACT:
        p = float(np.mean(np.abs(_all_flipped_sums(nonzero)) >= threshold))
        return SignFlipResult(p, 2.0 / 2**m, True, values.size)
    hits = _drawn_hits(nonzero, threshold, seed)
    # The observed pattern counts as one of the draws, so that p is never zero.
    return SignFlipResult((hits + 1) / (DRAWS + 1), 1 / (DRAWS + 1), False, values.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of several tests by Holm's step-down method: in the order given, never above 1.

    The smallest of m is multiplied by m, the next one by m - 1 and so on, and none becomes smaller than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    sorted_p = np.asarray(p_values, dtype=np.float64)[order]
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(sorted_p * np.arange(len(order), 0, -1)), 1.0)
    return [float(value) for value in corrected]


def _known(speakers: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which rows of `speaker_confusions` are of people whom somebody has named."""
    return named(np.unique(np.asarray(speakers, dtype=str)).tolist())


def _interval(values: FloatArray) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile; NaN, where a sample says nothing, is left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _stretched(values: FloatArray, figure: float, stretch: float, least: float = -1.0) -> tuple[float, float]:
    """The same percentiles at so many times their distance from the figure itself, within what it can be."""
    low, high = (figure + stretch * (end - figure) for end in _interval(values))
    return max(low, least), min(high, 1.0)


def _stretch(variances: FloatArray, sizes: Sequence[int]) -> float:
    """How far percentiles are moved for so few speakers.

    `variances` (parts,) are the shares of parts that are drawn apart in the variance of the figure, of speakers with
    n - 1; `sizes` are their numbers of speakers. Degrees of freedom are those of Satterthwaite: n - 1 for a single one.
    """
    n, total = np.asarray(sizes, dtype=np.float64), variances.sum()
    if total == 0:  # nobody differs, and the percentiles are the figure
        return 1.0
    freedom = total**2 / (variances**2 / (n - 1)).sum()
    drawn = (variances * (n - 1) / n).sum()  # what resamples vary by
    return float(np.polyval(STUDENT, 1 / freedom) / 1.96 * np.sqrt(total / drawn))


def _gap_interval(sides: Sequence[IntArray], samples: int, seed: int) -> tuple[float, float] | None:
    """The interval of the gap between the confusions of known female and male speakers; None without common labels."""
    whole = [side.sum(axis=1, keepdims=True) for side in sides]
    figure = float(_recall_gap(*whole)[0].mean())
    if np.isnan(figure):
        return None
    sizes = [side.shape[1] for side in sides]
    female, male = (
        _weighted(side, resample_weights(size, samples, seed + place))
        for place, (side, size) in enumerate(zip(sides, sizes, strict=True))
    )
    # A sample in which the sides have no label in common says nothing.
    parts = [_recall_gap(female, whole[1])[0], _recall_gap(whole[0], male)[0]]
    variances = [np.nanvar(gap.mean(axis=0)) * size / (size - 1) for gap, size in zip(parts, sizes, strict=True)]
    return _stretched(_recall_gap(female, male)[0].mean(axis=0), figure, _stretch(np.array(variances), sizes))


def _weighted(confusions: IntArray, weights: IntArray) -> FloatArray:
    """Pool (seeds, speakers, C, C) with weights (samples, speakers) to (seeds, samples, C, C)."""
    num_seeds, num_speakers, num_labels = confusions.shape[:3]
    # Float64 matrix products are exact for counts and go through BLAS, which integer products do not.
    flat = confusions.reshape(num_seeds, num_speakers, -1).astype(np.float64)
    pooled: FloatArray = weights.astype(np.float64) @ flat
    return pooled.reshape(num_seeds, len(weights), num_labels, num_labels)


def _pooled_uar(confusions: IntArray) -> float:
    """UAR of all speakers, averaged over seeds."""
    return float(uar(confusions.sum(axis=1)).mean())


def _resampled_uar(confusions: IntArray, weights: IntArray) -> FloatArray:
    """Pooled UAR of each sample, averaged over seeds: (samples,)."""
    scores: FloatArray = uar(_weighted(confusions, weights)).mean(axis=0)
    return scores


def _recall_gap(female: npt.NDArray[Any], male: npt.NDArray[Any]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Mean difference of the recalls that both have, for confusions (..., C, C): (...), and which those are."""
    recalls = per_class_recall(female) - per_class_recall(male)
    common = ~np.isnan(recalls)
    total = np.where(common, recalls, 0.0).sum(axis=-1)
    count = common.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0), common


def _all_flipped_sums(values: FloatArray) -> FloatArray:
    """Return the sums of half of all sign patterns: the other half mirrors them and has the same absolute values."""
    sums = values[:1].copy()
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_hits(values: FloatArray, threshold: float, seed: int) -> int:
    """Count the random sign patterns at least as extreme as observed, in blocks that keep memory small."""
    generator = np.random.default_rng(seed)
    block, hits = 5_000, 0
    for _ in range(DRAWS // block):
        signs = generator.integers(2, size=(block, values.size), dtype=np.int8) * 2.0 - 1.0
        hits += int(np.count_nonzero(np.abs(signs @ values) >= threshold))
    return hits
