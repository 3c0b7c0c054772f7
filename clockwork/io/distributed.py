"""Several processes on one evaluation, as `torchrun` starts them; without it, one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")

# A collective waits this long for the slowest process, then fails. No process works alone for longer: images are
# generated in rounds, every process measures its share.
TIMEOUT = timedelta(minutes=30)


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun has started, if it has, for as long as the block runs."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 is the main process, which writes rows and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of `items`: every item is in one process's part; some may have none."""
    return items[rank() :: world_size()]


def barrier() -> None:
    """Waits until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def sum_over_processes(part: Tensor) -> Tensor:
    """The sum of every process's `part`, on the CPU: the same on all of them. All have to call it."""
    total = part.detach().cpu().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def from_main_process(values: Sequence[bool]) -> list[bool]:
    """The main process's `values`, as many on every process: what all of them decide by. All have to call it."""
    flags = torch.tensor(values, dtype=torch.uint8)
    if dist.is_initialized():
        dist.broadcast(flags, 0)
    return [bool(flag) for flag in flags]
