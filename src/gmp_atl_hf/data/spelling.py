"""What looks the same is the same: spellings of one name or word, and the words for nothing."""

from __future__ import annotations

import unicodedata

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
