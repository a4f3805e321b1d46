"""Corpora that say everything in their file names: one pattern, one table of codes, one look at each file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ...errors import RequestError
from .base import LeftOut


def named_files(
    files: Iterable[Path], pattern: str, example: str, codes: Mapping[str, Iterable[str]] | None = None
) -> Iterator[tuple[Path, dict[str, str]] | LeftOut]:
    r"""Match file names against the corpus' scheme.

    Args:
        files: The files, as `audio_files` gives them.
        pattern: A regular expression with named groups that the whole name without its ending has to match; upper and
            lower case are the same, but a group without codes keeps the case that the file has.
        example: A name of the corpus, for the reason given where one does not match.
        codes: Group of the pattern to the codes it may have, as they are spelt in your tables; a name may spell them in
            upper or lower case.

    Yields:
        The file and what its name says: group to text ("" for a group that is not there), codes spelt as in `codes`; or
        a `LeftOut` by file name for a name that does not fit.

    Raises:
        RequestError: Codes are given for a group that the pattern does not have.

    Example:
        >>> [(_, named)] = named_files([Path("03w.wav")], r"(?P<who>\d\d)(?P<what>[WF])", "03W", {"what": "WF"})
        >>> named
        {'who': '03', 'what': 'W'}
    """
    compiled = re.compile(pattern, re.IGNORECASE)
    unknown = [group for group in codes or {} if group not in compiled.groupindex]
    if unknown:
        raise RequestError(
            f"codes are given for {unknown[0]!r}, which is no group of the pattern {pattern}",
            f"one of {', '.join(compiled.groupindex)}",
            "call the group of the pattern and that of the codes the same",
        )
    known = {group: {code.lower(): code for code in allowed} for group, allowed in (codes or {}).items()}
    for path in files:
        match = compiled.fullmatch(path.stem)
        if match is None:
            yield LeftOut(path.name, f"its name is not built like {example}", path)
            continue
        fields = match.groupdict(default="")
        wrong = [group for group, spelt in known.items() if fields[group].lower() not in spelt]
        if wrong:
            group = wrong[0]
            allowed = ", ".join(sorted(known[group].values()))
            yield LeftOut(path.name, f"{fields[group]!r} is no {group} of this corpus ({allowed})", path)
        else:
            yield path, fields | {group: spelt[fields[group].lower()] for group, spelt in known.items()}
