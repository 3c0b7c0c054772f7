"""A teacher is used as its folder says, or refused in one sentence before weights are loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clockwork.errors import UserError
from clockwork.miniature import WEIGHTS
from clockwork.teachers import load_teacher

VAE, UNET, SCHEDULER, INDEX = (
    "vae/config.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
    "model_index.json",
)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "latents_mean": (VAE, {"latents_mean": [0.0] * 4}, "latents_mean"),
    "latents_std": (VAE, {"latents_std": [1.0] * 4}, "latents_std"),
    "shift_factor": (VAE, {"shift_factor": 0.1}, "shift_factor"),
    "EDM": (SCHEDULER, {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
    "EDM DPM++": (SCHEDULER, {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDMDPMSolver"),
    "flow": (SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatch"),
    "flow sigmas": (SCHEDULER, {"use_flow_sigmas": True}, "noise levels"),
    "sample_size as list": (UNET, {"sample_size": [16, 32]}, "sample_size"),
    "sample_size null": (UNET, {"sample_size": None}, "sample_size"),
    "9 channels": (UNET, {"in_channels": 9}, "9 input"),
    "8 channels": (UNET, {"in_channels": 8}, "8 input"),
    "refiner": (INDEX, {"text_encoder": [None, None], "tokenizer": [None, None]}, "a teacher needs"),
}


@pytest.mark.parametrize(("file", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused(file: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(WEIGHTS / "miniature", tmp_path / "teacher")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **values}))
    with pytest.raises(UserError, match=message):
        load_teacher(str(folder))
