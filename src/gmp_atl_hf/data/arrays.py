"""Recordings that are in memory already: arrays, tensors and lists of numbers, checked and mixed to mono."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..errors import RequestError

FloatArray: TypeAlias = npt.NDArray[np.float32]
"""A waveform, or channels of it."""

REPLACE = "get it again from its source, or leave it out"
"""What to do about a recording that is damaged."""

ARRAYS = ("raw", "array")
"""Where dictionaries have their samples: transformers' word and datasets' word."""

SILENCE = 10 ** (-80 / 20)
"""Level below which a recording holds no speech: -80 dB of full scale, where 16 bits end."""

# Energy of the channels' mean, as a share of the channels' mean energy, below which they cancel each other: it is 1 for
# equal channels and 1/n for n that have nothing in common, the widest that ordinary stereo is. Below are a channel and
# its own negative, also where one is 5 % louder or has some noise of its own, such as that of a lossy format.
_CANCELLED = 1e-3

LOUDEST = 1e12
"""Largest sample that is taken: far beyond any sound, and sums of squares of a day of such samples still are float32
numbers. Beyond, the variance by which a clip is normalised would be infinite, and its scores those of silence."""

_ENERGY_BLOCK = 1 << 16

# More rows beside the samples than stereo has are several recordings in one array: averaged, they would be one.
MOST_CHANNELS = 2
# Resampling multiplies what is in memory by up to 16 between these; a header that says 1 Hz would multiply by 16,000.
_RATES = (1_000, 1_000_000)


def is_numbers(source: object) -> bool:
    """Whether this is a number, or an array, tensor or list of them, without a sampling rate.

    A recording with its rate is not, nor are lists and arrays of anything else.
    """
    if isinstance(source, tuple):
        return len(source) > 0 and all(map(_is_number, source[:2]))
    if isinstance(source, list):
        rows = len(source) > 0 and isinstance(source[0], (list, tuple))
        return is_numbers(source[0]) if rows else len(source) > 0 and _is_number(source[0])
    if _is_number(source):
        return True
    # The dtype of numpy and what follows it has a kind: object, string, time and structure are no numbers.
    return hasattr(source, "shape") and hasattr(source, "dtype") and getattr(source.dtype, "kind", "f") in "biufc"


def _is_number(value: object) -> bool:
    scalar = getattr(value, "shape", None) == () and not isinstance(value, (str, bytes))  # numpy's words have a shape
    return scalar or isinstance(value, (int, float, complex))


def array_and_rate(source: object) -> tuple[Any, Any] | None:
    """Give the array of a recording that is in memory already and its rate, unchecked; None for all other forms."""
    if isinstance(source, tuple) and len(source) == 2:
        refuse_rate_last(source)
        return source[1], source[0]
    if isinstance(source, Mapping) and "sampling_rate" in source:
        arrays = [source[key] for key in ARRAYS if source.get(key) is not None]
        return (arrays[0], source["sampling_rate"]) if arrays else None
    return None


def refuse_rate_last(source: object) -> None:
    """Refuse, by a `RequestError`, (array, rate), as soundfile and torchaudio give a file: here the rate is first."""
    if not (isinstance(source, tuple) and len(source) == 2 and _is_number(source[1])):
        return
    if is_numbers(source[0]) and not _is_number(source[0]):
        raise RequestError(
            "the sampling rate comes behind the samples, in (array, sampling_rate)",
            "(sampling_rate, array), as gradio gives it",
            "turn the two: (rate, array), where soundfile.read and torchaudio.load gave (array, rate)",
        )


def mono_array(name: str, source: Any) -> tuple[FloatArray, int] | None:
    """Give a recording that is in memory already, (samples,) float32, and its rate in Hz; None for all other forms."""
    if hasattr(source, "get_all_samples"):
        try:
            decoded = source.get_all_samples()
        except RuntimeError as error:
            raise RequestError(f"{name} cannot be decoded ({error})", "a complete audio file", REPLACE) from error
        samples = np.atleast_2d(as_float(name, decoded.data)).T  # channels first, whatever their number
        return _mix_whole(name, samples), checked_rate(name, decoded.sample_rate)
    found = array_and_rate(source)
    if found is None:
        return None
    rate = checked_rate(name, found[1])
    return _mix_whole(name, _channels_last(name, as_float(name, found[0]))), rate


def checked_rate(name: str, rate: Any, fix: str | None = None) -> int:
    """Give a sampling rate in Hz as a whole number, or refuse one that no recording of speech has, with the fix."""
    number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not number or not _RATES[0] <= rate <= _RATES[1] or int(rate) != rate:
        in_header = "correct the rate, in a file's header for example with: sox -r 16000 INPUT OUTPUT.wav"
        raise RequestError(
            f"{name} says that its sampling rate is {rate!r:.60}",
            f"a whole number of Hz from {_RATES[0]:,} to {_RATES[1]:,}",
            fix or (in_header if number else "give the rate as a number, such as 16000"),
        )
    return int(rate)


@dataclass
class Mixer:
    """Averages the channels of one recording, which may come in blocks, and compares what is left with what was there.

    Args:
        name: The recording's name for messages.
        channels: Energy of the samples so far, a mean over the channels.
        mean: Energy of the channels' mean.
        samples: Number of samples so far.
    """

    name: str
    channels: float = 0.0
    mean: float = 0.0
    samples: int = 0

    def mix(self, samples: FloatArray) -> FloatArray:
        """Check samples of shape (samples, channels) and average the channels to shape (samples,)."""
        if samples.size == 0:
            raise RequestError(f"{self.name} holds no samples", "a recording with sound", REPLACE)
        several = samples.shape[1] > 1
        mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32) if several else samples[:, 0]
        loudest = float(max(mono.max(), -mono.min()))  # NaN if there is one
        if not math.isfinite(loudest):
            raise RequestError(
                f"{self.name} holds samples that are not finite numbers (NaN or infinity)", "finite samples", REPLACE
            )
        if loudest > LOUDEST:
            raise RequestError(
                f"{self.name} holds samples of up to {loudest:.3g}, too large to compute with",
                f"floats from -1 to 1, never above {LOUDEST:g}",
                f"{REPLACE}; or scale it: array / abs(array).max()",
            )
        if several:
            self.channels += _energy(samples) / samples.shape[1]
            self.mean += _energy(mono)
            self.samples += len(mono)
        return mono

    def refuse_cancelled(self) -> None:
        """Refuse a recording, read to its end, whose channels cancel each other: its mean would be scored as silence.

        Channels that are silent themselves are a silent recording like any other.
        """
        if self.channels > SILENCE**2 * self.samples and self.mean < _CANCELLED * self.channels:
            raise RequestError(
                f"the channels of {self.name} cancel each other: their mean is silent",
                "a recording whose channels can be averaged",
                "use one channel, or turn the sign of one, for example: sox INPUT OUTPUT.wav remix 1",
            )


def _energy(samples: FloatArray) -> float:
    """Sum of squares, in float64, which no float32 can overflow, block by block so that no copy is large."""
    flat = samples.reshape(-1)
    blocks = (flat[start : start + _ENERGY_BLOCK].astype(np.float64) for start in range(0, len(flat), _ENERGY_BLOCK))
    return float(sum(np.dot(block, block) for block in blocks))


def _mix_whole(name: str, samples: FloatArray) -> FloatArray:
    mixer = Mixer(name)
    mono = mixer.mix(samples)
    mixer.refuse_cancelled()
    return mono


def _channels_last(name: str, array: FloatArray) -> FloatArray:
    """Give an array as (samples, channels): the longer axis is time, the other one is mono or stereo."""
    if array.ndim == 1:
        return array[:, np.newaxis]
    if array.ndim == 2 and min(array.shape) <= MOST_CHANNELS:
        return array if array.shape[0] >= array.shape[1] else array.T
    raise RequestError(
        f"{name} has the shape {array.shape}",
        "one recording of shape (samples,), or with one or two channels: (samples, channels) or (channels, samples)",
        "give several recordings as a list of (sampling_rate, array), mix more channels before: array.mean(axis)",
    )


def as_float(name: str, array: Any) -> FloatArray:
    """Turn numbers of any accepted type, whatever holds them, into float32 from -1 to 1; the shape stays."""
    try:
        if hasattr(array, "detach"):  # a tensor, perhaps on another device, with a gradient or in bfloat16
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array
        array = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"{name} is no array of numbers ({error})", "numbers, as many in every row", "numpy.asarray(it)"
        ) from error
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is refused by name
            return cast(FloatArray, array.astype(np.float32))
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype in (np.int16, np.int32):
        return (array.astype(np.float64) / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    raise RequestError(
        f"{name} has the type {array.dtype}",
        "floats from -1 to 1, or int16, int32 or uint8 samples",
        "cast it to the type its values mean, for example array.astype('int16')",
    )
