"""Reading of the image to edit."""

from pathlib import Path

from torch import Tensor

from clockwork.data.image_files import read_image
from clockwork.data.image_io import squared
from clockwork.errors import UserError


def read_source_image(file: Path, side: int, resize: bool = True) -> Tensor:
    """Reads an image at the teacher's resolution.

    Args:
        file: The image file.
        side: Width and height in pixels.
        resize: Whether to crop an image of another size to its central square and resize it, with a printed notice.

    Returns:
        8-bit image, `3 × side × side`.

    Raises:
        UserError: If the file is not a readable image, or has another size and `resize` is False.
    """
    image = read_image(file)
    height, width = image.shape[-2:]
    if (height, width) == (side, side):
        return image
    if not resize:
        raise UserError(f"{file} has {width} × {height} pixels, not {side} × {side}: use resize=true")
    print(f"{file} has {width} × {height} pixels: its central square is resized to {side} × {side}")
    return squared(image, side)
