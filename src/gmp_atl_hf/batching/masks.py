"""Masks and crops, drawn clip by clip, so that they do not depend on batches or processes."""

from __future__ import annotations

import numpy as np


def draw_mask(size: int, probability: float, length: int, min_masks: int, rng: np.random.Generator) -> np.ndarray:
    """Draw spans of frames, or of channels, to mask.

    As in wav2vec 2.0 and HuBERT, `probability · size / length` spans start anywhere and may overlap. There are never so
    many that they could cover everything, since nothing would be left to tell from: fewer frames than two spans get at
    most one span, of half their number, and a single frame is never masked.

    Args:
        size: Valid frames of the clip, or channels of the encoder.
        probability: Share that is covered if spans do not overlap, 0 to 1.
        length: Frames or channels per span.
        min_masks: Fewest spans, as far as there is room.
        rng: The clip's own generator.

    Returns:
        (size,) bool, True where masked.
    """
    mask = np.zeros(size, dtype=bool)
    span = min(length, size // 2)
    rounding = rng.random()  # always drawn, so that later draws do not depend on the settings
    if span == 0 or probability <= 0:
        return mask
    spans = max(int(probability * size / span + rounding), min_masks)
    spans = min(spans, (size - 1) // span if size >= 2 * length else 1)
    for start in rng.choice(size - span + 1, size=spans, replace=False):
        mask[start : start + span] = True
    return mask


def draw_span(num_frames: int, max_frames: int | None, rng: np.random.Generator) -> tuple[int, int]:
    """First frame and frame after the last of a random stretch of at most `max_frames` frames."""
    place = rng.random()  # always drawn, see above
    if max_frames is None or num_frames <= max_frames:
        return 0, num_frames
    start = int(place * (num_frames - max_frames + 1))
    return start, start + max_frames
