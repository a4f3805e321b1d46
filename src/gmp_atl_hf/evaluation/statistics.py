"""How sure a number is: intervals by resampling speakers, and a paired test over speakers.

Utterances of one speaker resemble each other, so speakers are the unit that is drawn, never utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gmp_atl_hf.evaluation.metrics import FloatArray, IntArray, label_indices, uar

MIN_SPEAKERS = 5
"""Fewer speakers than this give no interval: resampling them says next to nothing about other people."""

MAX_EXACT = 20
"""Up to this many non-zero differences all sign patterns are enumerated (2^20 of them)."""

DRAWS = 100_000
"""Random sign patterns where there are too many to enumerate."""


class SignFlipResult(NamedTuple):
    """What a sign-flip test found.

    Args:
        p: Two-sided p value.
        smallest_attainable_p: The p value if all non-zero differences had the same sign; no data of this size can
            give a smaller one.
        exact: Whether all sign patterns were enumerated.
        n: Number of differences given, zeros included.
    """

    p: float
    smallest_attainable_p: float
    exact: bool
    n: int


def speaker_confusions(
    references: npt.ArrayLike, predictions_per_seed: npt.ArrayLike, speakers: Sequence[str], num_labels: int
) -> IntArray:
    """Count a confusion matrix per seed and speaker.

    Args:
        references: True label indices, shape (n,).
        predictions_per_seed: Predicted label indices, shape (seeds, n).
        speakers: The speaker of each utterance, n strings.
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
    """Draw speakers with replacement and count how often each was drawn.

    Args:
        num_speakers: Number of speakers P to draw from; each sample draws P of them.
        samples: Number of samples.
        seed: Seed of the draws.

    Returns:
        Counts, shape (samples, P), int64; each row sums to P.
    """
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
    """Return the 95 % percentile interval of the pooled UAR, averaged over seeds, by resampling speakers.

    A drawn speaker brings all of their utterances, for all seeds at once. Labels that no drawn speaker has are left
    out of that sample's mean, as everywhere.

    Args:
        references: True label indices, shape (n,).
        predictions_per_seed: Predicted label indices, shape (seeds, n).
        speakers: The speaker of each utterance, n strings.
        num_labels: Number of labels.
        samples: Number of resamples.
        seed: Seed of the resampling, not of a training.

    Returns:
        The 2.5th and the 97.5th percentile as fractions, or None for fewer than five speakers.

    Raises:
        ValueError: If shapes do not fit, nothing is given or a label is out of range.
    """
    confusions = speaker_confusions(references, predictions_per_seed, speakers, num_labels)
    num_seeds, num_speakers = confusions.shape[:2]
    if num_speakers < MIN_SPEAKERS:
        return None
    # Float64 matrix products are exact for counts and go through BLAS, which integer products do not.
    weights = resample_weights(num_speakers, samples, seed).astype(np.float64)
    pooled = weights @ confusions.reshape(num_seeds, num_speakers, -1).astype(np.float64)
    scores = uar(pooled.reshape(num_seeds, samples, num_labels, num_labels)).mean(axis=0)
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def sign_flip_test(differences: npt.ArrayLike, seed: int = 0) -> SignFlipResult:
    """Test whether paired differences are centred at zero, two-sided, by flipping their signs.

    If the two sides were interchangeable, each difference would be as likely with the other sign. p is the share of
    sign patterns whose mean is at least as far from zero as the observed one. Zeros stay zero under any sign and never
    change p.

    Args:
        differences: One difference per speaker, shape (n,).
        seed: Seed of the draws; unused when all patterns are enumerated (up to 20 non-zero differences).

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
