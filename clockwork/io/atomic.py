"""Atomic writes: a file or folder is complete or it is not there, whoever is killed and however many write at once."""

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

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:32]  # of several machines on one file system


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Gives a path beside `file` to write to. What was written there replaces `file` when the block ends; it is removed
    when the block fails or is interrupted, and `file` stays as it was. Makes the folder of `file`.

    Flushed to disk before it takes its place, so that a power cut leaves no empty file. Each writer has a path of its
    own: of several at once the last one's file stays.
    """
    with _temporary(file) as partial:
        yield partial
        _flush(partial)
        partial.replace(file)
        _flush(file.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """The same for a folder, which the block makes at the path given. The folder that it replaces is removed last."""
    with _temporary(folder) as partial:
        yield partial
        for path in (*partial.rglob("*"), partial):
            _flush(path)
        _replace_folder(partial, folder)
        _flush(folder.parent)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent.resolve())
    partial = _unique(target, "partial")
    try:
        yield partial
    finally:  # gone by now if it took the target's place
        _remove(partial)


def _replace_folder(new: Path, target: Path) -> None:
    """Folders cannot be exchanged in one step: the old one is moved aside, and back if the new one cannot be placed."""
    while True:
        old = _unique(target, "replaced")
        try:
            with suppress(FileNotFoundError):  # nothing there, or another writer has just moved it aside
                target.rename(old)
            new.rename(target)
            return
        except BaseException as error:
            if getattr(error, "errno", None) not in (errno.ENOTEMPTY, errno.EEXIST):
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
            # Another writer has placed its folder meanwhile: replace that one.
        finally:
            _remove(old)


def _unique(target: Path, kind: str) -> Path:
    """A name in the same folder that tells whose it is: this machine's, this process's."""
    return target.with_name(f"{target.name}.{_HOST}-{os.getpid()}-{uuid4().hex[:12]}.{kind}")


@cache
def _remove_leftovers(folder: Path) -> None:
    """Once per folder: what processes of this machine that run no more have left, and nobody else's. A folder that was
    moved aside by a process killed before it placed the new one is moved back."""
    pattern = re.compile(rf"(?P<target>.+)\.{re.escape(_HOST)}-(?P<process>\d+)-[0-9a-f]{{12}}\.(partial|replaced)")
    for leftover in folder.iterdir():
        match = pattern.fullmatch(leftover.name)
        if match is None or _runs(int(match["process"])):
            continue
        target = folder / match["target"]
        if leftover.suffix == ".replaced" and not target.exists():
            with suppress(FileNotFoundError):  # another process is cleaning up too
                leftover.rename(target)
        else:
            _remove(leftover)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
