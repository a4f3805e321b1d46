"""From recordings to batches of waveforms: read ahead in threads, in order of length, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import soundfile

from ..data.audio import SAMPLING_RATE, FloatArray
from ..data.audio_stream import read_blocks
from .sources import Item
from .windows import Chunk, SlidingWindow, Span, cut_windows

READ_AHEAD_SECONDS = 240.0
"""Seconds of audio that may wait for the model: 15 MB once decoded."""

LONG_SECONDS = 60.0
"""Recordings that are cut into windows and are longer than this are read block by block."""

MOST_PADDING = 0.1
"""Largest share of padding in a batch: clips that would need more go into the next one."""

READING_ERRORS = (ValueError, TypeError, LookupError, OSError, soundfile.SoundFileError)
"""What a bad input can raise while it is read (`RequestError` is a ValueError); a bug or a full memory is neither."""


@dataclass
class ReadState:
    """What is known of one recording so far.

    Args:
        samples: Its length at 16 kHz, as far as it has been read.
        windowed: Whether it is scored in windows.
        problem: Why it cannot be scored.
        spans: The windows that have been scored, in order, or one span for all of it.
        scores: (labels,) probabilities of each, or the (size,) vectors that the heads read.
    """

    samples: int = 0
    windowed: bool = False
    problem: str | None = None
    spans: list[Span] = field(default_factory=list)
    scores: list[npt.NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """One waveform for the model: a recording or a window of one.

    Args:
        item: Number of the recording.
        span: Which part of it.
        waveform: (samples,) float32 at 16 kHz, at least one frame.
    """

    item: int
    span: Span
    waveform: FloatArray


class Reader:
    """Reads recordings in order of length and cuts the long ones into windows.

    Args:
        items: The recordings.
        windowing: The windows of all recordings; None for none.
        longest: Windows of recordings longer than their size, used without `windowing`; None to score
            recordings of any length in one piece.
        shortest: Samples that the model needs; a shorter clip gets zeros at its end.
    """

    def __init__(
        self, items: Sequence[Item], windowing: SlidingWindow | None, longest: SlidingWindow | None, shortest: int
    ) -> None:
        self.items = items
        self.windowing = windowing
        self.longest = longest
        self.shortest = shortest
        self.states = [ReadState(problem=item.problem) for item in items]
        self.threads = max(1, min(8, os.cpu_count() or 1))
        with ThreadPoolExecutor(self.threads) as pool:  # headers on a network drive are slow one by one
            self.estimates = list(pool.map(Item.estimated_samples, items))

    def work(self, index: int) -> int:
        """Estimated samples that the model will be given for a recording, overlaps included."""
        samples = self.estimates[index]
        windowing = self._windowing(samples)
        return windowing.count(samples) * min(windowing.size, samples) if windowing else samples

    def batches(self, batch_seconds: float, padded: bool = True) -> Iterator[list[Segment]]:
        """Fill batches with neighbours in length, longest first: what takes most memory is tried at once.

        A batch has at most `batch_seconds` of audio, padding included where its segments are `padded`; one longer
        segment is a batch of its own. When the iteration ends, `states` has lengths and problems.
        """
        limit = batch_seconds * SAMPLING_RATE
        batch: list[Segment] = []
        longest = filled = 0
        for segment in self._segments():
            length = len(segment.waveform)
            size = max(longest, length) * (len(batch) + 1) if padded else filled + length
            if batch and (size > limit or size - filled - length > MOST_PADDING * size):
                yield batch
                batch, longest, filled = [], 0, 0
            batch.append(segment)
            longest, filled = max(longest, length), filled + length
        if batch:
            yield batch

    def keep(self, segments: Sequence[Segment], rows: npt.NDArray[np.float64]) -> Iterator[float]:
        """Keep what was computed, a row for each segment; gives the seconds of audio that each of them was."""
        for segment, row in zip(segments, rows, strict=True):
            self.states[segment.item].spans.append(segment.span)
            self.states[segment.item].scores.append(row)
            yield (segment.span[1] - segment.span[0]) / SAMPLING_RATE

    def _segments(self) -> Iterator[Segment]:
        """Short recordings are decoded by a pool, up to a bound; long ones arrive block by block."""
        order = deque(sorted(range(len(self.items)), key=self._segment_length, reverse=True))
        waiting: deque[tuple[int, Future[FloatArray] | None]] = deque()
        ahead = 0
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                while order or waiting:
                    while order and (not waiting or ahead < READ_AHEAD_SECONDS * SAMPLING_RATE):
                        index = order.popleft()
                        if self.items[index].problem is None:
                            long = self._in_blocks(index)
                            waiting.append((index, None if long else pool.submit(self.items[index].read)))
                            ahead += self._held(index)
                    if waiting:
                        index, future = waiting.popleft()
                        ahead -= self._held(index)
                        yield from self._read(index, future)
            finally:
                for _, future in waiting:
                    if future is not None:
                        future.cancel()

    def _read(self, index: int, future: Future[FloatArray] | None) -> Iterator[Segment]:
        state = self.states[index]
        try:
            blocks = read_blocks(self.items[index].source) if future is None else iter([future.result()])
            for chunk in self._chunks(index, blocks):
                for span in chunk.spans:
                    state.samples = max(state.samples, span[1])
                    waveform = chunk.waveform(span)
                    if len(waveform) < self.shortest:
                        waveform = np.pad(waveform, (0, self.shortest - len(waveform)))
                    yield Segment(index, span, waveform)
        except READING_ERRORS as error:
            state.problem = describe_problem(self.items[index].name, error)

    def _chunks(self, index: int, blocks: Iterator[FloatArray]) -> Iterator[Chunk]:
        if self._in_blocks(index):
            windowing = self._windowing(self.estimates[index])
        else:
            whole = next(blocks)
            windowing = self._windowing(len(whole))  # now the length is known, whatever the header said
            blocks = iter([whole])
            if windowing is None:
                yield Chunk(whole, 0, [(0, len(whole))])
                return
        assert windowing is not None
        self.states[index].windowed = True
        yield from cut_windows(blocks, windowing)

    def _windowing(self, samples: int) -> SlidingWindow | None:
        if self.windowing is not None:
            return self.windowing
        return self.longest if self.longest is not None and samples > self.longest.size else None

    def _in_blocks(self, index: int) -> bool:
        """Whether a recording is read block by block: it is cut into windows and longer than a few of them."""
        windowing = self._windowing(self.estimates[index]) if self.items[index].part is None else None
        return windowing is not None and self.estimates[index] > LONG_SECONDS * SAMPLING_RATE

    def _segment_length(self, index: int) -> int:
        samples = self.estimates[index]
        windowing = self._windowing(samples)
        return min(windowing.size, samples) if windowing else samples

    def _held(self, index: int) -> int:
        """Samples in memory while a recording waits; one whose header says nothing is counted as half a minute."""
        return 0 if self._in_blocks(index) else self.estimates[index] or 30 * SAMPLING_RATE


def describe_problem(name: str, error: BaseException) -> str:
    """Say in one line why a recording cannot be scored; the line names it."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
    return text if name in text else f"{name}: {text}"
