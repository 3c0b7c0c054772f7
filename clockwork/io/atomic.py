"""Atomic writes of files and folders: a reader sees either the complete new version or the previous one.

This holds when a writer is killed, and when several processes or threads write the same path at once.
"""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:32]  # several machines may share a file system


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Context manager that replaces a file when its block ends without an error.

    If the block fails or is interrupted, the temporary file is removed and `file` stays as it was. The data is flushed
    to disk before the rename, so that a power cut leaves no empty file. Every writer has its own temporary path; if
    several write at once, the file of the last one stays.

    Args:
        file: The file to write. Its folder is created if necessary.

    Yields:
        A temporary path in the same folder, to which the block writes.
    """
    with _temporary(file) as partial:
        yield partial
        _flush(partial)
        partial.replace(file)
        _flush(file.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Context manager that replaces a folder when its block ends without an error, as `atomic_write` does for a file.

    Args:
        folder: The folder to write. The previous folder is removed after the new one is in place.

    Yields:
        A temporary path in the same parent folder, at which the block creates the new folder.
    """
    with _temporary(folder) as partial:
        yield partial
        for path in (*partial.rglob("*"), partial):
            _flush(path)
        _replace_folder(partial, folder)
        _flush(folder.parent)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Yields a unique path beside `target`, and removes whatever is left there when the block ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent.resolve())
    partial = _unique(target, "partial")
    try:
        yield partial
    finally:  # no longer exists if it was renamed to the target
        _remove(partial)


def _replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`.

    Folders cannot be exchanged in one step: the old one is moved aside first, and moved back if the rename fails.
    """
    while True:
        old = _unique(target, "replaced")
        try:
            with suppress(FileNotFoundError):  # no old folder, or another writer has just moved it aside
                target.rename(old)
            new.rename(target)
            return
        except BaseException as error:
            if getattr(error, "errno", None) not in (errno.ENOTEMPTY, errno.EEXIST):
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
            # Another writer has placed its folder in the meantime: replace that one.
        finally:
            _remove(old)


def _unique(target: Path, kind: str) -> Path:
    """Returns a unique path beside `target` whose name contains this machine and process."""
    return target.with_name(f"{target.name}.{_HOST}-{os.getpid()}-{uuid4().hex[:12]}.{kind}")


@cache
def _remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes of this machine that no longer run, once per folder.

    A folder that was moved aside by a process that was killed before it placed the new one is moved back.
    """
    pattern = re.compile(rf"(?P<target>.+)\.{re.escape(_HOST)}-(?P<process>\d+)-[0-9a-f]{{12}}\.(partial|replaced)")
    for leftover in folder.iterdir():
        match = pattern.fullmatch(leftover.name)
        if match is None or _is_running(int(match["process"])):
            continue
        target = folder / match["target"]
        if leftover.suffix == ".replaced" and not target.exists():
            with suppress(FileNotFoundError):  # another process is cleaning up too
                leftover.rename(target)
        else:
            _remove(leftover)


def _is_running(pid: int) -> bool:
    """Tests whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
