"""Loading a teacher: the shipped miniature, or any Stable Diffusion by hub name or folder."""

import os
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from clockwork.errors import MissingFileError, UserError
from clockwork.miniature import WEIGHTS
from clockwork.teachers.teacher import Pipeline, Teacher
from clockwork.teachers.text_embedder import OpenCLIP

MADE = Path("outputs/teachers")  # where training leaves them


def load_teacher(
    path: str,
    name: str | None = None,
    guidance: float = 7.5,
    resolution: int | None = None,
    openclip: str | None = None,
    openclip_tag: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    flow: bool = False,
    made_by: str | None = None,
) -> Teacher:
    """A teacher by name, of those shipped or made here (`outputs/teachers`), a folder in diffusers' format, or a name
    on the hub.

    `openclip` with its tag names the model of the adaptors' pooled text, `miniature` the small one; `auto` means a
    GPU in half precision where there is one, else the CPU in single precision. `flow`: the UNet predicts the
    velocity of a rectified flow. `made_by`: the command that makes this teacher, which is on no hub.
    """
    shipped, made = WEIGHTS / path, MADE / path
    source = next((folder for folder in (shipped, made) if (folder / "model_index.json").is_file()), Path(path))
    if device == "auto":  # each of several processes its own GPU
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"teacher.device={device} but there is no GPU here: say teacher.device=cpu or auto")
    small = shipped == source or openclip == "miniature"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" or small else "float16"
    if made_by is not None and not source.exists():
        raise MissingFileError(f"no teacher at {path}: make it with `{made_by}`, or say teacher.path=DIR")
    pooled = OpenCLIP.miniature() if small else None
    if openclip is not None and not small:
        pooled = OpenCLIP(openclip, openclip_tag)
    pipe = _pipeline(source if source.exists() else path, getattr(torch, dtype))
    return Teacher(name or Path(path).name, pipe.to(device), guidance, resolution, pooled, flow)


def _pipeline(source: Path | str, dtype: torch.dtype) -> Pipeline:
    index = _index(source)
    if not {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= index.keys():
        raise UserError(
            f"{source} is a {index.get('_class_name')}: a teacher needs a UNet, an autoencoder, a text encoder, its "
            "tokenizer and a scheduler, as StableDiffusionPipeline and StableDiffusionXLPipeline have"
        )
    try:
        if "text_encoder_2" in index:
            pipe = StableDiffusionXLPipeline.from_pretrained(source)
        else:
            pipe = StableDiffusionPipeline.from_pretrained(source, safety_checker=None, requires_safety_checker=False)
    except OSError as error:
        raise MissingFileError(f"{source} is no whole pipeline folder: {error}; {_download(source)}") from error
    pipe.set_progress_bar_config(disable=True)
    pipe.to(dtype)
    if "text_encoder_2" in index and pipe.vae.config.force_upcast:
        pipe.vae.to(torch.float32)  # SDXL's decoder overflows in half precision
    return pipe


def _index(source: Path | str) -> dict[str, Any]:
    """The folder's model_index.json, or the hub's."""
    if isinstance(source, Path) and not (source / "model_index.json").is_file():
        raise MissingFileError(
            f"{source} is no pipeline folder: it has no model_index.json; save one with save_pretrained"
        )
    try:
        return dict(DiffusionPipeline.load_config(source))
    except OSError as error:
        raise MissingFileError(f"no teacher at {source}: {_download(source)}") from error


def _download(source: Path | str) -> str:
    name = source if isinstance(source, str) and not source.startswith(("/", ".")) else "NAME"
    return f"download it with `hf download {name} --local-dir DIR` where there is a network and say teacher.path=DIR"
