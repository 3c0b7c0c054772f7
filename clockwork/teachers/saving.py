"""Saving a pipeline as a teacher's folder."""

import json
from pathlib import Path
from typing import Any

from clockwork.io.atomic import atomic_folder


def save_pipeline(pipe: Any, folder: Path) -> None:
    """Saves a pipeline atomically in diffusers' format.

    Settings that the scheduler's config does not set are not saved. diffusers saves their defaults, and another solver
    would then use those instead of its own, for example PNDM's spacing of timesteps in DPM++.

    Args:
        pipe: A diffusers pipeline.
        folder: The folder. One that exists is replaced if it is empty or was saved by this function.

    Raises:
        UserError: If something else is there.
    """
    with atomic_folder(folder) as partial:
        pipe.save_pretrained(partial)
        file = partial / "scheduler" / "scheduler_config.json"
        defaults = pipe.scheduler.config.get("_use_default_values", [])
        config = {key: value for key, value in json.loads(file.read_text()).items() if key not in defaults}
        file.write_text(json.dumps(config, indent=2) + "\n")
