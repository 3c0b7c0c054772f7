"""Atomic writes of files and folders: a reader sees either the complete new version or the previous one.

This holds when a writer is killed, and when several processes or threads write the same path at once.
"""

import ctypes
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

from clockwork.io.disk import naming_full_disk
from clockwork.io.paths import check_file, check_name, not_ours

MARKER = ".clockwork"  # a file in every folder that `atomic_folder` has written
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

    Raises:
        UserError: There is a folder at `file`, or no room on its disk.
    """
    check_file(file)
    with naming_full_disk(file), _temporary(file) as partial:
        yield partial
        _flush(partial)
        partial.replace(file)
        _flush(file.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Context manager that replaces a folder when its block ends without an error, as `atomic_write` does for a file.

    The new folder is marked by an empty file `.clockwork`. Only an empty folder or one with that mark is replaced.

    Args:
        folder: The folder to write. The previous folder is removed after the new one is in place.

    Yields:
        A temporary path in the same parent folder, at which the block creates the new folder.

    Raises:
        UserError: Something else is at `folder`, or there is no room on its disk.
    """
    check_folder(folder)
    folder = folder.resolve()  # of a link, what it leads to
    with naming_full_disk(folder), _temporary(folder) as partial:
        yield partial
        (partial / MARKER).touch()
        for path in (*partial.rglob("*"), partial):
            _flush(path)
        _replace_folder(partial, folder)
        _flush(folder.parent)


def check_folder(folder: Path) -> None:
    """Checks that `atomic_folder` may write a folder.

    Args:
        folder: The folder.

    Raises:
        UserError: There is a file, or a folder that is not empty and that `atomic_folder` has not written, or the name
            is too long.
    """
    check_name(folder)
    if not os.path.lexists(folder) or (folder / MARKER).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise not_ours(folder)


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
    """Renames `new` to `target`. The folder that was there is at `new` then, which `_temporary` removes."""
    while True:
        try:
            check_folder(target)
            if not target.exists():
                new.rename(target)
            elif not _exchange(new, target):
                _replace_in_two_steps(new, target)
            return
        except OSError as error:  # another writer has placed its folder, or moved it aside, in the meantime
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not new.exists():
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step; returns False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    relative_to, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(relative_to, os.fsencode(one), relative_to, os.fsencode(other), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_in_two_steps(new: Path, target: Path) -> None:
    """Moves the old folder aside, and back if `new` cannot be renamed to `target`."""
    old = _unique(target, "replaced")
    try:
        target.rename(old)
        new.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        if target.exists():
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
    if path.is_dir() and not path.is_symlink():
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
