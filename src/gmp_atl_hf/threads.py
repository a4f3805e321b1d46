"""Work in threads: a bounded number of items ahead of the consumer, and on a CPU whole items side by side.

Where each of thousands of short operations is split over all threads, the threads wait for each other at the end of
every one; on a busy machine that wait is a time slice of the scheduler. Items with one torch thread each wait once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

READERS = max(1, min(4, os.cpu_count() or 1))
"""Threads that decode ahead. Decoders and resamplers release Python's lock."""

_lock = Lock()
_pools = 0
_threads = 1


@contextmanager
def _single_threads(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in each of which torch uses one.

    Every thread has its own count, but the one that new threads start with is shared: the first of several pools notes
    it and the last one sets it back.
    """
    global _pools, _threads
    with _lock:
        if not _pools:
            _threads = torch.get_num_threads()
        _pools += 1
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        with _lock:
            _pools -= 1
            if not _pools:
                torch.set_num_threads(_threads)


def torch_threads() -> int:
    """How many threads torch uses, also for a caller that came while a pool had the shared default at one."""
    with _lock:
        return _threads if _pools else torch.get_num_threads()


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = READERS, one_torch_thread: bool = False
) -> Generator[Result, None, None]:
    """Map over items in threads, a bounded number of them ahead of what has been asked for.

    Args:
        work: What to do with an item; an exception appears where its result would.
        items: Taken one by one by the consumer's thread, as results are.
        threads: Items that are worked on at once.
        one_torch_thread: Whether torch uses a single thread for each item, so that no result depends on their number.

    Yields:
        Results in the order of the items.
    """
    with _single_threads(threads) if one_torch_thread else ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
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


def one_thread_each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Runs torch work on the CPU on every item, as many at once as torch may use threads, one thread for each."""
    threads = max(1, min(torch_threads(), len(items)))
    return list(prefetch(work, items, threads, one_torch_thread=True))


def portions(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cuts a sequence into one run of neighbours per torch thread; at least one run, even of nothing."""
    size = max(-(-len(items) // torch_threads()), 1)
    return [items[start : start + size] for start in range(0, max(len(items), 1), size)]
