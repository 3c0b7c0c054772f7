"""Loading a teacher: the shipped miniature, or any Stable Diffusion by hub name or folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from clockwork.errors import MissingFileError, UserError
from clockwork.io.device import choose_device, choose_precision
from clockwork.miniature import WEIGHTS
from clockwork.teachers.folder_check import check_folder, check_text_width
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
    precision: str = "auto",
    flow: bool = False,
    made_by: str | None = None,
    cross_attention_dim: int | None = None,
) -> Teacher:
    """Loads a teacher.

    Args:
        path: A name of those shipped or trained here (`outputs/teachers`), a folder in diffusers' format, or a name on
            the hub. A path with a separator in it is never taken for a shipped one.
        name: What rows call it; the folder's name by default.
        guidance: The guidance scale where it is at its best.
        resolution: Pixels per side; the model's own by default.
        openclip: The OpenCLIP model whose pooled text adaptors read: open_clip's name, or `miniature` for the small
            one, which is the default for shipped teachers.
        openclip_tag: open_clip's name of that model's weights.
        device: `auto`, or a torch device (`clockwork.io.device.choose_device`).
        precision: `auto`, `float32`, `bfloat16` or `float16`; `auto` is float16 on a CUDA GPU, else float32.
        flow: Whether the UNet predicts the velocity of a rectified flow.
        made_by: The command that makes this teacher, for one that is on no hub.
        cross_attention_dim: Width of the text that the UNet reads, where another is to be refused: of another family.

    Raises:
        UserError: There is no such teacher, or it is not a whole Stable Diffusion, or the device is not there.
    """
    at = choose_device(device)
    dtype = choose_precision(precision, at)
    source = find_folder(path)
    if made_by is not None and source is None:
        raise MissingFileError(f"no teacher at {path}: make it with `{made_by}`, or pass teacher.path=<folder>")
    if openclip is None and source is not None and source.parent == WEIGHTS:
        openclip = "miniature"
    text_embedder = None
    if openclip is not None:
        small = openclip == "miniature"
        text_embedder = OpenCLIP.miniature(at, True) if small else OpenCLIP(openclip, openclip_tag, at, text_only=True)
    pipe = _pipeline(source or path, dtype, cross_attention_dim)
    return Teacher(name or Path(path).name, pipe.to(at), guidance, resolution, text_embedder, flow)


def find_folder(path: str) -> Path | None:
    """The folder of a teacher that is on this machine; None for a name on the hub."""
    if Path(path).name == path:  # a bare name, not a path
        for folder in (WEIGHTS / path, MADE / path):
            if (folder / "model_index.json").is_file():
                return folder
    return Path(path) if Path(path).exists() else None


def _pipeline(source: Path | str, dtype: torch.dtype, cross_attention_dim: int | None) -> Pipeline:
    index = _index(source)
    if not {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= index.keys():
        raise UserError(
            f"{source} is a {index.get('_class_name')}: a teacher needs a UNet, an autoencoder, a text encoder, its "
            "tokenizer and a scheduler, as StableDiffusionPipeline and StableDiffusionXLPipeline have"
        )
    if cross_attention_dim is not None:
        check_text_width(source, cross_attention_dim)
    if isinstance(source, Path):
        check_folder(source, index)
    xl = "text_encoder_2" in index
    # SDXL's decoder overflows in float16, and its config says so.
    kept = {"vae": torch.float32, "default": dtype} if xl and _upcasts(source) and dtype == torch.float16 else dtype
    try:
        if xl:
            pipe = StableDiffusionXLPipeline.from_pretrained(source, torch_dtype=kept)
        else:
            pipe = StableDiffusionPipeline.from_pretrained(
                source, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
            )
    except OSError as error:
        raise MissingFileError(f"{source} is not a whole pipeline folder: {error}; {_download(source)}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _upcasts(source: Path | str) -> bool:
    from diffusers import AutoencoderKL

    config: Any = AutoencoderKL.load_config(source, subfolder="vae")
    return bool(config.get("force_upcast", True))


def _index(source: Path | str) -> dict[str, Any]:
    """The folder's model_index.json, or the hub's."""
    if isinstance(source, Path) and not (source / "model_index.json").is_file():
        raise MissingFileError(
            f"{source} is not a pipeline folder: it has no model_index.json; save one with save_pretrained"
        )
    try:
        return dict(DiffusionPipeline.load_config(source))
    except OSError as error:
        raise MissingFileError(f"no teacher at {source}: {_download(source)}") from error


def _download(source: Path | str) -> str:
    name = source if isinstance(source, str) and not source.startswith(("/", ".")) else "NAME"
    return f"download it with `hf download {name} --local-dir DIR` where there is a network and pass teacher.path=DIR"
