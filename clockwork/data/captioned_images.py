"""Captioned pictures: what objectives that need images are trained on."""

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
from clockwork.miniature import scenes

FILE_COLUMNS = ("file_name", "file", "image", "path")  # where file names are looked for
TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class CaptionedImage(Prompt):
    """A file, or without one the miniature's scene of that number in a split."""

    source: Path | str


def pixels(images: Sequence[CaptionedImage], side: int) -> Tensor:
    """8 bits, `batch × 3 × side × side`: the middle square of each."""
    return torch.stack([squared(_read(image), side) for image in images])


def _read(image: CaptionedImage) -> Tensor:
    if isinstance(image.source, Path):
        return read_image(image.source)
    return torch.from_numpy(scenes.draw(scenes.scene(image.source, image.id))).permute(2, 0, 1)


def miniature(split: str, count: int) -> list[CaptionedImage]:
    """The miniature's scenes, drawn when they are read."""
    return [CaptionedImage(i, scenes.scene(split, i).caption, split) for i in range(count)]


def folder(path: str | Path, count: int | None = None, column: str | None = None) -> list[CaptionedImage]:
    """The pictures of a folder with their captions, from its `metadata.csv` (tsv, jsonl, parquet) with the columns
    file_name and caption, or from a text file beside each picture: `cat.jpg`, `cat.txt`.

    Every file is opened here, so that a broken one is named before training begins.
    """
    path = Path(path)
    pictures = image_files(path)
    table = next((path / name for name in TABLES if (path / name).is_file()), None)
    named = _beside(pictures) if table is None else _table(table, column)
    if count is not None and count > len(named):
        raise UserError(f"{path} holds {len(named)} captioned pictures, fewer than {count}: lower images.count")
    images = [CaptionedImage(i, text, file) for i, (file, text) in enumerate(named[:count])]
    for image in images:
        _check(Path(image.source))
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
