"""The errors that say what was found, what was expected, and the fix."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ExplainedError(Exception):
    """What was found, what was expected, and the fix; the command line prints it without a traceback.

    Args:
        found: What is there, with the names a newcomer can search for.
        expected: What should have been there.
        fix: What to do, paste-able where possible.
    """

    def __init__(self, found: str, expected: str | None = None, fix: str | None = None) -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
        lines = [found]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if fix is not None:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))


class RequestError(ExplainedError, ValueError):
    """A request that is wrong before any work starts: a typo, a missing file, a leaking split.

    The command line ends with exit status 2.

    Example:
        >>> print(RequestError("no folder data/emodb", "the EMO-DB folder", "give its path as corpus.root"))
        no folder data/emodb
          expected: the EMO-DB folder
          fix: give its path as corpus.root
    """


@contextmanager
def errors_of(part: str) -> Iterator[None]:
    """Begin every `RequestError` of a block with the part of the request that it is about."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{part}: {error.found}", error.expected, error.fix) from error


class DivergenceError(ExplainedError, ArithmeticError):
    """A training whose numbers are no longer finite, or a model that gives no finite scores.

    The command line ends with exit status 1.
    """


def known_names(names: Iterable[str]) -> str:
    """List the right names for a message: `"one of a, b, c"`, or the only one."""
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"


def counted(count: int, one: str, several: str | None = None) -> str:
    """Write a number with its noun; `several` where the plural takes more than an s at the end.

    Example:
        >>> counted(1, "speaker"), counted(2, "speaker"), counted(2, "id occurs", "ids occur")
        ('1 speaker', '2 speakers', '2 ids occur')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The right name that is most like what was written, whatever its case and hyphens; None if none is."""
    plain = {known_name.lower().replace("_", "-"): known_name for known_name in known}
    written = str(name).lower().replace("_", "-")
    near = difflib.get_close_matches(written, plain, n=1, cutoff=0.6)
    if not near and len(written) > 2:
        containing = [candidate for candidate in plain if written in candidate]
        near = containing if len(containing) == 1 else []
    return plain[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """Suggest the nearest right name, or else what `otherwise` says.

    Example:
        >>> did_you_mean("clustres", ["layers", "clusters"])
        'did you mean `clusters`?'
    """
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean `{near}`?"


def is_read_only(error: OSError) -> bool:
    """Whether something could not be written because its place is read-only, or somebody else's."""
    return error.errno in _READ_ONLY


@contextmanager
def read_only_is_fine(finished: bool = True) -> Iterator[None]:
    """Pass over what cannot be written in a read-only place where all is finished; what is left to do fails there."""
    try:
        yield
    except OSError as error:
        if not finished or not is_read_only(error):
            raise
