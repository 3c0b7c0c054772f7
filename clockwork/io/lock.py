"""Locks between processes. They end with the process that holds them, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clockwork.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_held: dict[Path, int] = {}  # descriptors of the folders that this process has locked


def lock_folder(folder: Path, owner: str = "another process") -> None:
    """Locks a folder for this process until `release_folders`; a process may lock a folder several times.

    Args:
        folder: The folder, which is created if it does not exist.
        owner: Names the process that is expected to hold the lock, for the message.

    Raises:
        UserError: Another process has locked the folder.
    """
    folder = folder.resolve()
    if fcntl is None or folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{owner} is writing to {folder}: wait until it has ended, or pass another output") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
    else:
        _held[folder] = descriptor


@contextmanager
def release_folders() -> Iterator[None]:
    """Context manager, or decorator, that releases the folders that its block has locked."""
    before = set(_held)
    try:
        yield
    finally:
        for folder in set(_held) - before:
            os.close(_held.pop(folder))


@contextmanager
def locked(stream: Any) -> Iterator[None]:
    """Context manager during which no other process is in a block of the same file; it waits for them.

    Args:
        stream: The open file.
    """
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_UN)
