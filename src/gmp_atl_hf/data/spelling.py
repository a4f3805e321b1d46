"""Names and words: spellings that are the same, the words for nothing, and the first few of many."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MISSING = {"", "nan", "none", "null", "<na>", "n/a", "nat"}


def tidy_text(text: str) -> str:
    """Give one spelling to what looks the same: composed accents, single blanks, none around, nothing invisible."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    words = unicodedata.normalize("NFC", text).split()
    return " ".join("".join(c for c in word if unicodedata.category(c) not in ("Cf", "Cc")) for word in words).strip()


def is_missing(text: str) -> bool:
    """Whether a value is blank, or what programs write in place of none: `nan`, `None`, `null`, `<NA>`, `N/A`."""
    return tidy_text(text).casefold() in _MISSING


def spelling(name: str) -> str:
    """Reduce a name to what distinguishes it: no case, single blanks, nothing invisible, one form of every letter.

    The name is that of a speaker or an emotion; a corpus' prefix may stand before it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "/".join(tidy_text(part) for part in folded.split("/"))


def printable(text: str) -> str:
    """The text with what UTF-8 cannot hold, as in a file's name that is no valid text, written as codes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_few(names: Sequence[str], shown: int = 5, separator: str = ", ") -> str:
    """Join the first few names for a message, with the number of those not shown."""
    rest = f"{';' if separator == '; ' else ''} and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + rest
