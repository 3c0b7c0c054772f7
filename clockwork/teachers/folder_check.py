"""Checks of a pipeline folder from its configs and the headers of its weights, before any weights are loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import AutoConfig, CLIPTextModel, CLIPTextModelWithProjection

from clockwork.errors import MissingFileError, UserError
from clockwork.io.foreign import one_line, read_json, weight_shapes
from clockwork.io.paths import below
from clockwork.teachers.architectures import ARCHITECTURES

MODELS = {  # the class of each part of a pipeline, by the name of its folder
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
# Parts of the names of weights in older folders, and what replaces them today.
RENAMED = {
    "text_model.": "",
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def check_text_width(source: Path | str, expected: int) -> None:
    """Checks the width of the text features that a UNet reads, which differs between families of models.

    Args:
        source: A pipeline folder, or a name on the hub.
        expected: `cross_attention_dim` of the chosen teacher's config.

    Raises:
        UserError: If the width differs.
    """
    config: Any = UNet2DConditionModel.load_config(source, subfolder="unet")
    width = config["cross_attention_dim"]
    if width == expected:
        return
    matching = [name for name, arguments in ARCHITECTURES.items() if arguments["cross_attention_dim"] == width]
    remedy = f"pass teacher={matching[0]}" if matching else f"choose a teacher whose cross_attention_dim is {width}"
    raise UserError(
        f"the UNet of {source} reads text features of width {width}, but the chosen teacher has width {expected}: "
        f"{remedy}"
    )


def check_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Checks that a pipeline folder is complete and that its parts belong to one model.

    Args:
        folder: A folder in diffusers' format.
        index: Contents of its `model_index.json`.

    Raises:
        MissingFileError: If a part or its weights are missing.
        UserError: If a part is damaged, or belongs to another model than the others.
    """
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in index]
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    for name in ("unet", "vae", "scheduler", *encoders, *tokenizers):
        if not (folder / name).is_dir() or not any((folder / name).iterdir()):
            raise MissingFileError(f"{folder} is not a complete pipeline folder: it has no {name}; download it again")
    parts = {name: module_without_weights(folder, name) for name in ("unet", "vae", *encoders)}
    unet, channels = parts["unet"].config, parts["vae"].config.latent_channels
    if {unet.in_channels, unet.out_channels} != {channels}:
        raise UserError(
            f"the UNet of {folder} has {unet.in_channels} input and {unet.out_channels} output channels, but its "
            f"autoencoder has {channels}: use a folder of one text-to-image model"
        )
    width = sum(parts[name].config.hidden_size for name in encoders)
    if width != unet.cross_attention_dim:
        raise UserError(
            f"the text features of {folder} have width {width}, but its UNet reads width {unet.cross_attention_dim}: "
            "use a folder of one model"
        )
    for name, module in parts.items():
        _check_weights(folder / name, module)


def module_without_weights(folder: Path, name: str) -> Any:
    """Creates the module that a part's config describes, on the `meta` device.

    Args:
        folder: The pipeline folder.
        name: The part's name, such as `unet`.

    Raises:
        UserError: The config is missing or damaged, or is of another class.
    """
    cls: Any = MODELS[name]
    try:
        with torch.device("meta"):
            if name in ("unet", "vae"):
                return cls.from_config(cls.load_config(folder / name))
            return cls(AutoConfig.from_pretrained(folder / name))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder / name} has no valid config.json of a {cls.__name__} ({one_line(error)}): download it again"
        ) from error


def _check_weights(part: Path, module: nn.Module) -> None:
    """Compares the names and shapes in the headers of a part's safetensors files with those of the module."""
    files = sorted(part.glob("*.safetensors"))
    weight_files = [file for file in files if file.stem in ("model", "diffusion_pytorch_model")]
    shards = sorted(part.glob("*.safetensors.index.json"))
    if shards:
        names = read_json(shards[0]).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise UserError(f"{shards[0]} has no weight_map of file names: download the folder again")
        weight_files = [below(part, name, shards[0]) for name in sorted(set(names.values()))]
    if not weight_files:
        if any(part.glob("*.bin")):
            return  # a pickle, whose shapes are unknown before it is loaded
        present = ", ".join(file.name for file in files) or "none"
        raise MissingFileError(f"{part} has no weights under their usual name ({present}): download the folder again")
    shapes = {name: shape for file in weight_files for name, shape in _shapes(file).items()}
    expected = {_current_name(name): tuple(weight.shape) for name, weight in module.named_parameters()}
    for name, shape in expected.items():
        if name in shapes and shapes[name] != shape:
            raise UserError(
                f"the weights of {part} are of another model than its config.json: {name} has shape "
                f"{_shape_text(shapes[name])}, not {_shape_text(shape)}; download the folder again"
            )
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing or (extra and not part.name.startswith("text_encoder")):  # whose files may hold unused weights
        problem = f"{missing[0]} is missing" if missing else f"{extra[0]} does not belong to it"
        raise UserError(
            f"the weights of {part} are of another model than its config.json: {problem}; download the folder again"
        )


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of all weights from the header of a safetensors file."""
    if not file.is_file():
        raise MissingFileError(f"there is no {file}, which its index lists: download the folder again")
    return {_current_name(name): shape for name, shape in weight_shapes(file).items()}


def _current_name(name: str) -> str:
    """Replaces the parts of a weight's name that diffusers and transformers have renamed."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def _shape_text(shape: tuple[int, ...]) -> str:
    """Formats a shape, for example "320 × 4 × 3 × 3"."""
    return " × ".join(map(str, shape))
