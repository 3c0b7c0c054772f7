"""Models that ship with the package, by name.

They are defined in packages that the core does not import. `MODULES` maps each name to its module, which is imported
when the name is first used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clockwork.teachers.text_embedder import OpenCLIP

# Each module has an attribute `SHIPPED` of type `ShippedModels`.
MODULES = {"miniature": "clockwork.miniature.teacher", "miniature_sd": "clockwork.miniature.teacher"}
UNNAMED = "miniature"  # the text embedder of adaptors whose config, from an early version, does not name one


@dataclass(frozen=True)
class ShippedModels:
    """Teachers that share a text embedder.

    Attributes:
        teachers: Folders in diffusers' format, by name.
        text_embedder: The text embedder of these teachers, whose `alias` is its name.
    """

    teachers: Mapping[str, Path]
    text_embedder: "OpenCLIP"


def shipped_models(name: str) -> ShippedModels | None:
    """Finds shipped models.

    Args:
        name: Name of a teacher or a text embedder.

    Returns:
        The models that the name belongs to; None if nothing of that name ships with the package.
    """
    if name not in MODULES:
        return None
    models: ShippedModels = import_module(MODULES[name]).SHIPPED
    return models


def shipped_text_embedder(name: str | None) -> "OpenCLIP | None":
    """Finds a shipped text embedder.

    Args:
        name: Its alias; None for the text embedder of early versions.

    Returns:
        The text embedder; None if nothing of that name ships with the package.
    """
    models = shipped_models(name or UNNAMED)
    return None if models is None or models.text_embedder.alias != (name or UNNAMED) else models.text_embedder
