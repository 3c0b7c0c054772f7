"""Loading a teacher: the shipped miniature, or any Stable Diffusion by hub name or folder."""

import os
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from clockwork.miniature import WEIGHTS
from clockwork.openclip import OpenCLIP
from clockwork.teachers.teacher import Teacher


def load_teacher(
    path: str,
    name: str | None = None,
    guidance: float = 7.5,
    resolution: int | None = None,
    openclip: str | None = None,
    openclip_tag: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Teacher:
    """A teacher from `miniature`, `miniature_sd`, a folder in diffusers' format, or a name on the hub.

    `openclip` with its tag names the model of the adaptors' pooled text; `auto` means a GPU in half precision
    where there is one, else the CPU in single precision.
    """
    shipped = WEIGHTS / path
    source = shipped if (shipped / "model_index.json").is_file() else Path(path)
    if device == "auto":  # each of several processes its own GPU
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(f"teacher.device={device} but there is no GPU here: say teacher.device=cpu or auto")
    if dtype == "auto":
        dtype = "float32" if device == "cpu" or shipped == source else "float16"
    pooled = OpenCLIP.miniature() if shipped == source else None
    if openclip is not None:
        pooled = OpenCLIP(openclip, openclip_tag)
    pipe = _pipeline(source if source.exists() else path, getattr(torch, dtype))
    return Teacher(name or Path(path).name, pipe.to(device), guidance, resolution, pooled)


def _pipeline(source: Path | str, dtype: torch.dtype) -> StableDiffusionPipeline:
    if isinstance(source, Path) and not (source / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{source} is no pipeline folder: it has no model_index.json; save one with save_pretrained"
        )
    try:
        pipe = StableDiffusionPipeline.from_pretrained(source, safety_checker=None, requires_safety_checker=False)
    except OSError as error:
        raise FileNotFoundError(
            f"no teacher at {source}: download it with `hf download {source} --local-dir DIR` where there is a network "
            "and say teacher.path=DIR"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(dtype)
