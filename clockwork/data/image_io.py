"""Pictures in and out of files, and side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from clockwork.errors import MissingFileError, UserError
from clockwork.io.atomic import atomic_write


def read_image(file: Path) -> Tensor:
    """8 bits, `3 × height × width`."""
    try:
        with Image.open(file) as image:
            return _tensor(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # PIL calls a broken PNG the latter
        raise UserError(f"{file} is no image that can be read: remove or replace it") from error


def image_files(folder: Path) -> list[Path]:
    """A folder's pictures by name, those in folders below it too."""
    if not folder.is_dir():
        raise MissingFileError(f"no image folder at {folder}: give one of png, jpg or webp files")
    found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not found:
        raise UserError(f"{folder} holds no pictures: give a folder of png, jpg or webp files")
    return found


def images_at_once(side: int, most: int) -> int:
    """How many images of `side` pixels a network takes at once: `most`, or fewer where they are large, as many pixels
    as 8 images of 512 × 512. Bounds memory at every resolution."""
    return max(1, min(most, 8 * 512**2 // side**2))


def squared(image: Tensor, side: int) -> Tensor:
    """8 bits, `3 × side × side`: the middle square, resized bicubically as PIL does."""
    short = min(image.shape[-2:])
    top, left = ((n - short) // 2 for n in image.shape[-2:])
    middle = image[:, top : top + short, left : left + short]
    return middle if short == side else _tensor(_pil(middle).resize((side, side), Image.Resampling.BICUBIC))


def write_image(file: Path, image: Tensor) -> None:
    """A PNG, whole or not at all."""
    with atomic_write(file) as partial:
        _pil(image).save(partial, format="PNG")


def write_grid(file: Path, rows: dict[str, Tensor], side: int = 96, columns: Sequence[str] = ()) -> None:
    """One row of pictures a label, each `count × 3 × height × width`, drawn `side` pixels wide or larger; `columns`
    are headings."""
    count = max(len(images) for images in rows.values())
    height, width = next(iter(rows.values())).shape[-2:]
    scale = max(1, round(side / width))
    margin, gap = 12 + 7 * max(len(label) for label in rows), 4
    cell, top = (width * scale + gap, height * scale + gap), 16 if columns else 0
    sheet = Image.new("RGB", (margin + count * cell[0], top + len(rows) * cell[1]), "white")
    text = ImageDraw.Draw(sheet)
    for c, label in enumerate(columns):
        text.text((margin + c * cell[0], 2), label, fill="black")
    for r, (label, images) in enumerate(rows.items()):
        text.text((6, top + r * cell[1] + cell[1] // 2 - 6), label, fill="black")
        for c, image in enumerate(images):
            picture = _pil(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (margin + c * cell[0], top + r * cell[1] + gap // 2))
    with atomic_write(file) as partial:
        sheet.save(partial, format="PNG")


def read_images(files: Sequence[Path]) -> Tensor:
    """`count × 3 × height × width`; all of one size."""
    return torch.stack([read_image(file) for file in files])


def _pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
