"""Saving a pipeline as a teacher's folder."""

import json
from pathlib import Path
from typing import Any

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_folder


def save_pipeline(pipe: Any, folder: Path) -> None:
    """Saves a pipeline atomically in diffusers' format.

    Settings that the scheduler's config does not set are not saved. diffusers saves their defaults, and another solver
    would then use those instead of its own, for example PNDM's spacing of timesteps in DPM++.

    Args:
        pipe: A diffusers pipeline.
        folder: The folder. One that exists is replaced if it is empty or holds a pipeline.

    Raises:
        UserError: If something else is there.
    """
    check_replaceable(folder)
    with atomic_folder(folder) as partial:
        pipe.save_pretrained(partial)
        file = partial / "scheduler" / "scheduler_config.json"
        defaults = pipe.scheduler.config.get("_use_default_values", [])
        config = {key: value for key, value in json.loads(file.read_text()).items() if key not in defaults}
        file.write_text(json.dumps(config, indent=2) + "\n")


def check_replaceable(folder: Path) -> None:
    """Checks that saving a pipeline removes nothing but a pipeline.

    Args:
        folder: The folder to save it in.

    Raises:
        UserError: If there is a file, or a folder that is not empty and has no `model_index.json`.
    """
    if not folder.exists() or (folder / "model_index.json").is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not a pipeline's folder, so it is not replaced: choose another path")
