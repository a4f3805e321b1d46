"""Augmentation, drawn again in every epoch: of a clip's speed, or of its sound alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import soxr
from torch.utils.data import Dataset

from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray
from .clips import TableClips
from .sampler import ClipKey

LOWEST, HIGHEST = 0.9, 1.1
"""Range of the factor, as the usual three-fold speed perturbation has it (Ko et al. 2015, Interspeech). Our choice."""

_LOWEST_HERTZ = 60.0
_NOISY_SHARE = 0.5

_STREAM = 1
"""Beside (seed, epoch, row): masks and crops are drawn from these three alone and shall not change."""


def change_speed(waveform: FloatArray, factor: float) -> FloatArray:
    """Play a clip, (samples,) float32, faster or slower; pitch and formants move along, as with a tape.

    A factor above 1 is faster and higher. The clip stays as it is where it would be too short for one frame.
    """
    if len(waveform) / factor < MINIMUM_SAMPLES + 1:
        return waveform
    changed: FloatArray = soxr.resample(waveform, SAMPLING_RATE * factor, SAMPLING_RATE, quality="HQ")
    return changed


def change_sound(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Another microphone in another room, for (samples,) float32: loudness, colour and noise; nothing moves in time.

    Our choice of ranges: 12 dB up and down, a colour of at most 9 dB between neighbouring octaves or so, and for half
    of the clips noise of any colour between white and brown, 5 to 30 dB below the speech.
    """
    samples = len(waveform)
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
    octaves = np.log2(np.maximum(frequencies, _LOWEST_HERTZ) / _LOWEST_HERTZ)
    colour = np.interp(octaves, np.arange(8), rng.normal(0, 3, 8).clip(-9, 9)) + rng.uniform(-12, 12)
    spectrum = np.fft.rfft(waveform) * 10 ** (colour / 20)
    if rng.random() < _NOISY_SHARE:
        noise = np.fft.rfft(rng.standard_normal(samples)) * 2.0 ** (-rng.uniform(0, 1) * octaves)
        power = (np.abs(spectrum) ** 2).sum() / max((np.abs(noise) ** 2).sum(), np.finfo(np.float64).tiny)
        spectrum += noise * np.sqrt(power) * 10 ** (-rng.uniform(5, 30) / 20)
    changed: FloatArray = np.fft.irfft(spectrum, samples).astype(np.float32)
    return changed


AUGMENTED: Mapping[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "speed": lambda waveform, rng: change_speed(waveform, rng.uniform(LOWEST, HIGHEST)),
    "sound": change_sound,
}
AUGMENTATIONS = ("none", *AUGMENTED)


class AugmentedClips(Dataset[dict[str, Any]]):
    """Rows with their waveform changed by one of `AUGMENTED`, drawn from (seed, epoch, row)."""

    def __init__(self, clips: TableClips, kind: str, seed: int) -> None:
        self.clips, self.kind, self.seed = clips, kind, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        row = self.clips[key]
        rng = np.random.default_rng([self.seed, key.epoch, key.row, _STREAM])
        return {**row, "waveform": AUGMENTED[self.kind](row["waveform"], rng)}
