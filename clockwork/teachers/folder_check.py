"""Checks of a pipeline folder from its configs and the headers of its weights, before any weights are loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, CLIPTextModel, CLIPTextModelWithProjection

from clockwork.errors import MissingFileError, UserError
from clockwork.teachers.architectures import ARCHITECTURES

MODELS = {  # the classes that a teacher is made of, by their folder
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
# How older folders name weights: by the part of the name that differs.
RENAMED = {
    "text_model.": "",
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def check_text_width(source: Path | str, wanted: int) -> None:
    """Refuses a UNet that reads text of another width than a teacher's config says: one of another family.

    Args:
        source: A pipeline folder, or a name on the hub.
        wanted: `cross_attention_dim` of the config.
    """
    config: Any = UNet2DConditionModel.load_config(source, subfolder="unet")
    found = config["cross_attention_dim"]
    if found == wanted:
        return
    same = [name for name, shape in ARCHITECTURES.items() if shape["cross_attention_dim"] == found]
    use = f"pass teacher={same[0]}" if same else f"choose a teacher whose cross_attention_dim is {found}"
    raise UserError(
        f"the UNet of {source} reads text of width {found}, and the chosen teacher's of width {wanted}: {use}"
    )


def check_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuses a folder with a part missing, incomplete, or of another model than the others.

    Args:
        folder: In diffusers' format.
        index: Its `model_index.json`.
    """
    texts = [name for name in ("text_encoder", "text_encoder_2") if name in index]
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in texts]
    for name in ("unet", "vae", "scheduler", *texts, *tokenizers):
        if not (folder / name).is_dir() or not any((folder / name).iterdir()):
            raise MissingFileError(f"{folder} is not a whole pipeline folder: it has no {name}; download it again")
    parts = {name: _without_weights(folder, name) for name in ("unet", "vae", *texts)}
    unet, channels = parts["unet"].config, parts["vae"].config.latent_channels
    if {unet.in_channels, unet.out_channels} != {channels}:
        raise UserError(
            f"the UNet of {folder} takes {unet.in_channels} channels and gives {unet.out_channels}, its autoencoder "
            f"has {channels}: they are of different models, or not of a text-to-image one"
        )
    width = sum(parts[name].config.hidden_size for name in texts)
    if width != unet.cross_attention_dim:
        raise UserError(
            f"the text encoder of {folder} gives text of width {width}, and its UNet reads width "
            f"{unet.cross_attention_dim}: they are of different models"
        )
    for name, module in parts.items():
        _check_weights(folder / name, module)


def _without_weights(folder: Path, name: str) -> Any:
    """The module that a part's config describes, on the `meta` device."""
    cls: Any = MODELS[name]
    try:
        with torch.device("meta"):
            if name in ("unet", "vae"):
                return cls.from_config(cls.load_config(folder / name))
            return cls(AutoConfig.from_pretrained(folder / name))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / name} has no config.json of a {cls.__name__}: {_line(error)}") from error


def _check_weights(part: Path, module: nn.Module) -> None:
    """Compares the shapes in the headers of safetensors files with the module's."""
    files = sorted(part.glob("*.safetensors"))
    plain = [file for file in files if file.stem in ("model", "diffusion_pytorch_model")]
    shards = sorted(part.glob("*.safetensors.index.json"))
    if shards:
        names = set(json.loads(shards[0].read_text(encoding="utf-8"))["weight_map"].values())
        plain = [part / name for name in sorted(names)]
    if not plain:
        if any(part.glob("*.bin")):
            return  # a pickle: its shapes are not known before it is loaded
        found = ", ".join(file.name for file in files) or "none"
        raise MissingFileError(f"{part} has no weights under their usual name ({found}): download the folder again")
    shapes = {name: shape for file in plain for name, shape in _shapes(file).items()}
    wanted = {_renamed(name): tuple(weight.shape) for name, weight in module.named_parameters()}
    for name, shape in wanted.items():
        if name in shapes and shapes[name] != shape:
            raise UserError(
                f"the weights of {part} are of another model than its config.json: {name} is {_times(shapes[name])}, "
                f"not {_times(shape)}"
            )
    missing, extra = sorted(wanted.keys() - shapes.keys()), sorted(shapes.keys() - wanted.keys())
    if missing or (extra and not part.name.startswith("text_encoder")):  # whose files may hold what it has no use for
        found = f"{missing[0]} is missing" if missing else f"there is no {extra[0]} in it"
        raise UserError(f"the weights of {part} are of another model than its config.json: {found}")


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if not file.is_file():
        raise MissingFileError(f"there is no {file}, which its index names: download the folder again")
    try:
        with safe_open(file, "pt") as weights:
            return {_renamed(name): tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file} is not a whole safetensors file ({_line(error)}): download it again") from error


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
