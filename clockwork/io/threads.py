"""Work on files in threads, in order and a bounded distance ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(8, os.cpu_count() or 1)  # of each process


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2 * THREADS, threads: int = THREADS
) -> Iterator[Result]:
    """`map`, in threads.

    Args:
        function: Called once per item.
        items: Iterated in the caller's thread, as far ahead as results are wanted.
        ahead: How many items are in work, or done and not yet fetched, at most: what bounds memory.
        threads: How many work at once.

    Returns:
        The results, in the order of the items. What has been begun is finished when the caller stops early, or when
        an item or a call fails; the error is raised where its result would be.
    """
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
