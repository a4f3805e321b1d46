"""Emotion over time as a picture: one column per stretch of the recording, one colour per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#e07a4f", "#3d7fb8", "#4da58a", "#e8b34b", "#c583ab", "#7fbfe6", "#a08a5f", "#8b93a1", "#8a6bbf", "#475569")
"""Told apart by colour-blind people too, as far as ten colours can be."""

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 1000, 300, 58, 44, 34, 1.2
MOST_COLUMNS = 400


class Scored(NamedTuple):
    """Scores of a stretch of the recording: its ends in seconds, and label → probability."""

    start: float
    end: float
    scores: Mapping[str, float]


def flatten_windows(windows: Sequence[Scored]) -> list[Scored]:
    """Turn ordered windows that overlap into at most `MOST_COLUMNS` stretches side by side.

    Each is the mean of the windows that cover it.
    """
    edges = sorted({edge for one in windows for edge in (one.start, one.end)})
    if len(edges) > MOST_COLUMNS + 1:
        first, last = edges[0], edges[-1]
        edges = [first + (last - first) * index / MOST_COLUMNS for index in range(MOST_COLUMNS + 1)]
    columns = []
    begin = 0
    for start, end in zip(edges, edges[1:], strict=False):
        while windows[begin].end <= start:
            begin += 1
        covering = []
        for one in windows[begin:]:
            if one.start >= end:
                break
            if one.end > start:
                covering.append(one)
        mean = {label: sum(one.scores[label] for one in covering) / len(covering) for label in covering[0].scores}
        columns.append(Scored(start, end, mean))
    return columns


def timeline_svg(windows: Sequence[Scored], labels: Sequence[str]) -> str:
    """Draw the probabilities of all labels over time, stacked to 100 %.

    Args:
        windows: Windows in order; they may overlap.
        labels: The labels in the order of the legend.

    Returns:
        An SVG element that takes the width and the text colour of the page.
    """
    columns = flatten_windows(windows)
    end = columns[-1].end
    across = (WIDTH - LEFT - 8) / end
    height = HEIGHT - TOP - BOTTOM
    colour = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(labels)}
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Emotion over time" class="timeline" '
        'style="width:100%;height:auto;font-family:system-ui,sans-serif;font-size:14px" fill="currentColor">'
    ]
    at = float(LEFT)
    for label in labels:
        parts.append(f'<rect x="{at:.0f}" y="8" width="13" height="13" rx="3" fill="{colour[label]}"/>')
        parts.append(f'<text x="{at + 19:.0f}" y="19.5">{escape(label)}</text>')
        at += 34 + 8.2 * len(label)
    for share in (0, 50, 100):
        y = TOP + height * (1 - share / 100)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end" opacity="0.65">{share} %</text>')
    for column in columns:
        x, width = LEFT + column.start * across, (column.end - column.start) * across
        gap = GAP if width > 4 * GAP else 0.0
        title = ", ".join(f"{escape(name)} {100 * column.scores[name]:.0f} %" for name in labels)
        parts.append(f"<g><title>{_clock(column.start)} to {_clock(column.end)}: {title}</title>")
        y = float(TOP)
        for label in labels:
            tall = height * column.scores[label]
            if tall >= 0.2:
                parts.append(
                    f'<rect x="{x:.2f}" y="{y:.2f}" width="{width - gap:.2f}" height="{tall:.2f}" '
                    f'fill="{colour[label]}"/>'
                )
            y += tall
        parts.append("</g>")
    for tick in _ticks(end):
        x = LEFT + tick * across
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle" opacity="0.65">{_clock(tick)}</text>')
    return "".join([*parts, "</svg>"])


def _ticks(end: float) -> list[float]:
    """Five to ten round times."""
    for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400):
        if end / step <= 10:
            break
    return [step * index for index in range(int(end / step) + 1) if step * index <= end * 0.985]


def _clock(seconds: float) -> str:
    """Seconds as people read them.

    Example:
        >>> _clock(7.5), _clock(75), _clock(3675)
        ('7.5 s', '1:15', '1:01:15')
    """
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
