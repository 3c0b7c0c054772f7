"""Checks of paths that users, or files from elsewhere, name: nothing is replaced that Clockwork did not make."""

import os
from pathlib import Path, PurePath

from clockwork.errors import UserError

LONGEST_NAME = 255 - 80  # bytes; temporary names beside a file or folder are longer than its own
SYSTEM_FOLDERS = {("/", "proc"), ("/", "sys"), ("/", "dev")}
SHARED_MEMORY = ("/", "dev", "shm")


def check_file(file: Path, mark: str | None = None) -> None:
    """Checks that a file can be written without removing anything else.

    Args:
        file: The file to write.
        mark: A text that every file of this kind by Clockwork has in its first 64 KiB. A file without it is not
            replaced. By default every file is.

    Raises:
        UserError: A folder, or a file without the mark, is there, or the name is too long.
    """
    check_name(file)
    if file.is_dir():
        raise UserError(f"{file} is a folder, so that no file is written there: choose another path")
    if mark is not None and file.exists() and not has_mark(file, mark):
        raise not_ours(file)


def check_name(path: Path) -> None:
    """Checks that the name of a file or folder is short enough for the temporary ones beside it.

    Args:
        path: The file or folder.

    Raises:
        UserError: It is too long.
    """
    if (length := len(os.fsencode(path.name))) > LONGEST_NAME:
        raise UserError(f"the name {path.name[:40]}… has {length} bytes: choose one of at most {LONGEST_NAME}")


def has_mark(file: Path, mark: str) -> bool:
    """Tells whether a file has a text in its first 64 KiB.

    Args:
        file: The file.
        mark: The text.
    """
    with file.open("rb") as stream:
        return mark.encode() in stream.read(2**16)


def not_ours(path: Path) -> UserError:
    """Returns the error for a file or folder that is not replaced.

    Args:
        path: The file or folder.
    """
    return UserError(f"{path} exists and was not made by Clockwork, so it is not replaced: choose another path")


def can_be_folder(path: Path) -> bool:
    """Whether a path is a folder, or one can be made there, in which the user may write; not the root of all folders.

    Args:
        path: The path.
    """
    for nearest in (path.absolute(), *path.absolute().parents):
        try:
            os.lstat(nearest)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):  # below a file, or a name that is too long or holds a zero
            return False
        return nearest.is_dir() and os.access(nearest, os.W_OK) and not _is_systems(path.resolve())
    return False


def can_be_file(path: Path) -> bool:
    """Whether a file can be written at a path, or one is there that can be replaced.

    Args:
        path: The path.
    """
    if not path.name or len(os.fsencode(path.name)) > LONGEST_NAME or path.is_dir():
        return False
    return path.parent == Path(path.anchor or ".") or can_be_folder(path.parent)


def _is_systems(folder: Path) -> bool:
    """Tells whether a folder is the root of all folders, or below one that holds the system's devices."""
    return folder == Path(folder.anchor) or (folder.parts[:2] in SYSTEM_FOLDERS and folder.parts[:3] != SHARED_MEMORY)


def folder_name(path: str | Path) -> str:
    """Returns the name of a folder; of `.` and of a path that ends with `..`, that of the folder itself.

    Args:
        path: The folder, or another name, such as one on the hub.
    """
    name = Path(path).name
    return Path(path).resolve().name if name in ("", "..") else name


def below(folder: Path, name: str, named_by: Path, otherwise: str = "") -> Path:
    """Returns a file that another file names, which has to be below a folder.

    Its parent folder may not be reached through a link that leads out. The file itself may be a link, as all files in
    the hub's cache are.

    Args:
        folder: The folder.
        name: Path of the file, relative to the folder.
        named_by: What names the file, for the message.
        otherwise: What the message names besides, as an option.

    Raises:
        UserError: The path leads out of the folder.
    """
    path = PurePath(name)
    leads_out = path.is_absolute() or ".." in path.parts or "\0" in name
    if leads_out or not (folder / path).parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{named_by} names {name!r}, which is not below {folder}: name files by their path in there{otherwise}"
        )
    return folder / path
