"""`load_teacher`: a shipped teacher, or any Stable Diffusion model by its folder or its name on the hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers import __version__ as diffusers_version

from clockwork.errors import MissingFileError, UserError, check_number, check_whole
from clockwork.io.device import choose_device, choose_precision
from clockwork.io.paths import folder_name
from clockwork.teachers.config_check import check_configs
from clockwork.teachers.folder_check import check_folder, check_text_width
from clockwork.teachers.shipped import shipped_models, shipped_text_embedder
from clockwork.teachers.teacher import Pipeline, Teacher
from clockwork.teachers.text_embedder import OpenCLIP

TRAINED_TEACHERS = Path("outputs/teachers")  # where training saves them


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
    compile: bool | Mapping[str, Any] = False,
) -> Teacher:
    """Loads a teacher.

    Args:
        path: Name of a shipped teacher or of one in `outputs/teachers`, a folder in diffusers' format, or a name on the
            hub. Only a name without a separator can be that of a shipped teacher.
        name: Name of the teacher in rows and reports; the folder's name by default.
        guidance: Default scale of classifier-free guidance.
        resolution: Side of the images in pixels; the one that the UNet was trained for by default.
        openclip: The OpenCLIP model whose text embedding adaptors read: open_clip's name, or that of a shipped model
            (`clockwork.teachers.shipped`). The default is the shipped teacher's model, and none for other teachers.
        openclip_tag: open_clip's name of that model's weights.
        device: `auto`, or a torch device (`clockwork.io.device.choose_device`).
        precision: `auto`, `float32`, `bfloat16` or `float16`; `auto` is float16 on a CUDA GPU, else float32.
        flow: Whether the UNet predicts the velocity of a rectified flow.
        made_by: The command that trains this teacher, for the message if there is no folder at `path`.
        cross_attention_dim: Expected width of the text features that the UNet reads; None accepts any width.
        compile: Whether roll-outs compile the UNet (`clockwork.sampling.compiled`), or arguments of `torch.compile`.
            Calibration runs uncompiled; editing, drift and perturbation refuse compiled steps.

    Returns:
        The teacher.

    Raises:
        MissingFileError: If there is no such teacher, or a part of it is missing.
        UserError: If it is not a Stable Diffusion model of the expected width, or the device is not available.
    """
    if not isinstance(path, str | Path) or not isinstance(name, str | None):
        raise UserError(f"path={path!r:.50} and name={name!r:.50} are no texts: pass a folder or a name on the hub")
    if not isinstance(device, str | torch.device) or not isinstance(compile, bool | Mapping):
        raise UserError(
            f"device={device!r:.50} or compile={compile!r:.50} is not possible: pass a text and a bool or dict"
        )
    check_number("guidance", guidance, 0)
    if resolution is not None:
        check_whole("resolution", resolution, 1, 2**14)
    torch_device = choose_device(device)
    path = str(path)
    dtype = choose_precision(precision, torch_device)
    source = find_folder(path)
    if made_by is not None and source is None:
        raise MissingFileError(f"no teacher at {path}: train it with `{made_by}`, or pass teacher.path=<folder>")
    text_embedder = _text_embedder(source, openclip, openclip_tag)
    if text_embedder is not None:
        text_embedder = replace(text_embedder, device=torch_device, text_only=True)
    index = _checked_index(source or path)
    check_configs(source or path, resolution, flow)
    pipe = _pipeline(source or path, index, dtype, cross_attention_dim)
    return Teacher(name or folder_name(path), pipe.to(torch_device), guidance, resolution, text_embedder, flow, compile)


def find_folder(path: str) -> Path | None:
    """Finds the local folder of a teacher.

    Args:
        path: Name of a teacher, a folder, or a name on the hub.

    Returns:
        The folder; None if there is none, so that `path` can only be a name on the hub.
    """
    if Path(path).name == path:  # a name without a separator
        shipped = shipped_models(path)
        for folder in (
            (TRAINED_TEACHERS / path,) if shipped is None else (shipped.teachers[path], TRAINED_TEACHERS / path)
        ):
            if (folder / "model_index.json").is_file():
                return folder
    return Path(path) if Path(path).exists() else None


def _text_embedder(source: Path | None, openclip: str | None, tag: str | None) -> OpenCLIP | None:
    """Returns the text embedder of the given name; without a name, that of a shipped teacher in folder `source`."""
    if openclip is not None:
        return shipped_text_embedder(openclip) or OpenCLIP(openclip, tag)
    shipped = None if source is None else shipped_models(source.name)
    return shipped.text_embedder if shipped is not None and source in shipped.teachers.values() else None


def _checked_index(source: Path | str) -> dict[str, Any]:
    """Returns the parts of a pipeline, which are those of a teacher."""
    index = _index(source)
    if not {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= index.keys():
        raise UserError(
            f"{source} is a {index.get('_class_name')}: a teacher needs a UNet, an autoencoder, a text encoder, its "
            "tokenizer and a scheduler: use a StableDiffusionPipeline or a StableDiffusionXLPipeline"
        )
    return index


def _pipeline(
    source: Path | str, index: dict[str, Any], dtype: torch.dtype, cross_attention_dim: int | None
) -> Pipeline:
    """Checks and loads the pipeline in a folder, or of a name on the hub."""
    if cross_attention_dim is not None:
        check_text_width(source, cross_attention_dim)
    if isinstance(source, Path):
        check_folder(source, index)
    is_xl = "text_encoder_2" in index
    dtypes: Any = dtype
    if is_xl and dtype == torch.float16 and _vae_overflows(source):
        dtypes = {"vae": torch.float32, "default": dtype}
    try:
        if is_xl:
            pipe = StableDiffusionXLPipeline.from_pretrained(source, **_dtype_argument(dtypes))
        else:
            pipe = StableDiffusionPipeline.from_pretrained(
                source, **_dtype_argument(dtypes), safety_checker=None, requires_safety_checker=False
            )
    except OSError as error:
        raise MissingFileError(
            f"{source} is not a complete pipeline folder: {error}; {_how_to_download(source)}"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _dtype_argument(dtype: Any) -> dict[str, Any]:
    """Returns the keyword argument of `from_pretrained` for the precision, which diffusers renamed in version 0.40."""
    major, minor = (int(number) for number in diffusers_version.split(".")[:2])
    return {"dtype" if (major, minor) >= (0, 40) else "torch_dtype": dtype}


def _vae_overflows(source: Path | str) -> bool:
    """Whether the autoencoder overflows in float16, according to its config (SDXL)."""
    from diffusers import AutoencoderKL

    config: Any = AutoencoderKL.load_config(source, subfolder="vae")
    return bool(config.get("force_upcast", True))


def _index(source: Path | str) -> dict[str, Any]:
    """Reads the `model_index.json` of a folder or of a name on the hub."""
    if isinstance(source, Path) and not (source / "model_index.json").is_file():
        raise MissingFileError(
            f"{source} is not a pipeline folder, because it has no model_index.json: save one with save_pretrained"
        )
    try:
        parts: dict[str, Any] = dict(DiffusionPipeline.load_config(source))
    except OSError as error:
        raise MissingFileError(f"no teacher at {source}: {_how_to_download(source)}") from error
    return {name: part for name, part in parts.items() if part not in ([None, None], (None, None))}  # SDXL's refiner


def _how_to_download(source: Path | str) -> str:
    """Tells how to download a pipeline, for error messages."""
    name = source if isinstance(source, str) and not source.startswith(("/", ".")) else "NAME"
    return f"run `hf download {name} --local-dir DIR` on a machine with a network, and pass teacher.path=DIR"
