"""Audio that comes in chunks, from a microphone or a phone call: checked, mixed to mono and resampled as it comes."""

from __future__ import annotations

import numpy as np

from ..errors import RequestError
from .arrays import MOST_CHANNELS, FloatArray, Mixer, as_float, checked_rate
from .audio_stream import Resampler


class LiveAudio:
    """Makes of the chunks of a recording what `read_audio` makes of the whole.

    Args:
        sampling_rate: Samples per second of the chunks, in Hz.

    Raises:
        RequestError: It is no whole number from 1,000 to 1,000,000.
    """

    def __init__(self, sampling_rate: object) -> None:
        fix = "give the rate of the microphone or the call, for example sampling_rate=16000"
        self.rate = checked_rate("the stream", sampling_rate, fix)
        self._samples = 0
        self._channels: int | None = None
        self._channel_axis: int | None = None
        self._mixer = Mixer("the stream")
        self._resampler = Resampler(self.rate)

    def feed(self, chunk: object) -> FloatArray:
        """Take the next chunk; one that is refused counts as not given. It may be overwritten afterwards.

        Args:
            chunk: An array, tensor or list of shape (samples,), or with one or two channels, (samples, channels) or
                (channels, samples): floats from -1 to 1, or int16, int32 or uint8; of any length, 0 too. The longer
                axis of the first is time, as elsewhere; where both are below 3 it is (samples, channels).

        Returns:
            What is known by now at 16 kHz, (samples,) float32, perhaps none; see `Resampler`.

        Raises:
            RequestError: It is no such array, has a sample that is no finite number or far too large, or other channels
                than before.
        """
        name = f"the chunk at {self._samples / self.rate:.2f} s"
        if not (hasattr(chunk, "shape") or isinstance(chunk, list)):
            raise RequestError(
                f"{name} is of type {type(chunk).__name__}",
                "an array or tensor of samples",
                "numpy.frombuffer(chunk, 'int16') for bytes of 16-bit samples; the array alone of (rate, array)",
            )
        samples = as_float(name, chunk)
        if samples.size == 0 and samples.ndim in (1, 2):
            return np.empty(0, dtype=np.float32)
        samples, axis = self._channels_last(name, samples)
        finite = np.isfinite(samples).all(axis=1)
        if not finite.all():
            second = (self._samples + int(np.argmin(finite))) / self.rate
            raise RequestError(
                f"{name} holds samples that are not finite numbers (NaN or infinity), the first at {second:.4f} s",
                "finite samples",
                "give zeros in their place, for example numpy.nan_to_num(chunk, posinf=0, neginf=0)",
            )
        mono = self._mixer.mix(samples)  # before anything is settled by a chunk that may be refused
        self._channels, self._channel_axis = samples.shape[1], axis
        self._samples += len(samples)
        return self._resampler.feed(mono)

    def finish(self) -> FloatArray:
        """Give the rest at 16 kHz once there are no more chunks, (samples,) float32, perhaps none."""
        return self._resampler.finish()

    def refuse_cancelled(self) -> None:
        """Refuse, by a `RequestError`, channels that cancel each other so far: their mean would pass for silence."""
        self._mixer.refuse_cancelled()

    def _channels_last(self, name: str, samples: FloatArray) -> tuple[FloatArray, int | None]:
        """Give a chunk as (samples, channels), and the axis of two channels, which is that of all chunks to come."""
        shape, axis = samples.shape, self._channel_axis
        if samples.ndim == 1:
            samples = samples[:, np.newaxis]
        elif samples.ndim != 2 or min(shape) > MOST_CHANNELS:
            raise RequestError(
                f"{name} has the shape {shape}",
                "(samples,), or with one or two channels: (samples, channels) or (channels, samples)",
                "mix more channels before: chunk.mean(axis); several calls need a stream each",
            )
        else:
            if axis is None:
                channels_first = shape[0] < shape[1] and (shape[1] > MOST_CHANNELS or self._channels == 1)
                axis = 0 if channels_first else 1
            samples = samples.T if axis == 0 else samples
        if self._channels is not None and samples.shape[1] != self._channels:
            two = "two, as (channels, samples)" if axis == 0 else "two, as (samples, channels)"
            raise RequestError(
                f"{name} has the shape {shape}; those before it were taken for "
                f"{'one channel' if self._channels == 1 else two}",
                "chunks with as many channels, in the same order of axes",
                "give all chunks alike, the first with more than two samples; another call needs another stream",
            )
        return samples, None if samples.shape[1] == 1 else axis
