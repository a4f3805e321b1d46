"""What looks the same is the same: spellings of one name or word, and the words for nothing."""

from __future__ import annotations

import unicodedata

_MISSING = {"", "nan", "none", "null", "<na>", "n/a", "nat"}


def tidy_text(text: str) -> str:
    """Give one spelling to what looks the same: composed accents, single blanks, nothing invisible.

    Args:
        text: A name or a word.

    Returns:
        The text without blanks round it.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    words = unicodedata.normalize("NFC", text).split()
    return " ".join("".join(c for c in word if unicodedata.category(c) not in ("Cf", "Cc")) for word in words).strip()


def is_missing(text: str) -> bool:
    """Whether a value means that there is none.

    Args:
        text: The value, as text.

    Returns:
        True for nothing but blanks, and for what programs write in its place: `nan`, `None`, `null`, `<NA>`, `N/A`.
    """
    return tidy_text(text).casefold() in _MISSING


def spelling(name: str) -> str:
    """Reduce a name to what tells names apart: no case, single blanks, nothing invisible, one form of every letter.

    Args:
        name: The name of a speaker or an emotion; a corpus' prefix may stand before it.

    Returns:
        The same for all spellings of one name.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "/".join(tidy_text(part) for part in folded.split("/"))
