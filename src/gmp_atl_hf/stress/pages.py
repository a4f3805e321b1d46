"""A stress test as people read it: on the screen, and as `stress.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import counted
from ..report.blocks import Bullets, Code, Element, Heading, Paragraph, Stamp, Table, interval, percent, points
from ..report.markdown import aligned, markdown_of, protocol_line

HEADER = ["condition", "WAR", "UAR", "UAR − clean", "95 % interval", "other label", "score change", ""]
LEGEND = (
    "Figures in percent, differences in points, over all recordings; intervals by drawing speakers, the same ones for "
    "both. Other label: recordings whose label is not that of the clean one. Score change: mean absolute change of the "
    "score of that label."
)


def format_stress(report: Mapping[str, Any]) -> str:
    """Write what `stress_model` returned for the screen."""
    lines = [f"{report['name']}, made worse"]
    lines += [f"*** {stamp} ***" for stamp in report["stamps"]]
    lines += ["", *aligned([HEADER, *_rows(report)], words=(0, len(HEADER) - 1)), ""]
    lines += _sentences(report)
    lines.append(f"Command: {report['command']}")
    return "\n".join(lines)


def render_stress(report: Mapping[str, Any]) -> str:
    """Write what `stress_model` returned as Markdown."""
    return markdown_of(_blocks(report))


def _blocks(report: Mapping[str, Any]) -> Iterator[Element]:
    yield Heading(f"{report['name']}, made worse", level=1)
    yield from (Stamp(stamp) for stamp in report["stamps"])
    yield Table(HEADER, _rows(report))
    yield Bullets(_sentences(report))
    yield Heading("Conditions", level=2)
    yield Table(["condition", "what it does"], [[one["name"], one["what"]] for one in report["conditions"]], words=True)
    yield Paragraph("The command behind the numbers:")
    yield Code(report["command"])


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for one in report["conditions"]:
        rows.append([one["name"], percent(one["war"]), percent(one["uar"])])
        if one is report["conditions"][0]:
            rows[-1] += [""] * (len(HEADER) - 3)
        else:
            rows[-1] += [points(one["uar_difference"]), interval(one["uar_difference_ci95"], signed=True)]
            rows[-1] += [percent(one["flip_rate"]), percent(one["score_change"])]
            rows[-1].append("← worst" if one["name"] == report["worst"] else "")
    return rows


def _sentences(report: Mapping[str, Any]) -> list[str]:
    lines = [LEGEND]
    lines += [f"Skipped: {one['name']}: {one['reason']}." for one in report["skipped"]]
    lines += [f"Note: {note}" for note in report["notes"]]
    if report["left_out"]:
        lines.append(f"Left out: {counted(len(report['left_out']), 'recording')}.")
    return [*lines, f"Protocol: {protocol_line(report)}"]
