"""Several processes on one evaluation, as `torchrun` starts them; without it, one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


def join() -> None:
    """Enters the group that torchrun has set up, if it has."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def one_by_one() -> Iterator[None]:
    """The first process alone, then the others."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()
