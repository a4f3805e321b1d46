"""Tables and lists as they are handed around, whatever their encoding, separator and the spelling of their headings.

What can be understood in one way only is read; anything else is refused with the file, the line and what to do.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import RequestError, nearest

Rows = list[tuple[int, dict[str, str]]]
"""The rows of a table, each with the number of its first line."""

_AGAIN = "copy the file again from its source"
_PACKED = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive or a spreadsheet (xlsx, ods)",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (xls)",
    b"PAR1": "a Parquet file",
}
"""Other files that are given for tables, by their first bytes."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def text_of(path: Path, otherwise: str | None = None) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 as spreadsheet programs save it.

    Args:
        path: The file.
        otherwise: The encoding of a file in none of these: for tables of which only plain ASCII values are used.

    Raises:
        RequestError: When the file cannot be opened, is empty, is a pointer to a file that was not fetched, or no text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror})", "a text file", "check its rights") from error
    if raw.startswith((b"version https://git-lfs", b"/annex/objects/")):
        raise RequestError(
            f"{path} is a pointer to the file and not the file itself",
            "the file itself",
            "fetch it: git lfs pull, or git annex get",
        )
    if kind := next((kind for start, kind in _PACKED.items() if raw.startswith(start)), None):
        raise RequestError(f"{path} is {kind}, not text", "a text file", "unpack it, or save it as CSV in UTF-8")
    if not raw.strip(b"\0 \t\r\n" + codecs.BOM_UTF8):
        raise RequestError(f"{path} is empty", "a file with text in it", _AGAIN)
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None) or _unmarked(raw[:1000])
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise is None or encoding != "utf-8":
            raise RequestError(
                f"{path} is not {encoding.upper()} text ({error.reason}, byte {error.start})",
                "text in UTF-8 or UTF-16",
                f"save it as UTF-8, or {_AGAIN} where it ends early",
            ) from error
        text = raw.decode(otherwise, errors="replace")
    if "\0" in text:
        raise RequestError(f"{path} is no text: there are zero bytes in it", "text in UTF-8 or UTF-16", _AGAIN)
    return text


def _unmarked(head: bytes) -> str:
    """Tell UTF-16 without a mark by its zeros: every second byte of Latin text."""
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if zeros.count(0) > len(head) // 4:
            return name
    return "utf-8"


def lines_of(text: str) -> list[str]:
    """Split a table into lines with their ends, for the module `csv`.

    Not with `str.splitlines`, which also splits at characters that occur inside of sentences: the ellipsis of an older
    encoding (U+0085) and U+2028.
    """
    return io.StringIO(text, newline="").readlines()


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    otherwise: str | None = None,
    plain_tabs: bool = False,
    options: Mapping[str, str] | None = None,
) -> tuple[list[str], Rows]:
    """Read a table with a row of headings.

    Args:
        path: The file.
        needed: Headings that have to be there, in any order, case and punctuation; also how they are called in the
            rows. Without them the separator is the most frequent candidate of the first line.
        otherwise: As in `text_of`.
        plain_tabs: Whether quotation marks are part of the text where tabs separate.
        options: Headings that were named by an option, with the option, for the advice where one of them is missing.

    Returns:
        The headings, and the rows: heading to value, blanks round both taken off. Rows without any value are passed
        over.

    Raises:
        RequestError: When a heading is missing or there twice, a row has too few or too many values, or a quotation
            mark is not closed; and as `text_of`.
    """
    text = text_of(path, otherwise)
    lines = lines_of(text)
    skipped = next(
        (number for number, line in enumerate(lines) if line.strip() and not line.lower().startswith("sep=")), 0
    )
    header = lines[skipped]

    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip(' "\r\n') for name in header.split(separator)]
        return sum(heading(name, names) is not None for name in needed), header.count(separator)

    separator = max(",\t;|", key=fit)
    literal = plain_tabs and separator == "\t" and '"' not in header
    # A long value is no fault, and an unclosed quotation mark is told as such.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(
        lines[skipped:], delimiter=separator, strict=True, quoting=csv.QUOTE_NONE if literal else csv.QUOTE_MINIMAL
    )
    found: list[tuple[int, list[str]]] = []
    line = skipped + 1
    try:
        for values in reader:
            found.append((line, [value.strip() for value in values]))
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        raise RequestError(
            f"line {line} of {path} cannot be read ({error})",
            "every quotation mark closed",
            f"close the quotation mark or take it out; {_AGAIN} where it ends early",
        ) from error
    names = found[0][1]
    while names and not names[-1]:
        names.pop()
    names = _called(path, names, needed, options or {})
    rows = [(line, _row(path, line, names, values)) for line, values in found[1:] if any(values)]
    return names, rows


def heading(name: str, names: Sequence[str]) -> str | None:
    """Find a heading among those there are, in other case or punctuation where that leaves no doubt; else None."""
    if name in names:
        return name
    alike = [one for one in names if _letters(one) == _letters(name)]
    return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _called(path: Path, names: list[str], needed: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Call the headings as they are asked for, or say which is missing."""
    there = {name: heading(name, names) for name in needed}
    missing = [name for name, found in there.items() if found is None]
    if missing:
        fix = "take the table as it is distributed, or rename its headings"
        if all(name in options for name in missing):
            others = [name for name in names if name and name not in there.values()]
            near = nearest(missing[0], others) or (others[0] if len(others) == 1 else None)
            option = options[missing[0]]
            fix = f"did you mean `{option} {near}`?" if near else f"give {option} one of its columns"
        raise RequestError(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(names)}",
            f"the columns {', '.join(needed)}",
            fix,
        )
    spelt = {found: name for name, found in there.items()}
    called = [spelt.get(name, name) for name in names]
    twice = next((name for name in (needed or called) if name and called.count(name) > 1), None)
    if twice:
        raise RequestError(f"{path} has two columns {twice}", "every heading once", "rename one of them")
    return called


def _row(path: Path, line: int, names: list[str], values: list[str]) -> dict[str, str]:
    """Give the values their headings; there has to be one for each."""
    if any(values[len(names) :]):
        raise RequestError(
            f"line {line} of {path} has more values than there are columns",
            f"{len(names)} values ({', '.join(names)})",
            "put quotation marks round values that contain the separator",
        )
    if len(values) < len(names):
        raise RequestError(
            f"line {line} of {path} has {len(values)} values for {len(names)} columns",
            f"{len(names)} values ({', '.join(names)}), empty ones included",
            f"complete the line; {_AGAIN} where it ends early",
        )
    return dict(zip(names, values, strict=False))


def read_json_lines(path: Path) -> Rows:
    """Read a file with one JSON object per line, every value as the text it is written as; null as "".

    Raises:
        RequestError: When a line is no JSON object; and as `text_of`.
    """
    lines = [(number, line) for number, line in enumerate(lines_of(text_of(path)), start=1) if line.strip()]
    return [(number, json_object(line, f"line {number} of {path}")) for number, line in lines]


def json_object(text: str, what: str) -> dict[str, str]:
    """Read a JSON object with each value as text; `what` says in messages where it is from.

    Raises:
        RequestError: When it is something else, or not JSON.
    """
    try:
        value: Any = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise RequestError(f"{what} is not JSON ({reason})", "a JSON object {…}", f"correct it, or {_AGAIN}") from error
    if not isinstance(value, dict):
        fix = "write each object of the array on a line of its own" if text.lstrip().startswith("[") else None
        raise RequestError(f"{what} is not a JSON object", "a JSON object {…}", fix or f"correct it, or {_AGAIN}")
    return {name: _text_of_json(one) for name, one in value.items()}


class NoText(str):
    """A value of a JSON object that is neither text nor a number nor null, as it would be written."""


def _text_of_json(value: Any) -> str:
    if isinstance(value, (list, dict, bool)):
        return NoText(json.dumps(value, ensure_ascii=False))
    return "" if value is None else str(value).strip()
