"""The inputs of one UNet call, embedded as the `forward` of diffusers' image UNets does before its first layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor

from clockwork.errors import UserError


@dataclass(frozen=True)
class EmbeddedInputs:
    """The inputs of one UNet call after embedding: what every layer of the chain reads.

    Attributes:
        sample: The input of `conv_in`, `batch × channels × height × width`.
        t_emb: The UNet's time embedding with class and added conditions, after its activation, `batch × width`.
        encoder_hidden_states: Text features for cross-attention, `batch × tokens × width`; with an image prompt
            (IP-Adapter) a tuple of them and the image's features.
        attention_kwargs: Further keyword arguments of attention: masks and `cross_attention_kwargs`.
        lora_scale: The `scale` of `cross_attention_kwargs`, which is applied to LoRA layers.
        controlnet_residuals: ControlNet's residuals, one per skip connection.
        controlnet_mid_residual: ControlNet's residual of the middle block.
        t2i_residuals: T2I-Adapter's residuals, one per down block and optionally one for the middle block.
        force_upsample_size: Whether upsamplers need the size of the next skip connection, because a side of the
            sample is not a multiple of the UNet's total downsampling factor.
        num_frames: Number of frames of a video, which are part of the batch in all features.
        image_only_indicator: Zeros, `videos × frames`, for layers that take their number of frames from it.
        output_divisor: What the output is divided by, `batch × 1 × 1 × 1`, in UNets that predict a score.
    """

    sample: Tensor
    t_emb: Tensor
    encoder_hidden_states: Any
    attention_kwargs: dict[str, Any]
    lora_scale: float = 1.0
    controlnet_residuals: tuple[Tensor, ...] = ()
    controlnet_mid_residual: Tensor | None = None
    t2i_residuals: tuple[Tensor, ...] = ()
    force_upsample_size: bool = False
    num_frames: int = 1
    image_only_indicator: Tensor | None = None
    output_divisor: Tensor | None = None


def embed_conditional(unet: UNet2DConditionModel, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds the arguments of a call of a `UNet2DConditionModel`.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied.

    Returns:
        The inputs of the UNet's layers.
    """
    sample, text = arguments["sample"], arguments["encoder_hidden_states"]
    forced_sizes = forces_upsample_size(unet, sample)
    if unet.config.center_input_sample:
        sample = 2 * sample - 1.0
    t_emb = _time_embedding(unet, sample, arguments)
    added = arguments["added_cond_kwargs"]
    aug_emb = unet.get_aug_embed(emb=t_emb, encoder_hidden_states=text, added_cond_kwargs=added)
    if unet.config.addition_embed_type == "image_hint":
        aug_emb, hint = aug_emb
        sample = torch.cat([sample, hint], dim=1)
    t_emb = t_emb if aug_emb is None else t_emb + aug_emb
    text = unet.process_encoder_hidden_states(encoder_hidden_states=text, added_cond_kwargs=added)
    attention, lora_scale = attention_kwargs(unet, arguments, sample.dtype)
    t_emb = t_emb if unet.time_embed_act is None else unet.time_embed_act(t_emb)
    return EmbeddedInputs(sample, t_emb, text, attention, lora_scale, *_residuals(arguments), forced_sizes)


def embed_unconditional(unet: UNet2DModel, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds the arguments of a call of a `UNet2DModel`, which reads no text.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied.

    Returns:
        The inputs of the UNet's layers.

    Raises:
        UserError: If the UNet is class-conditional and the call is not, or the other way.
    """
    sample, timesteps, labels = arguments["sample"], arguments["timestep"], arguments["class_labels"]
    if unet.config.center_input_sample:
        sample = 2 * sample - 1.0
    if not isinstance(timesteps, Tensor):
        timesteps = torch.tensor([timesteps], dtype=torch.long, device=sample.device)
    timesteps = timesteps.to(sample.device) if timesteps.dim() else timesteps[None].to(sample.device)
    timesteps = timesteps * torch.ones(len(sample), dtype=timesteps.dtype, device=timesteps.device)
    t_emb = unet.time_embedding(unet.time_proj(timesteps).to(unet.dtype))
    if (unet.class_embedding is None) != (labels is None):
        raise UserError(
            "this UNet knows no classes: leave out class_labels"
            if unet.class_embedding is None
            else "this UNet is class-conditional: pass class_labels"
        )
    if labels is not None:
        labels = unet.time_proj(labels) if unet.config.class_embed_type == "timestep" else labels
        t_emb = t_emb + unet.class_embedding(labels).to(unet.dtype)
    divisor = timesteps.reshape(-1, 1, 1, 1) if unet.config.time_embedding_type == "fourier" else None
    return EmbeddedInputs(sample, t_emb, None, {}, output_divisor=divisor)


def forces_upsample_size(unet: Any, sample: Tensor) -> bool:
    """Whether a side of the sample is not a multiple of the UNet's total downsampling factor.

    Args:
        unet: The UNet.
        sample: Its input, `… × height × width`.
    """
    return any(side % 2**unet.num_upsamplers for side in sample.shape[-2:])


def _time_embedding(unet: UNet2DConditionModel, sample: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """Embeds the timestep and the class labels, if any."""
    projected = unet.get_time_embed(sample=sample, timestep=arguments["timestep"])
    t_emb: Tensor = unet.time_embedding(projected, arguments["timestep_cond"])
    class_emb = unet.get_class_embed(sample=sample, class_labels=arguments["class_labels"])
    if class_emb is None:
        return t_emb
    return torch.cat([t_emb, class_emb], dim=-1) if unet.config.class_embeddings_concat else t_emb + class_emb


def attention_kwargs(unet: Any, arguments: Mapping[str, Any], dtype: torch.dtype) -> tuple[dict[str, Any], float]:
    """Builds the keyword arguments of attention, and takes LoRA's scale, which is not one of them, out of them.

    Args:
        unet: The UNet.
        arguments: The arguments of its call by name.
        dtype: Precision of the masks.

    Returns:
        The keyword arguments, and LoRA's scale.
    """
    extra = dict(arguments["cross_attention_kwargs"] or {})
    lora_scale = extra.pop("scale", 1.0)
    if extra.get("gligen") is not None:
        extra["gligen"] = {"objs": unet.position_net(**extra["gligen"])}
    attention = {
        "attention_mask": _attention_bias(arguments["attention_mask"], dtype),
        "encoder_attention_mask": _attention_bias(arguments.get("encoder_attention_mask"), dtype),
        "cross_attention_kwargs": extra if arguments["cross_attention_kwargs"] is not None else None,
    }
    return attention, lora_scale


def _residuals(arguments: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], Tensor | None, tuple[Tensor, ...]]:
    """Returns ControlNet's residuals of the skip connections and of the middle block, and T2I-Adapter's residuals."""
    controlnet, middle = arguments["down_block_additional_residuals"], arguments["mid_block_additional_residual"]
    t2i = arguments["down_intrablock_additional_residuals"]
    if t2i is None and middle is None and controlnet is not None:  # the argument's deprecated use for T2I-Adapter
        t2i, controlnet = controlnet, None
    if controlnet is None or middle is None:
        controlnet, middle = (), None
    return tuple(controlnet), middle, tuple(t2i or ())


def _attention_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turns a mask `batch × keys` (1: keep, 0: discard) into an attention bias `batch × 1 × keys`."""
    return None if mask is None else ((1 - mask.to(dtype)) * -10000.0).unsqueeze(1)
