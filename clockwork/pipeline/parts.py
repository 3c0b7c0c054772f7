"""The parts of a pipeline that Clockwork works with: its UNet, text encoder and name."""

from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from diffusers.utils.torch_utils import is_compiled_module
from torch import nn

from clockwork.errors import UserError
from clockwork.io.fingerprint import weights_hash
from clockwork.unet.conditioning import HALVES
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


def branches_of_call(pipe: Any, t: Any, batch: int, apart: bool) -> tuple[str, ...] | None:
    """Names the branches of classifier-free guidance that a UNet call of a pipeline has, in the order of its batch.

    Args:
        pipe: The pipeline, in its call.
        t: The timestep that the UNet received.
        batch: The call's batch size.
        apart: Whether the UNet is called once per branch.

    Returns:
        The names, of `HALVES`; None if it is not known which branch the call is.
    """
    if apart:
        half = guider_half(pipe, t)
        return None if half is None else HALVES[half : half + 1]
    return HALVES if is_guided(pipe, batch) else HALVES[1:]


def is_guided(pipe: Any, batch: int) -> bool:
    """Whether a UNet call of a pipeline has both halves of classifier-free guidance, the unconditional first.

    Args:
        pipe: The pipeline.
        batch: The call's batch size.
    """
    return batch % 2 == 0 and bool(getattr(pipe, "do_classifier_free_guidance", False)) and num_branches(pipe) == 2


def guider_half(pipe: Any, t: Any) -> bool | None:
    """Tells which half of guidance the UNet's call is, where a guider of Modular Diffusers calls it once per half.

    Args:
        pipe: The pipeline, in its call.
        t: The timestep that the UNet received.

    Returns:
        True for the conditional half, False for the unconditional one; None if there is no guider, or one that also
        has other predictions than these two, or other code than the guider's loop calls the UNet.
    """
    guider = getattr(pipe, "guider", None)
    if guider is None or getattr(guider, "_input_predictions", None) != ["pred_cond", "pred_uncond"]:
        return None
    if getattr(guider, "_timestep", None) is not t:  # it is then not the step for which the guider was prepared
        return None
    return bool(guider.is_conditional)


def num_branches(pipe: Any) -> int:
    """Counts the examples of a UNet call per image: 1 without guidance, 2 with it, more with further kinds of it.

    Args:
        pipe: The pipeline, in its call. InstructPix2Pix guides by text and image; perturbed-attention guidance adds a
            branch of its own.
    """
    guided = bool(getattr(pipe, "do_classifier_free_guidance", False))
    by_image = guided and getattr(pipe, "image_guidance_scale", None) is not None
    return 1 + guided + by_image + bool(getattr(pipe, "do_perturbed_attention_guidance", False))
