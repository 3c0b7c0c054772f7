"""Where the configs are, and which of them have a key."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

_INSTALLED = Path(__file__).parents[1] / "configs"  # a wheel has them in the package
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "configs"


def key_of_others(key: str) -> str | None:
    """Returns the message about a key that only other configs of its group have, such as `prompts.path`.

    Args:
        key: The dotted key, which the composed config does not have.

    Returns:
        Which configs have it; None if none has.
    """
    group, _, name = key.partition(".")
    names = [f"{group}={file.stem}" for file in sorted((FOLDER / group).glob("*.yaml")) if name in _keys(file)]
    return f"{key} is a key of {' or '.join(names)}: pass {names[0]}, too" if names else None


def _keys(file: Path) -> set[Any]:
    """Returns the keys of a config file, without those of its defaults."""
    content = OmegaConf.to_container(OmegaConf.load(file))
    return set(content) if isinstance(content, dict) else set()
