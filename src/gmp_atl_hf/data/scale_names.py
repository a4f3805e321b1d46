"""The names of frame-label columns: one place that writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RequestError

SINGLE_FRAME = 0.02
"""The window, in seconds, that stands for every frame as it is: HuBERT makes one each 20 ms."""

_NAME = re.compile(r"gmp_(?:oracle|layer(?P<layer>\d+)(?:_w(?P<window>\d+)ms)?)_k(?P<clusters>\d+)")


@dataclass(frozen=True)
class ScaleName:
    """What the name of a column of frame labels says.

    Args:
        layer: Resolved 1-based layer; None where the labels are the emotions of the clips (the oracle control).
        clusters: How many different labels there are.
        window: Seconds over which hidden states were averaged before they were clustered.

    Example:
        >>> str(ScaleName(3, 100, 0.5)), ScaleName.parse("gmp_layer3_k100")
        ('gmp_layer3_w500ms_k100', ScaleName(layer=3, clusters=100, window=0.02))
    """

    layer: int | None
    clusters: int
    window: float = SINGLE_FRAME

    def __str__(self) -> str:
        """The column's name; milliseconds, for heads are named after their columns and torch allows no dot there."""
        if self.layer is None:
            return f"gmp_oracle_k{self.clusters}"
        averaged = "" if self.window == SINGLE_FRAME else f"_w{round(1000 * self.window)}ms"
        return f"gmp_layer{self.layer}{averaged}_k{self.clusters}"

    @classmethod
    def parse(cls, column: str) -> ScaleName:
        """Read a column's name.

        Raises:
            ValueError: It is not the name of a scale.
        """
        found = _NAME.fullmatch(column)
        if found is None:
            raise ValueError(f"{column!r} is no column of frame labels, such as gmp_layer10_k50")
        layer, window = found["layer"], found["window"]
        return cls(
            None if layer is None else int(layer),
            int(found["clusters"]),
            SINGLE_FRAME if window is None else int(window) / 1000,
        )

    @property
    def in_words(self) -> str:
        """The scale for the title of a picture."""
        if self.layer is None:
            return "emotions of the clips"
        averaged = "" if self.window == SINGLE_FRAME else f" over {self.window:g} s"
        return f"layer {self.layer}{averaged}, K = {self.clusters}"


def column_name(layer: int, clusters: int, window: float = SINGLE_FRAME) -> str:
    """The table's column of a scale, given its resolved 1-based layer, K, and the seconds averaged over."""
    return str(ScaleName(layer, clusters, window))


def refuse_odd_windows(windows: Sequence[float]) -> None:
    """Refuse windows that name no scale, or the same one twice.

    Raises:
        RequestError: None is given, one is twice there, or is neither 0.02 nor whole milliseconds from 0.04 s up.
    """
    fix = "for example pseudo_labels.windows: [0.02, 0.5, 1.0]"
    if not windows or len(set(windows)) < len(windows):
        raise RequestError(f"windows {list(windows)}", "one or more different lengths in seconds", fix)
    for window in windows:
        milliseconds = 1000 * window
        whole = abs(milliseconds - round(milliseconds)) < 1e-6
        if window != SINGLE_FRAME and (window < 2 * SINGLE_FRAME or not whole):
            raise RequestError(
                f"a window of {window:g} seconds",
                f"{SINGLE_FRAME} for the frames as they are, or whole milliseconds from {2 * SINGLE_FRAME} s up",
                fix,
            )
