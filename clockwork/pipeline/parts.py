"""The parts of a pipeline that Clockwork works with: its UNet, text encoder and name."""

from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from diffusers.utils.torch_utils import is_compiled_module
from torch import nn

from clockwork.errors import UserError
from clockwork.io.fingerprint import weights_hash
from clockwork.unet.models import unet_kind


def get_unet(pipe: Any) -> ModelMixin:
    """Returns the pipeline's UNet, unwrapped if it was compiled with `torch.compile`.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UserError: If the pipeline has no UNet, or one of a class that cannot be split.
    """
    unet = _unwrap_compiled(getattr(pipe, "unet", None))
    if unet is None:
        raise UserError(
            f"{type(pipe).__name__} has no UNet: use a pipeline with a UNet, such as StableDiffusionPipeline"
        )
    try:
        unet_kind(unet)
    except UserError as error:
        raise UserError(f"{type(pipe).__name__} is not supported: {error}") from None
    return unet


def _unwrap_compiled(module: Any) -> Any:
    """Returns the module that `torch.compile` wrapped, or the module itself."""
    return module._orig_mod if is_compiled_module(module) else module


def text_encoder(pipe: Any) -> tuple[nn.Module | None, Any]:
    """Returns the pipeline's first text encoder and its tokenizer. SDXL's refiner has only `text_encoder_2`.

    Args:
        pipe: A diffusers pipeline.

    Returns:
        The text encoder and its tokenizer; None for both if there is no text encoder.
    """
    for suffix in ("", "_2"):
        encoder = _unwrap_compiled(getattr(pipe, f"text_encoder{suffix}", None))
        if encoder is not None:
            return encoder, getattr(pipe, f"tokenizer{suffix}")
    return None, None


def pipeline_name(pipe: Any) -> str:
    """Returns the pipeline's name on the hub, or its folder's name without the path, which may be private.

    Args:
        pipe: A diffusers pipeline. One that was loaded from a single file has no name but that of its class.
    """
    source = str(getattr(pipe, "name_or_path", None) or "")
    return (Path(source).name if Path(source).is_dir() else source) or type(pipe).__name__


def unet_fingerprint(unet: ModelMixin) -> str:
    """Returns the fingerprint of a UNet's weights.

    Args:
        unet: The UNet.

    Raises:
        UserError: If the weights are offloaded.
    """
    if any(weight.is_meta for weight in unet.parameters()):
        raise UserError(
            "the UNet's weights are offloaded, so an adaptor cannot be checked against them: "
            "enable or calibrate Clockwork before enable_sequential_cpu_offload"
        )
    return weights_hash(unet)
