"""Downloading a file once."""

from pathlib import Path

import torch

from clockwork.errors import MissingFileError


def download(url: str, file: Path, sha256: str, otherwise: str) -> None:
    """Downloads a file.

    Args:
        url: Where from.
        file: Where to; its folder is created if necessary.
        sha256: The first digits of its hash, or all; a file with another hash is not kept.
        otherwise: What to say if there is no network.

    Raises:
        MissingFileError: There is no network.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=sha256)
    except OSError as error:
        raise MissingFileError(otherwise) from error
