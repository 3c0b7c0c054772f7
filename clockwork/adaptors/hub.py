"""Adaptors on the Hugging Face hub. Cache, login and offline mode are those of `huggingface_hub`."""

import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from clockwork.errors import MissingFileError, UserError

FILES = ["config.json", "adaptor.safetensors", "README.md"]

_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a repository on the hub


def is_hub_name(text: str | Path) -> bool:
    """Whether a source has the form `user/name` and is not an existing folder.

    Args:
        text: A folder or a name.
    """
    return _NAME.fullmatch(str(text)) is not None and not _exists(text)


def _exists(path: str | Path) -> bool:
    """Tells whether there is something at a path, which may be too long for one."""
    with suppress(OSError):
        return Path(path).exists()
    return False


def fetch(source: str | Path) -> Path:
    """Returns the local folder of an adaptor, which is downloaded to `huggingface_hub`'s cache if necessary.

    Args:
        source: A folder, or a name on the hub (`user/name`).

    Returns:
        The folder. A path that is not a hub name is returned without a check.

    Raises:
        MissingFileError: If the adaptor cannot be downloaded.
    """
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise UserError(f"{source!r} is no adaptor's folder: pass a path, or a name on the hub such as user/name")
    if not is_hub_name(source):
        with suppress(OSError):  # of a name that is too long
            Path(source).exists()
            return Path(source)
        raise MissingFileError(f"no adaptor at {str(source)[:50]}…: pass the path of a folder")
    try:
        return Path(snapshot_download(str(source), allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise MissingFileError(
            f"no adaptor {source}: there is no such folder, and it cannot be downloaded from the hub "
            f"({type(error).__name__}); run `hf download {source} --local-dir DIR` on a machine with a network, "
            "and pass DIR"
        ) from error


def push_to_hub(folder: str | Path, name: str, private: bool = False) -> str:
    """Uploads an adaptor's folder to the hub. Its README.md becomes the model's page.

    Args:
        folder: A folder that `save_adaptor` wrote.
        name: Name of the repository, `user/name`, which is created if it does not exist.
        private: Whether a new repository is private.

    Returns:
        URL of the commit.

    Raises:
        MissingFileError: If a file of the folder is missing.
    """
    if not isinstance(folder, (str, Path)) or not _NAME.fullmatch(str(name)):
        raise UserError(f"{name!r} of {folder!r} is not possible: pass the adaptor's folder, and a name as user/name")
    missing = [file for file in FILES if not (Path(folder) / file).is_file()]
    if missing:
        raise MissingFileError(f"{folder} is incomplete: {', '.join(missing)} missing; save the adaptor again")
    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES, commit_message="Adaptor"))
