"""Free memory goes back to the system, so that what a long extraction takes does not grow with its length."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable


def trim_heap() -> None:
    """Asks the C library to return what has been freed.

    Tensors of ever different sizes, allocated and freed by several threads, leave gaps in glibc's heap that it keeps:
    an extraction on the CPU grew by a megabyte for every three clips. Other C libraries are left alone.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    name = ctypes.util.find_library("c")
    try:
        trim: Callable[[int], int] = ctypes.CDLL(name).malloc_trim
        return trim
    except (OSError, AttributeError):  # not glibc
        return None
