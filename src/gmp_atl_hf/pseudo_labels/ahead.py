"""Reading ahead: the next batches are decoded in threads while the model works on this one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4
"""Threads that read ahead, one item each; as many items wait. Decoders and resamplers release Python's lock."""


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Map over items in threads, a bounded number of them ahead of what has been asked for.

    Args:
        work: What to do with an item; an exception appears where its result would.
        items: Taken one by one, as results are.

    Yields:
        Results, in the order of the items.
    """
    threads = max(1, min(MOST_THREADS, os.cpu_count() or 1))
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
