"""Loading a teacher: a shipped one, or any Stable Diffusion by hub name or folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from clockwork.errors import MissingFileError, UserError
from clockwork.io.device import choose_device, choose_precision
from clockwork.teachers.folder_check import check_folder, check_text_width
from clockwork.teachers.shipped import shipped_models, shipped_text_embedder
from clockwork.teachers.teacher import Pipeline, Teacher
from clockwork.teachers.text_embedder import OpenCLIP

TRAINED_TEACHERS = Path("outputs/teachers")  # where training leaves them


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
        openclip: The OpenCLIP model whose pooled text adaptors read: open_clip's name, or that of a shipped one
            (`teachers.shipped`). Shipped teachers have a default, others have none.
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
    text_embedder = _text_embedder(source, openclip, openclip_tag)
    if text_embedder is not None:
        text_embedder = replace(text_embedder, device=at, text_only=True)
    pipe = _pipeline(source or path, dtype, cross_attention_dim)
    return Teacher(name or Path(path).name, pipe.to(at), guidance, resolution, text_embedder, flow)


def find_folder(path: str) -> Path | None:
    """The folder of a teacher that is on this machine; None for a name on the hub."""
    if Path(path).name == path:  # a bare name, not a path
        shipped = shipped_models(path)
        for folder in (
            (TRAINED_TEACHERS / path,) if shipped is None else (shipped.teachers[path], TRAINED_TEACHERS / path)
        ):
            if (folder / "model_index.json").is_file():
                return folder
    return Path(path) if Path(path).exists() else None


def _text_embedder(source: Path | None, openclip: str | None, tag: str | None) -> OpenCLIP | None:
    """The model by its name; without a name that of a shipped teacher, by the teacher's folder."""
    if openclip is not None:
        return shipped_text_embedder(openclip) or OpenCLIP(openclip, tag)
    shipped = None if source is None else shipped_models(source.name)
    return shipped.text_embedder if shipped is not None and source in shipped.teachers.values() else None


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
