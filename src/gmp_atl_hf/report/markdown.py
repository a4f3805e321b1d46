"""The report as people read it: `report.md`, and the short table on the screen."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import counted
from .blocks import (
    P_HOLM,
    Bullets,
    Code,
    Element,
    FigureSlot,
    Heading,
    Paragraph,
    Stamp,
    Table,
    corrected_p,
    headline_cells,
    holm_remark,
    name_of_test,
    p_value,
    percent,
    points,
    protocol_line,
    report_blocks,
    smallest_visible,
    speakers_of,
    tested_speakers,
)

__all__ = ["aligned", "markdown_of", "percent", "protocol_line", "render_console", "render_markdown"]


def render_markdown(report: Mapping[str, Any], figures: Mapping[FigureSlot, tuple[str, str]] | None = None) -> str:
    """Write the whole report as Markdown; `figures` are title and relative path of the pictures that were drawn."""
    return markdown_of(report_blocks(report), figures)


def markdown_of(blocks: Iterable[Element], figures: Mapping[FigureSlot, tuple[str, str]] | None = None) -> str:
    """Write parts of a report as Markdown."""
    parts = [_markdown(block, figures or {}) for block in blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_console(report: Mapping[str, Any]) -> str:
    """Write the short table for the screen, with the protocol and everything that qualifies the numbers."""
    header = ["variant", "WAR", "UAR", "95 % interval", "macro F1", "folds", "seeds"]
    rows = [header] + [[variant, *headline_cells(summary)] for variant, summary in report["variants"].items()]
    lines = [f"{report['name']} (percent)"]
    lines += [f"*** {stamp} ***" for stamp in report["stamps"]]
    lines += ["", *aligned(rows), "", f"Protocol: {protocol_line(report)}", f"Tested:   {_tested(report)}"]
    lines += [_comparison_sentence(comparison) for comparison in report["comparisons"]]
    if report["comparisons"]:
        lines.append(report["comparisons"][0]["remark"])
        if any("p_holm" in comparison for comparison in report["comparisons"]):
            lines.append(holm_remark(len(report["comparisons"]), "comparisons"))
    lines += [f"Note: {note}" for note in report["notes"]]
    lines += [f"Left out: {count} ({reason})" for reason, count in report["left_out"].items()]
    lines.append(f"Command:  {report['command']}")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> list[str]:
    """Bring cells under each other: columns of words to the left, columns of numbers to the right."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(_pad(cell, width, left=i in words) for i, (cell, width) in cells).rstrip())
    return lines


def _markdown(block: Element, figures: Mapping[FigureSlot, tuple[str, str]]) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_cell(block.text)}"
    if isinstance(block, Stamp):
        return f"> **{_cell(block.text)}**"
    if isinstance(block, Paragraph):
        return (f"**{_cell(block.lead)}** " if block.lead else "") + _cell(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_cell(line)}" for line in block.lines)
    if isinstance(block, Table):
        alignment = [":--"] + [":--" if block.words else "--:"] * (len(block.header) - 1)
        lines = [block.header, alignment, *block.rows]
        return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    title, path = figures.get(block, ("", ""))
    return f"![{_cell(title)}]({path})" if path else ""


def _tested(report: Mapping[str, Any]) -> str:
    """Sizes of the test sets, in one phrase where the variants agree."""
    labels = f"{counted(len(report['labels']), 'label')}: {', '.join(report['labels'])}"
    sizes = {
        variant: f"{speakers_of(s, 'speaker')}, {counted(s['utterances'], 'utterance')}"
        for variant, s in report["variants"].items()
        if s["utterances"]
    }
    distinct = list(dict.fromkeys(sizes.values()))
    if len(distinct) <= 1:
        return "; ".join([*distinct, labels])
    return "; ".join([*(f"{variant} on {size}" for variant, size in sizes.items()), labels])


def _comparison_sentence(comparison: Mapping[str, Any]) -> str:
    pooled, smallest = points(comparison["pooled_difference"]), p_value(comparison["smallest_attainable_p"])
    p = p_value(comparison["p"])
    if "p_holm" in comparison:
        p += f", {P_HOLM} = {corrected_p(comparison)}"
    return (
        f"{comparison['first']} − {comparison['other']}: {points(comparison['mean_difference'])} points of UAR "
        f"(mean over speakers; pooled {pooled}), p = {p} (smallest possible {smallest}, "
        f"{tested_speakers(comparison)}, {name_of_test(comparison)}; smallest visible difference "
        f"{smallest_visible(comparison)})"
    )


def _cell(text: str) -> str:
    """Keep names with a bar, a star or a line break from tearing a table apart."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _width(text: str) -> int:
    """Columns on a screen: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text
