"""The errors that say what was found, what was expected, and the fix."""

from __future__ import annotations

import errno

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


class DivergenceError(ExplainedError, ArithmeticError):
    """A training whose numbers are no longer finite, or a model that gives no finite scores.

    The command line ends with exit status 1.
    """


def is_read_only(error: OSError) -> bool:
    """Whether something could not be written because its place is read-only, or somebody else's."""
    return error.errno in _READ_ONLY
