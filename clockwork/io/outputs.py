"""Tables, plots and other results in folders of users: only those that Clockwork wrote are replaced.

Files of some kinds have a mark inside. Those of others, such as csv files, are listed in their folder by
`.clockwork-outputs`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clockwork.io.atomic import atomic_write
from clockwork.io.paths import check_file, has_mark, not_ours

LIST = ".clockwork-outputs"
MARKS = {".png": "Software\0Clockwork", ".html": "<title>clockwork: "}
# With what they begin: one of these is in folders that were begun before there were lists.
_EARLIER = {"clockwork.log": "", "rows.jsonl": "", "config.json": '{\n  "settings": '}


@contextmanager
def write_output(file: Path, mark: str | None = None) -> Iterator[Path]:
    """Context manager that writes a result as `atomic_write` does, and lists it unless it has a mark inside.

    Args:
        file: The file to write.
        mark: A text near the beginning of every such file, if there is one; png and html files have theirs.

    Yields:
        A temporary path in the same folder, to which the block writes.

    Raises:
        UserError: Something else is there, or no room on the disk.
    """
    check_outputs(file.parent, file.name, mark=mark)
    with atomic_write(file) as partial:
        yield partial
    if mark is None and file.suffix not in MARKS:
        _add_to_list(file)


def check_outputs(folder: Path, *names: str, mark: str | None = None) -> None:
    """Checks that results will replace nothing of others, so that this shows before any work.

    Args:
        folder: The folder to which they will be written.
        names: Names of the files.
        mark: As in `write_output`.

    Raises:
        UserError: A folder, or a file that Clockwork has not written, is at the path of one of them.
    """
    for file in (folder / name for name in names):
        check_file(file)
        if file.exists() and not _is_ours(file, mark or MARKS.get(file.suffix)):
            raise not_ours(file)


def begin_list(folder: Path) -> None:
    """Begins the list of a folder to which Clockwork writes for the first time, before it writes there.

    Args:
        folder: The folder.
    """
    if folder.is_dir() and not (folder / LIST).exists() and not _is_earlier(folder):
        (folder / LIST).touch()


def _is_ours(file: Path, mark: str | None) -> bool:
    """Tells whether Clockwork has written a file."""
    if mark is not None and has_mark(file, mark):
        return True
    return file.suffix != ".html" and file.name in _listed(file.parent)  # pages have always had their mark


def _listed(folder: Path) -> list[str]:
    """Returns the results that a folder lists; of a folder that an earlier version began, all files."""
    if (folder / LIST).is_file():
        return (folder / LIST).read_text(encoding="utf-8", errors="replace").splitlines()
    return [file.name for file in folder.iterdir() if file.is_file()] if _is_earlier(folder) else []


def _is_earlier(folder: Path) -> bool:
    """Tells whether an earlier version has written to a folder without a list."""
    files = {folder / name: mark for name, mark in _EARLIER.items() if (folder / name).is_file()}
    return any(has_mark(file, mark) for file, mark in files.items())


def _add_to_list(file: Path) -> None:
    """Lists a file that has been written. The list is begun with all files of a folder of an earlier version."""
    listed = _listed(file.parent)
    if file.name not in listed:
        names = [*listed, file.name]
        with atomic_write(file.parent / LIST) as partial:
            partial.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
