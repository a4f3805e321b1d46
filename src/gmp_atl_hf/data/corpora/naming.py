"""Corpora that say everything in their file names: one pattern, one table of codes, one look at each file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .base import LeftOut


def named_files(
    files: Iterable[Path], pattern: str, example: str, codes: Mapping[str, Iterable[str]] | None = None
) -> Iterator[tuple[Path, re.Match[str]] | LeftOut]:
    r"""Match file names against the corpus' scheme.

    Args:
        files: The files, as `audio_files` gives them.
        pattern: A regular expression with named groups that the whole name without its ending has to match; upper and
            lower case are the same.
        example: A name of the corpus, for the reason given where one does not match.
        codes: Group of the pattern to the codes it may have (compared without regard to case).

    Yields:
        The file and the match; a `LeftOut` by file name for every name that does not fit.

    Example:
        >>> for one in named_files(audio_files(root), r"(?P<who>\d\d)(?P<what>[WF])", "03W"):
        ...     if isinstance(one, LeftOut):
        ...         yield one
    """
    compiled = re.compile(pattern, re.IGNORECASE)
    known = {group: {code.lower() for code in allowed} for group, allowed in (codes or {}).items()}
    for path in files:
        match = compiled.fullmatch(path.stem)
        if match is None:
            yield LeftOut(path.name, f"its name is not built like {example}")
            continue
        wrong = [group for group, allowed in known.items() if match[group].lower() not in allowed]
        if wrong:
            group = wrong[0]
            allowed = ", ".join(sorted(codes[group])) if codes else ""
            yield LeftOut(path.name, f"{match[group]!r} is no {group} of this corpus ({allowed})")
        else:
            yield path, match
