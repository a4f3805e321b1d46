"""What all verbs share: the command's name and status, the screen, and which of several processes speaks."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RequestError

PROGRAM = "gmp-atl"
DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables by which `torchrun` and `accelerate launch` tell a process which one it is."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Libraries that write files themselves lose the number of the error.
_NO_ROOM_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed")
_HELP: Mapping[int, tuple[str, str]] = {
    **dict.fromkeys(_NO_ROOM, ("room on the disk", "make room there, or choose another place; what is finished stays")),
    **dict.fromkeys(
        _DENIED,
        ("a place that may be read and written", "choose another place, or change what is allowed there"),
    ),
    errno.EMFILE: ("fewer open files", "ulimit -n 4096"),
}


def say(text: str) -> None:
    """Print a line, in the first of several processes only."""
    if is_first_process():
        print(printable(text).decode("utf-8"), flush=True)


def complain(text: str) -> None:
    """Print a line on stderr, in the first of several processes only."""
    if is_first_process():
        with suppress(OSError):  # then there is nowhere to say it; the status still does
            print(printable(text).decode("utf-8"), file=sys.stderr, flush=True)


@contextmanager
def own_warnings_as_notes() -> Iterator[None]:
    """Show warnings of this package without the line of code that they come from, which says nothing to a user."""
    package, plain = str(Path(__file__).parents[1]), warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is UserWarning and filename.startswith(package):
            return f"Note: {message}\n"
        return plain(message, category, filename, lineno, line)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = plain


def printable(text: str) -> bytes:
    """Encode as UTF-8; file names that are no valid text keep their bytes as escapes, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def is_first_process() -> bool:
    """Whether this is the only process or the first of several, as the launcher's variables tell."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def forget_stray_ranks() -> None:
    """Take away what says that this is one of several processes where no launcher has said how many there are.

    Some shells and schedulers leave such variables behind; this process would wait for others, or leave them the work.
    """
    found = {name: os.environ.get(name, "") for name in _LAUNCHED}
    known = {name: int(text) for name, text in found.items() if text.isascii() and text.isdigit() and len(text) < 10}
    ranks = [known.get(name, -1) for name in ("RANK", "LOCAL_RANK") if found[name]]
    launched = ranks and all(0 <= rank < known.get("WORLD_SIZE", 0) for rank in ranks)
    for name in _LAUNCHED:
        os.environ.pop(name, None)
    if launched:
        os.environ.update({name: str(number) for name, number in known.items()})


def replace_closed_streams() -> None:
    """Put something in the place of streams that were closed before we began, and keep files off their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Standard output fails when something is written to it, as a full one does; the other two are silent.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def explain_failure(error: Exception) -> str | None:
    """Say in a sentence why the screen or a file could not be read or written.

    Returns:
        What was found, expected, and the fix; "" where a reader such as `head` has gone; None for errors of any other
        kind, which only their traceback explains.
    """
    screen_lost = _is_stdout_lost(isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM)
    if isinstance(error, BrokenPipeError):
        return ""
    return f"the output cannot be written: {error}" if screen_lost else explain_file_error(error)


def explain_file_error(error: BaseException) -> str | None:
    """Say in a sentence which file could not be read or written, and why; None for an error of another kind."""
    for one in _causes(error):
        number = _error_number(one)
        # A full disk explains whatever came of it; other errors of files may have been dealt with on the way.
        if (
            number in _NO_ROOM
            or (number in _DENIED and one is error.__cause__)
            or (number is not None and one is error)
        ):
            names = [getattr(one, "filename", None), getattr(one, "filename2", None)]
            files = [str(name) for name in names if name is not None] or list(getattr(one, "__notes__", ()))[:1]
            problem = getattr(one, "strerror", None) or str(one) or type(one).__name__
            found = f"{' and '.join(files)}: {problem}" if files else problem
            return str(RequestError(found, *_HELP.get(number, (None, None))))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _error_number(error: BaseException) -> int | None:
    """The `errno` of an error of files, 0 where it has none; None for an error of another kind."""
    text = str(error)
    if any(words in text for words in _NO_ROOM_WORDS):
        return errno.ENOSPC
    if isinstance(error, OSError):
        return error.errno or 0
    code = re.search(r"\(os error (\d+)\)", text)  # of safetensors and others that are written in Rust
    return int(code[1]) if code else None


def _is_stdout_lost(doubtful: bool) -> bool:
    """Whether standard output takes nothing any more; what it still holds is then thrown away.

    A long text leaves nothing in it to try again with: where it is in doubt, the end of a line is tried.
    """
    try:
        sys.stdout.flush()
        if doubtful and sys.stdout is sys.__stdout__ and sys.stdout is not None:
            os.write(sys.stdout.fileno(), b"\n")
        return not sys.stdout.writable()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
