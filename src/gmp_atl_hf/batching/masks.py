"""Masks and crops, drawn clip by clip, so that they do not depend on batches or processes."""

from __future__ import annotations

import numpy as np


def draw_time_mask(
    num_frames: int, probability: float, length: int, min_masks: int, rng: np.random.Generator
) -> np.ndarray:
    """Spans of frames to mask.

    As in wav2vec 2.0 and HuBERT, `probability · frames / length` spans of `length` frames start anywhere and may
    overlap. There are never so many that they could cover the clip, since nothing would be left to tell from: a clip
    shorter than two spans gets at most one, of half its length, and a single frame is never masked.

    Args:
        num_frames: Valid frames of the clip.
        probability: Share of the frames covered if spans did not overlap, 0 to 1.
        length: Frames per span.
        min_masks: Fewest spans, as far as the clip has room.
        rng: The clip's own generator.

    Returns:
        (num_frames,) bool, True where masked.
    """
    mask = np.zeros(num_frames, dtype=bool)
    span = min(length, num_frames // 2)
    rounding = rng.random()  # always drawn, so that later draws do not depend on the settings
    if span == 0 or probability <= 0:
        return mask
    spans = max(int(probability * num_frames / span + rounding), min_masks)
    spans = min(spans, (num_frames - 1) // span if num_frames >= 2 * length else 1)
    for start in rng.choice(num_frames - span + 1, size=spans, replace=False):
        mask[start : start + span] = True
    return mask


def draw_feature_mask(
    num_channels: int, probability: float, length: int, min_masks: int, rng: np.random.Generator
) -> np.ndarray:
    """Spans of channels to set to zero in all frames of a clip, drawn as spans of frames are.

    Args:
        num_channels: Width of the encoder.
        probability: Share of the channels covered if spans did not overlap, 0 to 1.
        length: Channels per span.
        min_masks: Fewest spans, as far as there is room.
        rng: The clip's own generator.

    Returns:
        (num_channels,) bool, True where masked; never all of them.
    """
    return draw_time_mask(num_channels, probability, length, min_masks, rng)


def draw_span(num_frames: int, max_frames: int | None, rng: np.random.Generator) -> tuple[int, int]:
    """First frame and frame after the last of a random stretch of at most `max_frames` frames."""
    place = rng.random()  # always drawn, see above
    if max_frames is None or num_frames <= max_frames:
        return 0, num_frames
    start = int(place * (num_frames - max_frames + 1))
    return start, start + max_frames
