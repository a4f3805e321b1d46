"""The report as one page that needs nothing else: pictures and style are inside, no script, no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import counted
from .blocks import Bullets, Code, Element, Heading, Paragraph, Stamp, Table, report_blocks
from .drawing import Picture

LONG_TABLE = 14
"""Tables with more rows than this are folded."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1a2433; background: #fff;
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.8rem; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 2px solid #d7dbe0; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { max-width: 50rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ed; white-space: nowrap; }
th { border-bottom: 2px solid #aeb6c0; font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child, table.words th, table.words td { text-align: left; }
table.words td { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.words td:first-child { white-space: nowrap; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
.stamp { background: #fff3e6; border-left: 5px solid #d55e00; padding: .6rem 1rem; font-weight: 600; max-width: none; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
code, pre { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; font-size: .85rem; }
pre { background: #f4f6f8; padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: #0072b2; }
nav a { margin-right: 1rem; color: #0072b2; }
@media print { body { max-width: none; margin: 0; } h2, figure { break-inside: avoid; } }
"""


def render_html(report: Mapping[str, Any], pictures: Sequence[Picture] = (), remark: str | None = None) -> str:
    """Write the whole report as one HTML page; `remark` says why there are no pictures, if so."""
    drawn = {picture.place: picture for picture in pictures}
    blocks = list(report_blocks(report))
    parts: list[str] = []
    section = 0
    for block in blocks:
        if isinstance(block, Heading):
            section += block.level == 2
            anchor = f' id="s{section}"' if block.level == 2 else ""
            parts.append(f"<h{block.level}{anchor}>{_text(block.text)}</h{block.level}>")
            if block.level == 1:
                parts.append(_contents(blocks))
                parts += [] if remark is None else [f"<p>{_text(remark)}</p>"]
        else:
            parts += _html(block, drawn)
    title = _text(report["name"])
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _contents(blocks: Sequence[Element]) -> str:
    sections = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = [f'<a href="#s{number}">{_text(name)}</a>' for number, name in enumerate(sections, start=1)]
    return f"<nav>{' '.join(links)}</nav>"


def _html(block: Element, drawn: Mapping[Any, Picture]) -> Iterator[str]:
    if isinstance(block, Stamp):
        yield f'<p class="stamp">{_text(block.text)}</p>'
    elif isinstance(block, Paragraph):
        yield f"<p>{f'<strong>{_text(block.lead)}</strong> ' if block.lead else ''}{_text(block.text)}</p>"
    elif isinstance(block, Bullets):
        yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in block.lines) + "</ul>"
    elif isinstance(block, Table):
        yield _table(block)
    elif isinstance(block, Code):
        yield f"<pre>{_text(block.text)}</pre>"
    elif block in drawn:
        picture = drawn[block]
        data = base64.b64encode(picture.svg).decode()
        yield f'<figure><img alt="{_text(picture.title)}" src="data:image/svg+xml;base64,{data}"></figure>'


def _table(block: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    kind = ' class="words"' if block.words else ""
    head = line(block.header, "th") if any(block.header) else ""
    rows = "\n".join(line(row, "td") for row in block.rows)
    table = f'<div class="scroll"><table{kind}>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    if len(block.rows) <= LONG_TABLE:
        return table
    return f"<details><summary>Table of {counted(len(block.rows), 'row')}</summary>{table}</details>"


def _text(text: Any) -> str:
    return html.escape(str(text), quote=True)
