"""Batches computed in threads: on a CPU one batch per core, each by a single thread, instead of one after the other.

A product of matrices that two threads share ends with one of them waiting; two batches side by side never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

Tag = TypeVar("Tag")
Batch = TypeVar("Batch")
Result = TypeVar("Result")

_lock = Lock()
_pools = 0
_threads = 1


@contextmanager
def _single_threads() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """As many workers as torch has threads, each with one.

    Every thread has its own count, but the one that threads to come start with is shared. It is noted by the first of
    several pools and set back by the last.
    """
    global _pools, _threads
    with _lock:
        if not _pools:
            _threads = torch.get_num_threads()
        _pools += 1
        workers = _threads
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool, workers
    finally:
        with _lock:
            _pools -= 1
            if not _pools:
                torch.set_num_threads(_threads)


@contextmanager
def _one_thread() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool, 1


def compute_ahead(
    work: Callable[[Batch], Result], batches: Iterable[tuple[Tag, Batch]], side_by_side: bool
) -> Generator[tuple[Tag, Result], None, None]:
    """Compute batches in threads, a bounded number ahead.

    Args:
        work: What to do with each batch: torch operations, which release Python's lock.
        batches: What is known by, and worked on.
        side_by_side: One batch per CPU thread; otherwise one at a time with all threads, or on a device, where the next
            one is handed over before the last one's result is used.

    Yields:
        Results in the order of the batches.
    """
    with _single_threads() if side_by_side else _one_thread() as (pool, workers):
        waiting: deque[tuple[Tag, Future[Result]]] = deque()
        try:
            for tag, batch in batches:
                waiting.append((tag, pool.submit(work, batch)))
                if len(waiting) > workers:
                    tag, future = waiting.popleft()
                    yield tag, future.result()
            while waiting:
                tag, future = waiting.popleft()
                yield tag, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
