"""The inputs of one call of a video UNet, embedded as its `forward` does before its first layer.

The frames become part of the batch: features are `videos · frames × channels × height × width`, the time embedding and
the text features are repeated for each frame.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import I2VGenXLUNet, UNet3DConditionModel, UNetMotionModel, UNetSpatioTemporalConditionModel
from torch import Tensor

from clockwork.unet.inputs import EmbeddedInputs, attention_kwargs, forces_upsample_size


def embed_spatio_temporal(unet: UNetSpatioTemporalConditionModel, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds a call of Stable Video Diffusion's UNet.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied; the sample is `videos × frames ×
            channels × height × width`.

    Returns:
        The inputs of the UNet's layers.
    """
    sample = arguments["sample"]
    batch, num_frames = sample.shape[:2]
    t_emb = unet.time_embedding(unet.time_proj(_timesteps(arguments["timestep"], sample)).to(sample.dtype))
    time_ids = unet.add_time_proj(arguments["added_time_ids"].flatten()).reshape(batch, -1)
    t_emb = t_emb + unet.add_embedding(time_ids.to(t_emb.dtype))
    return EmbeddedInputs(
        sample.flatten(0, 1),
        _per_frame(t_emb, num_frames),
        _per_frame(arguments["encoder_hidden_states"], num_frames),
        {},
        force_upsample_size=forces_upsample_size(unet, sample),
        num_frames=num_frames,
        image_only_indicator=torch.zeros(batch, num_frames, dtype=sample.dtype, device=sample.device),
    )


def embed_motion(unet: UNetMotionModel, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds a call of AnimateDiff's UNet, whose text features the pipeline repeats for each frame.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied; the sample is `videos × channels ×
            frames × height × width`.

    Returns:
        The inputs of the UNet's layers.
    """
    num_frames, added = arguments["sample"].shape[2], arguments["added_cond_kwargs"]
    t_emb, text = _time_embedding(unet, arguments), arguments["encoder_hidden_states"]
    if unet.config.addition_embed_type == "text_time":
        time_ids = unet.add_time_proj(added["time_ids"].flatten()).reshape(len(added["text_embeds"]), -1)
        t_emb = t_emb + unet.add_embedding(torch.cat([added["text_embeds"], time_ids], dim=-1).to(t_emb.dtype))
    if unet.encoder_hid_proj is not None and unet.config.encoder_hid_dim_type == "ip_image_proj":
        text = text, [_per_frame(image, num_frames) for image in unet.encoder_hid_proj(added["image_embeds"])]
    attention, lora_scale = attention_kwargs(unet, arguments, arguments["sample"].dtype)
    return _with_frames(unet, arguments, t_emb, text, attention, lora_scale)


def embed_3d(unet: UNet3DConditionModel, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds a call of a text-to-video UNet.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied; the sample is `videos × channels ×
            frames × height × width`.

    Returns:
        The inputs of the UNet's layers.
    """
    text = _per_frame(arguments["encoder_hidden_states"], arguments["sample"].shape[2])
    attention = {"cross_attention_kwargs": arguments["cross_attention_kwargs"]}
    return _with_frames(unet, arguments, _time_embedding(unet, arguments), text, attention)


def embed_image_to_video(unet: I2VGenXLUNet, arguments: Mapping[str, Any]) -> EmbeddedInputs:
    """Embeds a call of I2VGen-XL's UNet.

    Args:
        unet: The UNet.
        arguments: All arguments of `unet.forward` by name, with defaults applied; the sample is `videos × channels ×
            frames × height × width`.

    Returns:
        The inputs of the UNet's layers.
    """
    sample, latents, fps = arguments["sample"], arguments["image_latents"], arguments["fps"]
    batch, channels, num_frames, height, width = sample.shape
    t_emb = _time_embedding(unet, arguments) + unet.fps_embedding(unet.time_proj(fps).to(unet.dtype))
    image = unet.context_embedding(arguments["image_embeddings"])
    image = image.view(-1, unet.config.in_channels, unet.config.cross_attention_dim)
    first_frame = unet.image_latents_context_embedding(_frames_to_batch(latents[:, :, :1]))
    text = torch.cat([arguments["encoder_hidden_states"], first_frame.flatten(2).transpose(1, 2), image], dim=1)
    latents = unet.image_latents_proj_in(_frames_to_batch(latents)).reshape(batch, num_frames, channels, height, width)
    latents = latents.permute(0, 3, 4, 1, 2).reshape(batch * height * width, num_frames, channels)
    latents = unet.image_latents_temporal_encoder(latents)
    latents = latents.reshape(batch, height, width, num_frames, channels).permute(0, 4, 3, 1, 2)
    attention = {"cross_attention_kwargs": arguments["cross_attention_kwargs"]}
    call = {**arguments, "sample": torch.cat([sample, latents], dim=1)}
    return _with_frames(unet, call, t_emb, _per_frame(text, num_frames), attention)


def _with_frames(
    unet: Any,
    arguments: Mapping[str, Any],
    t_emb: Tensor,
    text: Any,
    attention: dict[str, Any],
    lora_scale: float = 1.0,
) -> EmbeddedInputs:
    """Puts the frames of `videos × channels × frames × height × width` into the batch."""
    sample = arguments["sample"]
    return EmbeddedInputs(
        _frames_to_batch(sample),
        _per_frame(t_emb, sample.shape[2]),
        text,
        attention,
        lora_scale,
        tuple(arguments.get("down_block_additional_residuals") or ()),
        arguments.get("mid_block_additional_residual"),
        force_upsample_size=forces_upsample_size(unet, sample),
        num_frames=sample.shape[2],
    )


def _time_embedding(unet: Any, arguments: Mapping[str, Any]) -> Tensor:
    """Embeds the timestep, `videos × width`."""
    timesteps = _timesteps(arguments["timestep"], arguments["sample"])
    return unet.time_embedding(unet.time_proj(timesteps).to(unet.dtype), arguments["timestep_cond"])


def _timesteps(timestep: Any, sample: Tensor) -> Tensor:
    """Returns the timestep of each video."""
    if not isinstance(timestep, Tensor):
        single = sample.device.type in ("mps", "npu")  # which have no 64 bits
        floating, integer = (torch.float32, torch.int32) if single else (torch.float64, torch.int64)
        dtype = floating if isinstance(timestep, float) else integer
        timestep = torch.tensor([timestep], dtype=dtype, device=sample.device)
    elif timestep.dim() == 0:
        timestep = timestep[None].to(sample.device)
    return timestep.expand(len(sample))


def _per_frame(x: Tensor, num_frames: int) -> Tensor:
    """Repeats what is known per video for each of its frames."""
    return x.repeat_interleave(num_frames, dim=0, output_size=len(x) * num_frames)


def _frames_to_batch(x: Tensor) -> Tensor:
    """Puts the frames, the third axis, into the batch."""
    return x.transpose(1, 2).reshape(len(x) * x.shape[2], x.shape[1], *x.shape[3:])
