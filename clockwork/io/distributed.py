"""Work shared by several processes, as `torchrun` starts them. Every function also works in a single process."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from clockwork.errors import UserError

Item = TypeVar("Item")

# A collective waits this long for the slowest process, then fails. No process works alone for longer, because images
# are generated in rounds and every process measures its share.
TIMEOUT = timedelta(minutes=30)
LOST_PROCESS = "another process has ended, or was killed, for example for want of memory: see what it has printed"


@contextmanager
def process_group() -> Iterator[None]:
    """Context manager that joins the process group that torchrun has started, and leaves it when its block ends.

    Does nothing without torchrun, or if the process group exists already.

    Raises:
        UserError: Another process has ended, and this one had to wait for it.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield
    except RuntimeError as error:
        if lost_process(error):
            raise UserError(f"{LOST_PROCESS}, and run the same command again") from error
        raise
    finally:
        dist.destroy_process_group()


def lost_process(error: BaseException) -> bool:
    """Tells whether a collective has failed because another process has ended.

    Args:
        error: The error of the collective.
    """
    return isinstance(error, dist.DistError) or bool(re.search(r"gloo.*(by peer|[Tt]imed out|refused)", str(error)))


@cache
def print_once(message: str) -> None:
    """Prints a message in the main process, once however often it is called.

    Args:
        message: The message.
    """
    if rank() == 0:
        print(message)


def rank() -> int:
    """Returns the rank of this process; 0 is the main process, which writes rows and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Returns this process's part of a sequence.

    Args:
        items: The same sequence on every process.

    Returns:
        Every `world_size()`-th item, from the item with this process's rank. The part is empty if there are fewer items
        than processes.
    """
    return items[rank() :: world_size()]


def barrier() -> None:
    """Waits until every process has called this function."""
    if dist.is_initialized():
        dist.barrier()


def sum_over_processes(part: Tensor) -> Tensor:
    """Adds up a tensor over all processes. Every process has to call this function.

    Args:
        part: This process's summand, of the same shape on every process.

    Returns:
        The sum, on the CPU; the same on every process.
    """
    total = part.detach().cpu().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def gather(part: Item) -> list[Item]:
    """Collects a value of every process. Every process has to call this function.

    Args:
        part: This process's value, a small one on the CPU.

    Returns:
        The values in the order of the ranks, the same on every process.
    """
    if not dist.is_initialized():
        return [part]
    parts: list[Item] = [part] * world_size()
    dist.all_gather_object(parts, part)
    return parts


def from_main_process(values: Sequence[bool]) -> list[bool]:
    """Sends the main process's values to all processes. Every process has to call this function.

    Args:
        values: As many values on every process; only those of the main process are used.

    Returns:
        The values of the main process.
    """
    flags = torch.tensor(values, dtype=torch.uint8)
    if dist.is_initialized():
        dist.broadcast(flags, 0)
    return [bool(flag) for flag in flags]
