"""Adaptors on the Hugging Face hub. Cache, login and offline mode are those of `huggingface_hub`."""

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from clockwork.errors import MissingFileError

FILES = ["config.json", "adaptor.safetensors", "README.md"]


def is_hub_name(text: str | Path) -> bool:
    """Whether a source has the form `user/name` and is not an existing folder.

    Args:
        text: A folder or a name.
    """
    return re.fullmatch(r"[\w.-]+/[\w.-]+", str(text)) is not None and not Path(text).exists()


def fetch(source: str | Path) -> Path:
    """Returns the local folder of an adaptor, which is downloaded to `huggingface_hub`'s cache if necessary.

    Args:
        source: A folder, or a name on the hub (`user/name`).

    Returns:
        The folder. A path that is not a hub name is returned without a check.

    Raises:
        MissingFileError: If the adaptor cannot be downloaded.
    """
    if not is_hub_name(source):
        return Path(source)
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
    missing = [file for file in FILES if not (Path(folder) / file).is_file()]
    if missing:
        raise MissingFileError(f"{folder} is incomplete: {', '.join(missing)} missing; save the adaptor again")
    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES, commit_message="Adaptor"))
