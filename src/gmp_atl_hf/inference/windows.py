"""Windows over long recordings: where they lie, how a stream is cut into them, how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray
from ..errors import RequestError

Span: TypeAlias = tuple[int, int]
"""First sample and sample after the last, at 16 kHz."""


def refuse_no_seconds(name: str, value: object, samples: int = 0, endless: bool = False) -> None:
    """Refuse, by a `RequestError`, what is no number of seconds above 0, or less than so many samples.

    Infinity is one if they may be `endless`.
    """
    least = samples / SAMPLING_RATE
    number = isinstance(value, Real) and not isinstance(value, bool) and (endless or math.isfinite(value))
    if not number or not cast(float, value) > 0 or cast(float, value) < least:
        expected = f"seconds, as a number, at least {least} (one frame)" if samples else "seconds, a number above 0"
        raise RequestError(f"{name} is {value!r}", expected, "leave it out")


@dataclass(frozen=True)
class SlidingWindow:
    """Samples of a window at 16 kHz, and from its start to that of the next (at most as many)."""

    size: int
    hop: int

    @classmethod
    def from_seconds(
        cls,
        window: float | None,
        hop: float | None = None,
        shortest: int = MINIMUM_SAMPLES,
        most: int | None = None,
    ) -> SlidingWindow | None:
        """Check seconds; None is no window, or a hop as long as the window.

        `shortest` are the samples of one frame of the model, `most` those that it can score at once.

        Raises:
            RequestError: A hop without a window, a window below one frame or above `most`, a hop below one sample or
                one that leaves gaps, or what is no number.
        """
        if window is None:
            if hop is None:
                return None
            raise RequestError(f"hop is {hop} but there is no window", "both, or window alone", "give window too")
        for name, value in (("window", window), ("hop", hop)):
            if value is not None and not isinstance(value, Real):
                raise RequestError(f"{name} is {value!r}", "seconds, as a number", f"{name}=10")
        least = shortest / SAMPLING_RATE
        if not (math.isfinite(window) and window >= least):
            raise RequestError(f"window is {window}", f"seconds, at least {least} (one frame)", "window=10")
        if most is not None and window * SAMPLING_RATE > most:
            longest = most / SAMPLING_RATE
            raise RequestError(f"window is {window}", f"at most {longest:g} seconds: the model has no places for more",
                               f"window={longest:g}")  # fmt: skip
        if hop is None:
            hop = window
        if not (math.isfinite(hop) and hop * SAMPLING_RATE >= 1):
            raise RequestError(f"hop is {hop}", f"seconds, at least {1 / SAMPLING_RATE:.7f} (one sample)",
                               f"hop={window}")  # fmt: skip
        if hop > window:
            raise RequestError(
                f"hop ({hop} s) is longer than window ({window} s): parts of the recording would be skipped",
                "a hop of at most the window",
                f"hop={window}",
            )
        return cls(round(window * SAMPLING_RATE), round(hop * SAMPLING_RATE))

    def count(self, num_samples: int) -> int:
        """Number of windows over a recording of `num_samples` samples."""
        return 1 + max(0, math.ceil((num_samples - self.size) / self.hop))


@dataclass(frozen=True)
class Chunk:
    """Part of a recording and the windows that lie in it.

    Args:
        samples: (samples,) float32 at 16 kHz.
        start: Sample of the recording that comes first here.
        spans: The windows, counted from the start of the recording.
    """

    samples: FloatArray
    start: int
    spans: Sequence[Span]

    def waveform(self, span: Span) -> FloatArray:
        """Samples of one window, (samples,) float32."""
        return self.samples[span[0] - self.start : span[1] - self.start]


class WindowCutter:
    """Cuts a recording that arrives in blocks, holding no more of it than a block, a window and a hop.

    Every window has its full length: what would be a short one at the end is shifted back until it ends with the
    recording. A recording that is shorter than a window is one window.
    """

    def __init__(self, windowing: SlidingWindow) -> None:
        self.windowing = windowing
        # Joined only where a window is complete: blocks may be single samples.
        self._held: list[FloatArray] = []
        self._start = self._total = self._upcoming = 0

    def push(self, block: FloatArray) -> Chunk | None:
        """Take the next (samples,) float32; what has the windows that it completes, None if there is none."""
        size = self.windowing.size
        if len(block):
            self._held.append(block)
            self._total += len(block)
        spans = []
        while self._upcoming + size <= self._total:
            spans.append((self._upcoming, self._upcoming + size))
            self._upcoming += self.windowing.hop
        if not spans:
            return None
        chunk = Chunk(np.concatenate(self._held), self._start, spans)
        # The end of the recording may be anywhere from here on, and its window reaches back by a full length.
        keep = max(self._start, min(self._upcoming, self._total - size))
        self._held = [chunk.samples[keep - self._start :].copy()]  # a view would keep all of a long block
        self._start = keep
        return chunk

    def finish(self) -> Chunk | None:
        """What has the shifted window at the end of the recording; None if those before it reach there."""
        covered_to = self._upcoming - self.windowing.hop + self.windowing.size if self._upcoming else 0
        if covered_to >= self._total:
            return None
        span = (max(0, self._total - self.windowing.size), self._total)
        return Chunk(np.concatenate(self._held), self._start, [span])


def cut_windows(blocks: Iterable[FloatArray], windowing: SlidingWindow) -> Iterator[Chunk]:
    """Cut a recording that arrives in (samples,) float32 blocks, see `WindowCutter`.

    There is a chunk for each block that completes windows, and one for the shifted window at the end.
    """
    cutter = WindowCutter(windowing)
    for block in blocks:
        if (chunk := cutter.push(block)) is not None:
            yield chunk
    if (chunk := cutter.finish()) is not None:
        yield chunk


def coverage_weights(spans: Sequence[Span]) -> npt.NDArray[np.float64]:
    """Weight of each window in the scores of the whole recording, which they cover: (windows,) float64 that sum to 1.

    Each sample of the recording counts once, shared equally by the windows that cover it, so that windows which overlap
    (the one shifted back at the end always may) do not make their part of the recording heavier than the rest.

    Example:
        >>> coverage_weights([(0, 4), (4, 8), (6, 10)]).tolist()
        [0.4, 0.3, 0.3]
    """
    starts, ends = np.asarray(spans, dtype=np.int64).T
    edges = np.unique(np.concatenate([starts, ends]))
    change = np.zeros(len(edges))
    np.add.at(change, np.searchsorted(edges, starts), 1)
    np.add.at(change, np.searchsorted(edges, ends), -1)
    covering = np.cumsum(change)[:-1]
    shares = np.diff(edges) / np.maximum(covering, 1)
    before = np.concatenate([[0.0], np.cumsum(shares)])
    covered = before[np.searchsorted(edges, ends)] - before[np.searchsorted(edges, starts)]
    weights: npt.NDArray[np.float64] = covered / covered.sum()
    return weights
