"""Resizing and writing of 8-bit images, batches and grids of images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from clockwork.data.image_files import read_image, to_tensor
from clockwork.io.atomic import atomic_write
from clockwork.io.outputs import MARKS
from clockwork.io.paths import check_file


def images_at_once(side: int, most: int) -> int:
    """Chooses a batch size that bounds memory at every resolution: at most the pixels of 8 images of 512 × 512.

    Args:
        side: Width and height of the images in pixels.
        most: Largest batch size.

    Returns:
        The batch size, at least 1.
    """
    return max(1, min(most, 8 * 512**2 // side**2))


def squared(image: Tensor, side: int) -> Tensor:
    """Crops an image to its central square and resizes it with PIL's bicubic filter.

    Args:
        image: 8-bit image, `3 × height × width`.
        side: Width and height of the result in pixels.

    Returns:
        8-bit image, `3 × side × side`. A square of that size is not resized.
    """
    short = min(image.shape[-2:])
    top, left = ((n - short) // 2 for n in image.shape[-2:])
    middle = image[:, top : top + short, left : left + short]
    return middle if short == side else to_tensor(_pil(middle).resize((side, side), Image.Resampling.BICUBIC))


def write_image(file: Path, image: Tensor) -> None:
    """Writes a PNG file atomically.

    Args:
        file: The file to write.
        image: 8-bit image, `3 × height × width`.
    """
    _save(file, _pil(image))


def write_grid(file: Path, rows: dict[str, Tensor], side: int = 96, columns: Sequence[str] = ()) -> None:
    """Writes a PNG file with one labelled row of images per entry.

    Args:
        file: The file to write.
        rows: 8-bit images by label, `count × 3 × height × width` each; all have the same height and width.
        side: Smaller images are enlarged by a whole factor to about this width, in pixels.
        columns: Headings of the columns.

    Raises:
        UserError: A file of something else is there.
    """
    check_image_file(file)
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
            enlarged = _pil(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (margin + c * cell[0], top + r * cell[1] + gap // 2))
    _save(file, sheet)


def check_image_file(file: Path) -> None:
    """Checks that writing an image replaces no file but an image that Clockwork has written.

    Args:
        file: The file to write.

    Raises:
        UserError: Something else is there.
    """
    check_file(file, _SOFTWARE)


_SOFTWARE = MARKS[".png"]


def _save(file: Path, image: Image.Image) -> None:
    """Writes a PNG file that names this package, atomically."""
    about = PngInfo()
    name, value = _SOFTWARE.split("\0")
    about.add_text(name, value)
    with atomic_write(file) as partial:
        image.save(partial, format="PNG", pnginfo=about)


def read_images(files: Sequence[Path]) -> Tensor:
    """Reads image files of equal size.

    Args:
        files: The files.

    Returns:
        8-bit RGB images, `count × 3 × height × width`.

    Raises:
        UserError: A file is not an image that can be read.
    """
    return torch.stack([read_image(file) for file in files])


def _pil(image: Tensor) -> Image.Image:
    """Converts an 8-bit tensor, `3 × height × width`, to a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())
