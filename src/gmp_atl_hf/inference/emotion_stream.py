"""Emotions of live audio: chunks go in, and the scores of each window come out as soon as it is complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from ..data.arrays import is_numbers
from ..data.audio import SAMPLING_RATE, FloatArray, source_name
from ..data.live_audio import LiveAudio
from ..errors import DivergenceError, RequestError
from .predictions import NO_NUMBERS, WindowScores, window_scores
from .windows import Chunk, SlidingWindow, WindowCutter


class EmotionStream:
    """One recording that is scored while it is recorded; `SpeechEmotionClassifier.stream` makes it.

    Its windows are those of `classifier(array, window, hop)` on the whole recording, wherever chunks begin and end. It
    holds no more audio than a window, a hop and a chunk. One thread at a time may use it.

    Args:
        score: (windows, labels) probabilities of (samples,) float32 waveforms of one length at 16 kHz.
        labels: What they are probabilities of.
        sampling_rate: Samples per second of the chunks, in Hz.
        windowing: The windows.
        shortest: Samples that the model needs; a shorter recording gets zeros at its end.
        batch_seconds: Most seconds that are scored at once where a chunk completes many windows, or one window.

    Raises:
        RequestError: There is no window, or no such sampling rate.

    Example:
        >>> live = classifier.stream(sampling_rate=8000, window=5, hop=1)  # doctest: +SKIP
        >>> for chunk in call:  # doctest: +SKIP
        ...     for one in live.feed(chunk):
        ...         print(one.end, one.label)
        >>> live.finish()  # doctest: +SKIP
    """

    def __init__(
        self,
        score: Callable[[Sequence[FloatArray]], Tensor],
        labels: Sequence[str],
        sampling_rate: object,
        windowing: SlidingWindow | None,
        shortest: int,
        batch_seconds: float,
    ) -> None:
        if windowing is None:
            raise RequestError("window is None", "seconds: live audio is scored in windows", "window=5")
        self._audio = LiveAudio(sampling_rate)
        self._cutter = WindowCutter(windowing)
        self._score, self._labels, self._shortest = score, labels, shortest
        self._at_once = max(1, int(min(batch_seconds * SAMPLING_RATE, sys.maxsize)) // windowing.size)
        self._finished = False

    def feed(self, chunk: object) -> list[WindowScores]:
        """Take the next chunk of the recording.

        Args:
            chunk: An array, tensor or list of shape (samples,), or with one or two channels, (samples, channels) or
                (channels, samples): floats from -1 to 1, or int16, int32 or uint8; of any length, 0 too. It may be
                overwritten afterwards.

        Returns:
            The windows that it completes, mostly none. At other rates than 16 kHz they are late: by 0.12 s at 8 kHz, by
            less above.

        Raises:
            RequestError: It is no such array or has a sample that is no finite number (then it counts as not given);
                the channels so far cancel each other; or `finish` has been called.
            DivergenceError: The model gives no finite scores.
        """
        return list(self._feed(chunk))

    def finish(self) -> list[WindowScores]:
        """End the recording.

        Returns:
            What is left: the last window, shifted back to full length; a recording shorter than a window as one;
            nothing where the windows before reach its end, or nothing was fed.

        Raises:
            RequestError: It has been called before, or the channels cancel each other.
            DivergenceError: The model gives no finite scores.
        """
        return list(self._finish())

    def over(self, chunks: Iterable[object]) -> Iterator[WindowScores]:
        """Feed chunks as they come, then finish.

        Raises:
            RequestError: They are no iterable of chunks; while it runs, what `feed` and `finish` raise.
        """
        whole = isinstance(chunks, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)) or is_numbers(chunks)
        if whole or not isinstance(chunks, Iterable):
            raise RequestError(
                f"chunks is {source_name(chunks)}",
                "an iterable of arrays or tensors, or nothing: then chunks are fed one by one",
                "a whole recording is for classifier(recording, window=5); "
                "stream(sampling_rate=16000) has a method feed(chunk)",
            )
        return self._over(chunks)

    def _over(self, chunks: Iterable[object]) -> Iterator[WindowScores]:
        for chunk in chunks:
            yield from self._feed(chunk)
        yield from self._finish()

    def _feed(self, chunk: object) -> Iterator[WindowScores]:
        self._refuse_finished()
        yield from self._scored(self._cutter.push(self._audio.feed(chunk)))

    def _finish(self) -> Iterator[WindowScores]:
        self._refuse_finished()
        self._finished = True
        yield from self._scored(self._cutter.push(self._audio.finish()))
        yield from self._scored(self._cutter.finish())

    def _refuse_finished(self) -> None:
        if self._finished:
            raise RequestError(
                "the stream has ended: finish() was called", "one finish() after the last chunk", "make another stream"
            )

    def _scored(self, chunk: Chunk | None) -> Iterator[WindowScores]:
        """Score the windows of a chunk, some at once."""
        if chunk is None:
            return
        self._audio.refuse_cancelled()
        for first in range(0, len(chunk.spans), self._at_once):
            spans = chunk.spans[first : first + self._at_once]
            scores = self._score([self._long_enough(chunk.waveform(span)) for span in spans])
            rows = scores.cpu().numpy().astype(np.float64)
            if not np.isfinite(rows).all():
                raise DivergenceError(f"the model's {NO_NUMBERS}", "finite scores", "another model, or float32")
            for span, row in zip(spans, rows, strict=True):
                yield window_scores(span, row, self._labels)

    def _long_enough(self, waveform: FloatArray) -> FloatArray:
        missing = self._shortest - len(waveform)
        return waveform if missing <= 0 else np.pad(waveform, (0, missing))
