"""Disks that are full, paths that may not be used, and files that are appended to as a whole or not at all."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from clockwork.errors import UserError

_REASONS = {
    errno.ENOSPC: "its disk is full",
    errno.EDQUOT: "the quota on its disk is used up",
    errno.EFBIG: "it would be larger than the largest file that is allowed",
}
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


def forbidden_path_message(error: BaseException) -> str | None:
    """Describes the system's refusal of a path, for example for lack of permission.

    Args:
        error: The error.

    Returns:
        One sentence; None if the error is about something else.
    """
    if not isinstance(error, OSError) or error.errno not in _FORBIDDEN or error.filename is None:
        return None
    path, reason = os.fsdecode(error.filename), os.strerror(error.errno).lower()
    return f"{path[:200]} cannot be read or written ({reason}): choose another path, or change its permissions"


def full_disk_message(error: BaseException, path: Path | None = None) -> str | None:
    """Describes an error of a disk without room.

    Libraries report it in several ways: torch hides the system's error behind one of its own, and safetensors has only
    the number of it in a text.

    Args:
        error: The error.
        path: What was being written, unless the error names a file elsewhere.

    Returns:
        One sentence; None if the error, and those that it was raised from, are about something else.
    """
    cause: BaseException | None = error
    for _ in range(20):  # errors may refer to each other
        if cause is None:
            return None
        if (number := _error_number(cause)) in _REASONS:
            named = getattr(cause, "filename", None)
            elsewhere = named is not None and not str(named).startswith(str(path))
            name = named if elsewhere else path or "a file"
            return f"{name} cannot be written, because {_REASONS[number]}: make room, and run the same command again"
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Context manager that turns an error of a disk without room into a `UserError`.

    Args:
        path: What its block writes, or a beginning of the paths that it writes.

    Raises:
        UserError: There is no room.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (message := full_disk_message(error, path)) is not None:
            raise UserError(message) from error
        raise


def append_whole(stream: FileIO, content: bytes) -> None:
    """Appends to a file and flushes it to disk. If that fails or is interrupted, the file stays as it was.

    A write to a disk that becomes full may write a part and return its length without an error.

    Args:
        stream: The file, opened for appending without a buffer.
        content: What to append.

    Raises:
        UserError: There is no room.
    """
    end = stream.seek(0, os.SEEK_END)
    try:
        with naming_full_disk(Path(os.fsdecode(stream.name))):
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[stream.write(remaining) :]
            os.fsync(stream.fileno())
    except BaseException:
        stream.truncate(end)
        raise


def _error_number(error: BaseException) -> int:
    """The system's number of an error; 0 if it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))  # as Rust writes it
    return int(number[1]) if number else 0
