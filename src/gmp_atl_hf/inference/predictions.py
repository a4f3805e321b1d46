"""What comes out for a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.audio import SAMPLING_RATE
from .reader import ReadState
from .windows import Span, coverage_weights

NO_NUMBERS = "scores are no finite numbers, so it is damaged, or its training or this precision has failed"
"""What is wrong with a model whose scores are not finite."""


@dataclass(frozen=True)
class WindowScores:
    """Scores of one window.

    Args:
        start: Where it begins, seconds from the start of the recording.
        end: Where it ends, seconds.
        scores: Label → probability.
    """

    start: float
    end: float
    scores: dict[str, float]

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.scores, key=self.scores.__getitem__)


@dataclass(frozen=True)
class Prediction:
    """Scores of one recording, or why there are none.

    Args:
        file: Its path, or what it is when it has none.
        label: The most probable label; None if the recording could not be read.
        scores: Label → probability, in the model's order; they sum to 1. With windows, their mean over time: each
            sample counts once, shared by the windows that cover it.
        seconds: Its length; None if it could not be read.
        windows: The windows in order, if it was scored in windows.
        error: What is wrong with it, in one line; None if all is well.
        speaker_clips: How many unlabelled clips of its speaker the model was adapted to; None where it was not.
        speaker: The name of that speaker, where recordings were grouped by speaker.
    """

    file: str
    label: str | None
    scores: dict[str, float]
    seconds: float | None
    windows: list[WindowScores] | None = None
    error: str | None = None
    speaker_clips: int | None = None
    speaker: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types, with a label for each window too; of the speaker only what is known."""
        fields = asdict(self)
        for name in ("speaker_clips", "speaker"):
            if fields[name] is None:
                del fields[name]
        if self.windows is not None:
            fields["windows"] = [
                {"start": one.start, "end": one.end, "label": one.label, "scores": one.scores} for one in self.windows
            ]
        return fields


def window_scores(span: Span, row: npt.NDArray[np.float64], labels: Sequence[str]) -> WindowScores:
    """The scores (labels,) of a window, whose span is in samples."""
    start, end = span
    return WindowScores(start / SAMPLING_RATE, end / SAMPLING_RATE, dict(zip(labels, row.tolist(), strict=True)))


def prediction_of(name: str, state: ReadState, labels: Sequence[str]) -> Prediction:
    """What is said of a recording whose windows all have their scores, or that could not be read."""
    if state.problem is not None:
        return Prediction(name, None, {}, None, error=state.problem)
    scores = np.stack(state.scores)
    if not np.isfinite(scores).all():
        return Prediction(name, None, {}, None, error=f"{name}: the model's {NO_NUMBERS}")
    mean = dict(zip(labels, (coverage_weights(state.spans) @ scores).tolist(), strict=True))
    windows = None
    if state.windowed:
        windows = [window_scores(span, row, labels) for span, row in zip(state.spans, scores, strict=True)]
    label = max(mean, key=mean.__getitem__)
    return Prediction(name, label, mean, state.samples / SAMPLING_RATE, windows)
