"""Image files from elsewhere: which files of a folder are images, whether they are whole, and what they show."""

import os
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clockwork.errors import MissingFileError, UserError
from clockwork.io import distributed
from clockwork.io.foreign import check_not_pointer, one_line

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MAX_KINDS = 8  # of other files that are named in a message, the most frequent ones
_CAPTIONS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # and tables, which lie beside images
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # grey with 16 bits
_BROKEN = (  # what PIL raises of files that are damaged, too large, or of kinds that it does not convert
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)


def read_image(file: Path) -> Tensor:
    """Reads an image file as viewers show it.

    The image is turned as its EXIF orientation says, grey of 16 bits is scaled to 8, and what is transparent is shown
    on white. Of all other images the result is that of `diffusers.utils.load_image`.

    Args:
        file: A file in any format that PIL reads.

    Returns:
        8-bit RGB image, `3 × height × width`.

    Raises:
        UserError: The file is not an image that can be read.
    """
    try:
        with Image.open(file) as image:
            return to_tensor(_as_shown(image))
    except _BROKEN as error:
        raise _unreadable(file, error) from error


def check_image(file: Path) -> None:
    """Checks that a file is a whole image, without decoding it where its end shows that.

    Args:
        file: The file.

    Raises:
        UserError: The file is not an image that can be read.
    """
    try:
        with Image.open(file) as image:
            kind = image.format
            _check_mode(image)
            image.verify()
        if not _has_end(file, kind):
            with Image.open(file) as image:
                image.load()
    except _BROKEN as error:
        raise _unreadable(file, error) from error


def image_files(folder: Path) -> list[Path]:
    """Lists the image files in a folder and its subfolders, ordered by name, and prints what is left out, once.

    Hidden files and folders are left out, such as `.ipynb_checkpoints` and the `._…` files of macOS, and so are links
    to folders.

    Args:
        folder: The folder.

    Returns:
        The png, jpg and webp files.

    Raises:
        MissingFileError: There is no such folder.
        UserError: The folder has no images.
    """
    if not folder.is_dir():
        raise MissingFileError(f"no image folder at {folder}: pass a folder of png, jpg or webp files")
    files, left_out = _images_and_others(folder)
    kinds = left_out.most_common(MAX_KINDS)
    others = left_out.total() - sum(count for _, count in kinds)
    text = ", ".join([f"{count} {reason}" for reason, count in sorted(kinds)] + [f"{others} others"] * bool(others))
    if not files:
        raise UserError(f"{folder} holds no images{text and f' but {text}'}: pass a folder of png, jpg or webp files")
    if text:
        distributed.print_once(f"{folder}: {len(files)} images; left out: {text}")
    return sorted(files)


def _images_and_others(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Lists the images below a folder, and counts what else there is by its kind."""
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder):
        for name in list(folders):
            if name.startswith(".") or name == "__MACOSX":
                folders.remove(name)
                left_out[f"hidden folders {name}"] += 1
            elif (Path(parent) / name).is_symlink():
                left_out["links to folders"] += 1
        for name in names:
            file = Path(parent) / name
            if reason := _left_out(file):
                left_out[reason] += 1
            elif file.suffix.lower() in ENDINGS and not name.startswith("."):
                files.append(file)
    return files, left_out


def to_tensor(image: Image.Image) -> Tensor:
    """Converts an image of PIL.

    Args:
        image: An RGB image.

    Returns:
        8-bit image, `3 × height × width`.
    """
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _left_out(file: Path) -> str | None:
    """Why a file is not among the images of its folder; None for images, and for captions and the like."""
    if file.name.startswith("."):
        return "hidden files" if file.suffix.lower() in ENDINGS else None
    if not file.exists():
        return "links to nothing"
    is_known = file.suffix.lower() in (*ENDINGS, *_CAPTIONS) or not file.suffix
    return None if is_known else f"{file.suffix.lower()} files"


def _as_shown(image: Image.Image) -> Image.Image:
    """Converts an image to RGB, as viewers show it."""
    _check_mode(image)
    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE:
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() >= 2**16:
            raise ValueError("its values have more than 16 bits")
        image = Image.fromarray((levels >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _check_mode(image: Image.Image) -> None:
    """Refuses images whose colours PIL does not convert to RGB."""
    if image.mode in ("F", "LAB", "HSV"):
        raise ValueError(f"its colours are of PIL's mode {image.mode}, which has no certain 8-bit form")


def _has_end(file: Path, kind: str | None) -> bool:
    """Whether a file ends as its format wants, so that it is not cut off."""
    with file.open("rb") as stream:
        start = stream.read(12)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 2))
        end = stream.read(2)
    if kind == "WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size
    return kind == "PNG" or (kind == "JPEG" and end == b"\xff\xd9")  # all parts of a PNG have been verified


def _unreadable(file: Path, error: BaseException) -> UserError:
    """Returns the error for a file that cannot be read as an image."""
    if file.is_file():
        check_not_pointer(file)
    return UserError(f"{file} is not an image that can be read ({one_line(error)}): remove or replace it")
