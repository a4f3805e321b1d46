"""How all pictures look, and how they become files: SVG for the page, PNG for everything else."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .blocks import FigureSlot, protocol_line

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, VERMILLION = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#C9B400",
    "#D55E00",
)
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, YELLOW)
"""Okabe and Ito's colours, which people who see few colours can tell apart (the yellow made darker for white paper)."""
_MARKS = (("o", 2.2), ("s", 3.6), ("^", 4.2), ("D", 3.4), ("v", 4.2), ("P", 4.4), ("X", 4.4), ("*", 5.2))
"""Marks of the points of a line, and their sizes: the next one once all colours have been used."""

INK, GREY, FAINT = "#1a2433", "#5b6573", "#d7dbe0"
GENDER_LOOK = {"female": (VERMILLION, "o"), "male": (BLUE, "s"), "unknown": (GREY, "D")}
"""Colour and mark of a speaker."""

DPI = 160

_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that pictures look the same everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # names of variants and emotions are text, whatever signs are in them
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "svg.hashsalt": "gmp-atl",  # otherwise names inside the file are random
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Picture:
    """A picture for the report: the slot it belongs to, file name without ending, alternative text, and the picture."""

    place: FigureSlot
    name: str
    title: str
    png: bytes
    svg: bytes


@dataclass(frozen=True)
class LineLook:
    """Colour and mark by which a line of a picture is told from the others."""

    colour: str
    mark: str
    mark_size: float

    @classmethod
    def of(cls, number: int) -> LineLook:
        """The look of a line by its number, from 0; 56 lines look different from each other."""
        mark, size = _MARKS[number // len(SERIES) % len(_MARKS)]
        return cls(SERIES[number % len(SERIES)], mark, size)


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to what is drawn inside; matplotlib's own settings are as before afterwards."""
    import matplotlib

    with matplotlib.rc_context(dict(_STYLE)):
        yield


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure that has nothing to do with pyplot; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, kind: str) -> bytes:
    """Write a figure as `png` or `svg`; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if figure.get_layout_engine() is not None:
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once is enough for both files
    buffer = io.BytesIO()
    # Version and date would change the bytes from day to day.
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=kind, metadata=metadata, facecolor="white")
    return buffer.getvalue()


CAPITALS = 0.75
"""Capitals that fit where one small letter would, on average."""


def footnote(figure: Any, report: Mapping[str, Any], lines: Sequence[str] = ()) -> None:
    """Say below a picture what it needs to travel without its page: notes, protocol, stamps."""
    width = round(figure.get_size_inches()[0] * 16)
    stamps = [part for stamp in report["stamps"] for part in textwrap.wrap(stamp.upper(), int(CAPITALS * width))]
    wrapped = stamps + [part for line in (*lines, protocol_line(report)) for part in textwrap.wrap(line, width)]
    figure.supxlabel("\n".join(wrapped), fontsize=7.5, color=GREY, x=0.01, ha="left")
