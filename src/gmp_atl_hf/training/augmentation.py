"""Speed perturbation: each clip a little faster or slower in every epoch, so that few speakers sound like more."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from torch.utils.data import Dataset

from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray
from .clips import TableClips
from .sampler import ClipKey

AUGMENTATIONS = ("none", "speed")

LOWEST, HIGHEST = 0.9, 1.1
"""Range of the factor, as the usual three-fold speed perturbation has it (Ko et al. 2015, Interspeech). Our choice."""

_STREAM = 1
"""Beside (seed, epoch, row): masks and crops are drawn from these three alone and shall not change."""


def change_speed(waveform: FloatArray, factor: float) -> FloatArray:
    """Play a clip faster or slower; pitch and formants move along, as with a tape.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        factor: Above 1 is faster and higher.

    Returns:
        (about samples / factor,) float32; the clip as it was where it would be too short for one frame.
    """
    if len(waveform) / factor < MINIMUM_SAMPLES + 1:
        return waveform
    changed: FloatArray = soxr.resample(waveform, SAMPLING_RATE * factor, SAMPLING_RATE, quality="HQ")
    return changed


class SpeedPerturbed(Dataset[dict[str, Any]]):
    """Rows with their waveform at a speed drawn from (seed, epoch, row).

    Args:
        clips: The rows, with a `waveform`.
        seed: Of the speeds.
    """

    def __init__(self, clips: TableClips, seed: int) -> None:
        self.clips, self.seed = clips, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        row = self.clips[key]
        factor = np.random.default_rng([self.seed, key.epoch, key.row, _STREAM]).uniform(LOWEST, HIGHEST)
        return {**row, "waveform": change_speed(row["waveform"], factor)}
