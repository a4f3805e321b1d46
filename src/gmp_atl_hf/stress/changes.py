"""Changes of a recording, in synthetic ways: noise, telephone, level, room, speed, silence.

Each takes (samples,) float32 at 16 kHz and a generator, and gives (samples,) float32. Nothing is clipped unless that is
the change: models take numbers beyond full scale as they are. All settings are our choice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr
from scipy.signal import fftconvolve, firwin, oaconvolve

from ..batching.speed import change_speed
from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray

TELEPHONE_RATE, TELEPHONE_BAND = 8_000, (300.0, 3_400.0)
TELEPHONE_TAPS = 401  # at 8 kHz: from full to nothing within 70 Hz
SILENT_SECONDS = 1.0


def white_noise(waveform: FloatArray, rng: np.random.Generator, snr: float) -> FloatArray:
    """Add white noise, `snr` dB below the recording: the mean power of both, over all of it, pauses too."""
    return _add(waveform, rng.standard_normal(len(waveform)), snr)


def shaped_noise(waveform: FloatArray, rng: np.random.Generator, snr: float) -> FloatArray:
    """Add steady noise with the recording's own spectrum, as that of many voices at once; `snr` as for white noise.

    The phase of every frequency of the recording is drawn anew, so it takes no speech but this.
    """
    spectrum = np.abs(np.fft.rfft(waveform))
    turned = spectrum * np.exp(2j * np.pi * rng.random(len(spectrum)))
    return _add(waveform, np.fft.irfft(turned, len(waveform)), snr)


def _add(waveform: FloatArray, noise: npt.NDArray[np.float64], snr: float) -> FloatArray:
    loudness = _power(noise)
    scale = np.sqrt(_power(waveform) / loudness / 10 ** (snr / 10)) if loudness else 0.0
    noisy: FloatArray = (waveform + scale * noise).astype(np.float32)
    return noisy


def telephone(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Pass a telephone line: 300 to 3400 Hz at 8 kHz, and back at 16 kHz."""
    narrow = soxr.resample(waveform, SAMPLING_RATE, TELEPHONE_RATE, quality="HQ")
    if not len(narrow):  # a single sample
        return np.zeros_like(waveform)
    taps = firwin(TELEPHONE_TAPS, TELEPHONE_BAND, pass_zero=False, fs=TELEPHONE_RATE)
    passed = oaconvolve(narrow, taps, mode="same").astype(np.float32)
    return fit(soxr.resample(passed, TELEPHONE_RATE, SAMPLING_RATE, quality="HQ"), len(waveform))


def louder(waveform: FloatArray, rng: np.random.Generator, decibels: float) -> FloatArray:
    """Change the level, by less than 0 dB to a quieter one; beyond full scale nothing is cut."""
    changed: FloatArray = waveform * np.float32(10 ** (decibels / 20))
    return changed


def clipped(waveform: FloatArray, rng: np.random.Generator, decibels: float) -> FloatArray:
    """Amplify a recording until its peak is so far above full scale, and cut there, however quiet it was."""
    peak = float(np.abs(waveform).max(initial=0.0))
    if not peak:
        return waveform
    changed: FloatArray = np.clip(waveform * (10 ** (decibels / 20) / peak), -1.0, 1.0).astype(np.float32)
    return changed


def reverberant(waveform: FloatArray, rng: np.random.Generator, rt60: float) -> FloatArray:
    """Play a recording in a room: the direct sound, and as much energy of noise that decays by 60 dB in `rt60` seconds.

    Length and mean power stay: what the room adds after the end is cut.
    """
    time = np.arange(1, max(2, round(rt60 * SAMPLING_RATE))) / SAMPLING_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    response = np.concatenate([[1.0], tail / np.linalg.norm(tail)])
    wet = fftconvolve(waveform, response)[: len(waveform)]
    power = _power(wet)
    changed: FloatArray = (wet * np.sqrt(_power(waveform) / power) if power else wet).astype(np.float32)
    return changed


def speed(waveform: FloatArray, rng: np.random.Generator, factor: float) -> FloatArray:
    """Play a recording faster or slower; pitch and formants move along."""
    return fit(change_speed(waveform, factor), samples_at_speed(len(waveform), factor))


def samples_at_speed(samples: int, factor: float) -> int:
    """How many samples there are at another speed; what would be too short for a frame stays as it is."""
    changed = samples / factor
    return samples if changed < MINIMUM_SAMPLES + 1 else round(changed)


def silence_around(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Put a second of digital silence before the recording, and one behind it."""
    return np.pad(waveform, round(SILENT_SECONDS * SAMPLING_RATE))


def samples_with_silence(samples: int) -> int:
    """How many samples there are with the silence around them."""
    return samples + 2 * round(SILENT_SECONDS * SAMPLING_RATE)


def fit(waveform: FloatArray, samples: int) -> FloatArray:
    """Cut a waveform, or fill it up with zeros, to some samples: resamplers and codecs round lengths."""
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))


def _power(waveform: npt.NDArray[np.floating]) -> float:
    """Mean square, in float64."""
    return float(np.mean(np.square(waveform, dtype=np.float64)))
