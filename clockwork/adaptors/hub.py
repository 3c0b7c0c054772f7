"""Adaptors that travel: huggingface_hub's own calls, its cache and its login."""

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from clockwork.errors import MissingFileError

FILES = ["config.json", "adaptor.safetensors", "README.md"]


def is_hub_name(text: str | Path) -> bool:
    """`user/name`, and no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", str(text)) is not None and not Path(text).exists()


def fetch(source: str | Path) -> Path:
    """The adaptor's folder: itself, or the hub's copy in huggingface_hub's cache."""
    if not is_hub_name(source):
        return Path(source)
    try:
        return Path(snapshot_download(str(source), allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise MissingFileError(
            f"no adaptor {source}: there is no such folder, and the hub did not give it "
            f"({type(error).__name__}); where there is a network, run `hf download {source} --local-dir DIR` "
            "and name DIR"
        ) from error


def push_to_hub(folder: str | Path, name: str, private: bool = False) -> str:
    """Puts an adaptor's folder on the hub as `user/name`, its page made of its README.md; gives the commit's URL."""
    missing = [file for file in FILES if not (Path(folder) / file).is_file()]
    if missing:
        raise MissingFileError(f"{folder} is no whole adaptor folder: {', '.join(missing)} missing; save it anew")
    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES, commit_message="Adaptor"))
