"""Captioned images: what objectives that need images are trained on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clockwork.data.caption_files import caption_column, read_rows
from clockwork.data.image_io import image_files, read_image, squared
from clockwork.data.prompts import Prompt
from clockwork.errors import MissingFileError, UserError

FILE_COLUMNS = ("file_name", "file", "image", "path")  # where file names are looked for
TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class CaptionedImage(Prompt, ABC):
    """An image with its caption, which is `text`."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Name of what the image comes from, for fingerprints of a data set."""

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


def folder(path: str | Path, count: int | None = None, column: str | None = None) -> list[ImageFile]:
    """The images of a folder with their captions, from its `metadata.csv` (tsv, jsonl, parquet) with the columns
    file_name and caption, or from a text file beside each image: `cat.jpg`, `cat.txt`.

    Every file is opened here, so that a broken one is named before training begins.
    """
    path = Path(path)
    pictures = image_files(path)
    table = next((path / name for name in TABLES if (path / name).is_file()), None)
    named = _beside(pictures) if table is None else _table(table, column)
    if count is not None and count > len(named):
        raise UserError(f"{path} holds {len(named)} captioned pictures, fewer than {count}: lower images.count")
    images = [ImageFile(i, text, file) for i, (file, text) in enumerate(named[:count])]
    for image in images:
        _check(image.file)
    return images


def _table(table: Path, column: str | None) -> list[tuple[Path, str]]:
    named: list[tuple[Path, str]] = []
    files = text = ""
    for row in read_rows(table):
        if not named:
            files = next((name for name in FILE_COLUMNS if name in row), "")
            text = caption_column(table, list(row), column)
            if not files:
                raise UserError(f"{table} has no column file_name, only {', '.join(row)}: name the pictures in one")
        if not row.get(files) or not row.get(text):
            raise UserError(f"{table} has a row without {files} or {text}: {str(row)[:80]}")
        named.append((table.parent / str(row[files]), " ".join(str(row[text]).split())))
    if not named:
        raise UserError(f"{table} names no pictures: write one a row, with the columns file_name and caption")
    return named


def _beside(pictures: list[Path]) -> list[tuple[Path, str]]:
    for picture in pictures:
        if not picture.with_suffix(".txt").is_file():
            raise UserError(
                f"{picture} has no caption: write {picture.with_suffix('.txt').name} beside it, or a metadata.csv "
                "with the columns file_name and caption"
            )
    return [(picture, " ".join(picture.with_suffix(".txt").read_text().split())) for picture in pictures]


def _check(file: Path) -> None:
    if not file.is_file():
        raise MissingFileError(f"no picture at {file}: its folder's metadata names it")
    try:
        with Image.open(file) as image:
            image.verify()
    except (OSError, SyntaxError) as error:
        raise UserError(f"{file} is no image that can be read: remove or replace it") from error
