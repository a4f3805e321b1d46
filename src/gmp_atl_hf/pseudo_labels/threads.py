"""Work on the CPU in whole pieces, one thread each, instead of many small operations that are split over all threads.

Where each of thousands of short operations is split, the threads wait for each other at the end of every one. On a busy
machine that wait is a time slice of the scheduler, and k-means took ten times as long; pieces wait once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread_each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Runs the work on every item, as many at once as torch may use threads.

    Each item is worked on by a single thread, so what comes out does not depend on how many there are.

    Args:
        work: Torch operations on the CPU; they release Python's lock.
        items: What to work on.

    Returns:
        Results in the order of the items.
    """
    threads = torch.get_num_threads()
    try:
        # Each thread has its own count; the default of threads to come is shared, hence set back in the end.
        with ThreadPoolExecutor(
            min(threads, len(items)) or 1, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def spans(length: int, piece: int) -> list[range]:
    """Cuts a length into one span per thread, each but the last made of whole pieces.

    Args:
        length: What to cut, e.g. the number of frames.
        piece: Smallest unit, e.g. the frames of a chunk.

    Returns:
        At least one span, even of nothing.
    """
    pieces = -(-length // piece)
    size = max(-(-pieces // torch.get_num_threads()), 1) * piece
    return [range(start, min(start + size, length)) for start in range(0, max(length, 1), size)]
