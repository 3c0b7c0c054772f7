"""Encoding prompts, sizes and guidance scales for the UNet of a diffusers pipeline."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clockwork.unet.conditioning import Condition


@torch.no_grad()
def encode_prompts(pipe: Any, prompts: list[str], resolution: int) -> Condition:
    """Encodes prompts with a pipeline's text encoders.

    Args:
        pipe: A `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.
        prompts: The prompts, one per example.
        resolution: Side of the images in pixels, which SDXL is conditioned on.

    Returns:
        The prompts' conditions in the UNet's precision, without `text_emb`.
    """
    device, dtype = pipe.unet.device, pipe.unet.dtype
    prompt_embeds, _, *pooled = pipe.encode_prompt(
        prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    unet_kwargs = {}
    if pooled:  # SDXL: the second encoder's pooled text; original size, top left corner and target size
        sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]], device=device, dtype=dtype)
        added = {"text_embeds": pooled[0].to(dtype), "time_ids": sizes.expand(len(prompts), -1)}
        unet_kwargs = {"added_cond_kwargs": added}
    return Condition(prompt_embeds.to(dtype), unet_kwargs=unet_kwargs)


def with_zero_text(condition: Condition) -> Condition:
    """Returns a condition of SDXL with its text features replaced by zeros.

    Args:
        condition: The condition; its sizes and `text_emb` are kept.
    """
    added = condition.unet_kwargs["added_cond_kwargs"]
    zeros = {"added_cond_kwargs": {**added, "text_embeds": torch.zeros_like(added["text_embeds"])}}
    return replace(condition, prompt_embeds=torch.zeros_like(condition.prompt_embeds), unet_kwargs=zeros)


def with_guidance_scale(pipe: Any, condition: Condition, guidance: float | Tensor) -> Condition:
    """Adds the embedding of the guidance scale, for a UNet that is conditioned on it (Meng et al. 2023).

    Args:
        pipe: The UNet's pipeline.
        condition: The prompts' conditions.
        guidance: One scale, or one per prompt.

    Returns:
        The conditions with the UNet's argument `timestep_cond`.
    """
    device, width = pipe.unet.device, pipe.unet.config.time_cond_proj_dim
    scale = torch.as_tensor(guidance, dtype=torch.float32, device=device).expand(len(condition))
    with device:  # diffusers creates the embedding's frequencies on the default device
        embedding = pipe.get_guidance_scale_embedding(scale - 1, width).to(pipe.unet.dtype)
    return replace(condition, unet_kwargs={**condition.unet_kwargs, "timestep_cond": embedding})


def num_truncated(tokenizer: Any, captions: Sequence[str]) -> int:
    """Counts the captions that are truncated because they have too many tokens.

    Args:
        tokenizer: The text encoder's tokenizer.
        captions: The captions.

    Returns:
        How many captions have more tokens than the text encoder reads, start and end tokens included.
    """
    if not captions:
        return 0
    ids = tokenizer(list(captions), padding=False, truncation=False, verbose=False)["input_ids"]
    return sum(len(caption_ids) > tokenizer.model_max_length for caption_ids in ids)
