"""Images with captions, from a folder: the training data of `data=noised`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clockwork.data.caption_files import caption_column, read_rows, text_of
from clockwork.data.image_files import check_image, image_files, read_image
from clockwork.data.image_io import squared
from clockwork.data.prompts import Prompt
from clockwork.data.text_files import read_text
from clockwork.errors import MissingFileError, UserError, check_whole
from clockwork.io.paths import below
from clockwork.io.threads import map_in_threads

FILE_COLUMNS = ("file_name", "file", "image", "path")  # in which file names are looked for
TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class CaptionedImage(Prompt, ABC):
    """An image whose caption is the prompt's text."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Name of the image's origin, for fingerprints of a data set."""

    @abstractmethod
    def read(self) -> Tensor:
        """Reads the image, 8-bit, `3 × height × width`."""


@dataclass(frozen=True)
class ImageFile(CaptionedImage):
    """An image file.

    Attributes:
        file: The file.
    """

    file: Path

    @property
    def source(self) -> str:
        """Name of the file, without its folder."""
        return self.file.name

    def read(self) -> Tensor:
        """Reads the file."""
        return read_image(self.file)


def pixels(images: Sequence[CaptionedImage], side: int) -> Tensor:
    """Reads images and crops them to their central square.

    Args:
        images: The images.
        side: Width and height of the result in pixels.

    Returns:
        8-bit images, `batch × 3 × side × side`.
    """
    return torch.stack([squared(image.read(), side) for image in images])


def folder(
    path: str | Path, count: int | None = None, column: str | None = None, outside: bool = False
) -> list[ImageFile]:
    """Lists the images of a folder with their captions.

    The captions come from the folder's `metadata.csv` (or `.tsv`, `.jsonl`, `.parquet`) with the columns `file_name`
    and `caption`, or from a text file beside each image: `cat.jpg`, `cat.txt`. Every image is opened once, so that a
    broken file is reported before training begins, and so is what is left out (`image_files`).

    Args:
        path: The folder.
        count: Number of images, from the first; all of them by default.
        column: Column of the captions in the table; see `caption_column`.
        outside: Whether the table may name images that are not below the folder, by absolute paths, by `..` or through
            links to other folders.

    Returns:
        The images, with ids from 0.

    Raises:
        MissingFileError: The folder, or an image that its table names, does not exist.
        UserError: An image cannot be read, has no caption or is not below the folder, or there are fewer images than
            `count`.
    """
    path = Path(path)
    if count is not None:
        check_whole("images.count", count, 1)
    tables = [path / name for name in TABLES if (path / name).is_file()]
    if len(tables) > 1:
        raise UserError(f"{path} has {' and '.join(table.name for table in tables)}: keep the one with the captions")
    table = tables[0] if tables else None
    files = [] if outside and table is not None else image_files(path)
    if outside and table is None:
        raise UserError(f"images.outside=true is for images that metadata names, and {path} has none: leave it out")
    captioned = _captions_beside(files) if table is None else _captions_in_table(table, column, outside)
    if count is not None and count > len(captioned):
        raise UserError(f"{path} holds {len(captioned)} captioned images, fewer than {count}: lower images.count")
    images = [ImageFile(i, text, file) for i, (file, text) in enumerate(captioned[:count])]
    if missing := next((image.file for image in images if not image.file.is_file()), None):
        raise MissingFileError(f"no image at {missing}, which its folder's metadata names: add it or remove its row")
    for _ in map_in_threads(check_image, [image.file for image in images]):
        pass
    return images


def _captions_in_table(table: Path, column: str | None, outside: bool) -> list[tuple[Path, str]]:
    """Reads image files and their captions from a folder's table."""
    captioned: list[tuple[Path, str]] = []
    file_column = text_column = ""
    for place, row in read_rows(table):
        if not captioned:
            file_column = next((name for name in FILE_COLUMNS if name in row), "")
            text_column = caption_column(table, list(row), column)
            if not file_column:
                raise UserError(f"{table} has no column file_name, only {', '.join(row)}: add one with the image files")
        name, text = row.get(file_column), text_of(row.get(text_column), place, text_column)
        if not isinstance(name, str) or not name.strip() or not text:
            raise UserError(f"{place} is a row without {file_column} or {text_column}: {str(row)[:80]}")
        captioned.append((_image_at(table, name, outside), text))
    if not captioned:
        raise UserError(f"{table} has no images: write one per row, with the columns file_name and caption")
    return captioned


def _image_at(table: Path, name: str, outside: bool) -> Path:
    """Returns the image that a table names."""
    if outside and "\0" not in name:
        return table.parent / name
    return below(table.parent, name, table, ", or pass images.outside=true")


def _captions_beside(files: list[Path]) -> list[tuple[Path, str]]:
    """Reads each image's caption from the text file of the same name."""
    for file in files:
        if not file.with_suffix(".txt").is_file():
            raise UserError(
                f"{file} has no caption: write {file.with_suffix('.txt').name} beside it, or a metadata.csv "
                "with the columns file_name and caption"
            )
    return [(file, " ".join(read_text(file.with_suffix(".txt")).split())) for file in files]
