"""Checks of paths that users, or files from elsewhere, name: nothing is replaced that Clockwork did not make."""

import os
from pathlib import Path, PurePath

from clockwork.errors import UserError


def check_file(file: Path, mark: str | None = None) -> None:
    """Checks that a file can be written without removing anything else.

    Args:
        file: The file to write.
        mark: A text that every file of this kind by Clockwork has in its first 64 KiB. A file without it is not
            replaced. By default every file is.

    Raises:
        UserError: A folder, or a file without the mark, is there.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder, so that no file is written there: choose another path")
    if mark is not None and file.exists() and not has_mark(file, mark):
        raise not_ours(file)


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
    """Whether a path is a folder, or one can be made there, in which the user may write.

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
        return nearest.is_dir() and os.access(nearest, os.W_OK)
    return False


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
