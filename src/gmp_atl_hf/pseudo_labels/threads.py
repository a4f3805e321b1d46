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


def portions(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cuts a sequence into one run of neighbours per thread.

    Args:
        items: What to cut, e.g. the chunks of the frames.

    Returns:
        At least one run, even of nothing.
    """
    size = max(-(-len(items) // torch.get_num_threads()), 1)
    return [items[start : start + size] for start in range(0, max(len(items), 1), size)]
