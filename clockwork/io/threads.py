"""An ordered map in threads with bounded memory, for reading and writing files."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(8, os.cpu_count() or 1)  # per process


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2 * THREADS, threads: int = THREADS
) -> Iterator[Result]:
    """Applies a function to items in threads, like `map`.

    When the caller stops early, or an item or a call fails, the calls that have started still finish.

    Args:
        function: Function of one item.
        items: The items, iterated in the caller's thread.
        ahead: Largest number of calls that are running, or have finished without their result being consumed. It bounds
            memory.
        threads: Number of threads.

    Yields:
        The results in the order of the items. The error of a failed call is raised in place of its result.
    """
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
