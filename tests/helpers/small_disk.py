"""Disks of a few kilobytes: file systems in memory, mounted for a test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted disk.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, kilobytes: int) -> None:
        """Changes the size of the disk, which must hold what is on it."""
        _mount("-o", f"remount,size={kilobytes}k", str(self.folder))

    @contextmanager
    def filled(self, room: int = 0) -> Iterator[None]:
        """Context manager during which so many kilobytes of the disk are free, or less."""
        filler = self.folder / "filler"
        try:
            with filler.open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)) == 4096:
                    pass
        except OSError:  # full
            pass
        with filler.open("r+b") as stream:
            stream.truncate(max(0, filler.stat().st_size - 1024 * room))
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """Context manager that mounts a disk; skips the test where that is not permitted."""
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk needs root on Linux: {getattr(error, 'stderr', None) or error}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
