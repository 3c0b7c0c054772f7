"""Reading of files that may come from elsewhere or be damaged: every mistake is one sentence with the file's name."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from clockwork.errors import UserError

LARGEST_JSON = 2**24  # bytes of a config file
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_FLOATS = {"F64", "F32", "F16", "BF16"}


def check_not_pointer(file: Path) -> None:
    """Checks that git-lfs has downloaded a file.

    Args:
        file: The file.

    Raises:
        UserError: It is a pointer to a file that has to be downloaded.
    """
    with file.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(f"{file} is a git-lfs pointer instead of the file itself: run `git lfs pull` in its folder")


def read_json(file: Path) -> dict[str, Any]:
    """Reads a small JSON file that holds an object. A byte order mark is allowed.

    Args:
        file: The file, of at most 16 MiB.

    Raises:
        UserError: It is not such a file.
    """
    check_not_pointer(file)
    if file.stat().st_size > LARGEST_JSON:
        raise UserError(f"{file} has more than {LARGEST_JSON >> 20} MiB, which is no config: replace it")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of too many digits
        raise UserError(f"{file} is not a complete JSON file ({one_line(error)}): download or make it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object but a {type(content).__name__}: download or make it again")
    return content


def one_line(error: BaseException) -> str:
    """Shortens an error message to one line.

    Args:
        error: The error.
    """
    return " ".join(str(error).split())[:200]


def weight_shapes(file: Path, floats_only: bool = False) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of all weights from the header of a safetensors file, which reads no weights.

    Args:
        file: The file.
        floats_only: Whether to refuse weights that are not floating-point numbers of 16 to 64 bits.

    Returns:
        The shapes by name.

    Raises:
        UserError: The file is damaged or not complete, or a weight is of another type.
    """
    check_not_pointer(file)
    with _naming_damaged(file), safe_open(file, "pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        types = {name: part.get_dtype() for name, part in slices.items()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    if floats_only and (other := next((name for name in types if types[name] not in _FLOATS), None)):
        raise UserError(f"{file} holds {other} as {types[other]}, not as floating-point numbers: make it again")
    return shapes


def read_weights(file: Path) -> dict[str, Tensor]:
    """Reads all weights of a safetensors file.

    Args:
        file: The file.

    Raises:
        UserError: The file is damaged, or a weight is not finite.
    """
    with _naming_damaged(file):
        weights = load_file(file)
    if wrong := next((name for name, weight in weights.items() if not torch.isfinite(weight).all()), None):
        raise UserError(f"{file} holds values of {wrong} that are not finite: make it again")
    return weights


@contextmanager
def _naming_damaged(file: Path) -> Iterator[None]:
    """Turns what reading a safetensors file raises into a sentence that names the file."""
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{file} is not a complete safetensors file ({one_line(error)}): download or make it again"
        ) from error
