"""From values on scales such as arousal and valence to the emotion whose centre is nearest, where centres are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.spelling import spelling
from ..errors import RequestError, did_you_mean

_EXAMPLE = "anger: {arousal: 0.8, valence: 0.2}"
_EXPECTED = f"a centre for each emotion, in the units of the model's outputs: {_EXAMPLE}"


@dataclass(frozen=True)
class Centres:
    """Where emotions lie on a model's scales.

    Args:
        scales: The scales that are used, by the model's names.
        columns: Which outputs they are.
        emotions: What the centres are called.
        places: (emotions, scales) float64.
    """

    scales: list[str]
    columns: list[int]
    emotions: list[str]
    places: npt.NDArray[np.float64]

    @classmethod
    def of(cls, given: Mapping[str, Any], labels: Sequence[str], model: str) -> Centres:
        """Read emotion → scale → value.

        Args:
            given: The mapping; the same scales for every emotion.
            labels: The model's outputs.
            model: For messages.

        Raises:
            RequestError: Names the emotion and scale that are wrong.
        """
        own = {spelling(label): label for label in labels}
        rows: dict[str, dict[str, float]] = {}
        for emotion, centre in given.items():
            if not isinstance(emotion, str) or not isinstance(centre, Mapping) or not centre:
                raise RequestError(f"the centres have the entry {emotion!r}: {centre!r}", _EXPECTED, _EXAMPLE)
            rows[emotion] = {}
            for scale, value in centre.items():
                if (label := own.get(spelling(str(scale)))) is None:
                    fix = did_you_mean(scale, labels, f"take {scale!r} out")
                    raise RequestError(
                        f"the centre of {emotion} names {scale!r}, which {model} does not give",
                        f"its outputs: {', '.join(labels)}",
                        fix,
                    )
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    raise RequestError(f"the centre of {emotion} has {scale} {value!r}", "a number", _EXAMPLE)
                rows[emotion][label] = float(value)
        if len(rows) < 2:
            raise RequestError(f"there are centres of {len(rows)} emotions", "at least two", _EXPECTED)
        scales = [label for label in labels if label in next(iter(rows.values()))]
        for emotion, row in rows.items():
            if {*row} != {*scales}:
                raise RequestError(
                    f"the centre of {emotion} has {', '.join(row)}, that of {next(iter(rows))} {', '.join(scales)}",
                    "the same scales for every emotion",
                    f"give {emotion} its {', '.join(scales)}",
                )
        places = np.array([[row[scale] for scale in scales] for row in rows.values()])
        if len(np.unique(places, axis=0)) < len(places):
            raise RequestError("two emotions have the same centre", "a centre of its own for each", _EXPECTED)
        return cls(scales, [labels.index(scale) for scale in scales], list(rows), places)

    def nearest(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The centre that lies nearest by Euclidean distance: indices (n,) for values (n, outputs)."""
        apart = values[:, self.columns].astype(np.float64)[:, None] - self.places[None]
        found: npt.NDArray[np.int64] = np.linalg.norm(apart, axis=-1).argmin(axis=1)
        return found

    def describe(self) -> str:
        """The centres in one phrase."""
        return "; ".join(
            f"{emotion} ({', '.join(f'{scale} {value:g}' for scale, value in zip(self.scales, place, strict=True))})"
            for emotion, place in zip(self.emotions, self.places.tolist(), strict=True)
        )


def centres_needed(labels: Sequence[str], model: str) -> RequestError:
    """Say that a dimensional model needs a map: nobody else knows in which units it answers."""
    example = ", ".join(f"{label}: …" for label in labels)
    return RequestError(
        f"{model} gives values on scales ({', '.join(labels)}) and no emotions",
        "a centre for each emotion; a recording then has the emotion whose centre is nearest",
        f"--dimensions centres.yaml, with a line such as anger: {{{example}}} for each emotion",
    )
