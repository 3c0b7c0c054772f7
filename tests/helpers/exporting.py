"""Exported pairs and the pipelines that they come from: both sample from the same noise."""

from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from helpers.shapes import CROSS, DOWN, UP, UP_CROSS
from numpy.typing import NDArray

from clockwork.exporting.runner import Runner
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.solvers import make_solver
from clockwork.teachers.random_weights import pipeline_around

STEPS = 8
GUIDANCE = 3.0
PROMPTS = ["a red circle", "a hat", "snow"]
SDXL: dict[str, Any] = {  # the arguments of `tiny_pipeline` for a Stable Diffusion XL pipeline
    "text_widths": (4, 8),
    "down_block_types": (DOWN, CROSS),
    "up_block_types": (UP_CROSS, UP),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 12,
}


def tiny_pipeline(text_widths: tuple[int, ...] = (12,), **config: Any) -> Any:
    """A pipeline with random weights whose UNet has few operations, because each takes time to export.

    Two widths of text encoders make a Stable Diffusion XL pipeline.
    """
    torch.manual_seed(0)
    values = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": (CROSS, DOWN),
        "up_block_types": (UP, UP_CROSS),
        "mid_block_type": None,
        "cross_attention_dim": 12,
        "attention_head_dim": 4,
    }
    unet = UNet2DConditionModel(**{**values, **config})
    text = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 12}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = {"block_out_channels": (4, 8), "norm_num_groups": 2, "mid_block_add_attention": False, **blocks}
    texts = [{"hidden_size": width, **text} for width in text_widths]
    pipe = pipeline_around(unet.eval().requires_grad_(False), texts, vae, vocabulary=1000)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_solver("dpm++", dict(pipe.scheduler.config))
    return pipe


def largest_difference(
    pipe: Any, runner: Runner, images: int, height: int, width: int, guidance: float = GUIDANCE
) -> float:
    """Samples the same images with the pipeline, and with the runner from an export of it."""
    noise = torch.randn(images, pipe.unet.config.in_channels, height, width, generator=torch.Generator().manual_seed(1))
    scale = pipe.vae_scale_factor
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    with torch.no_grad():
        prompts = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True, "device": "cpu"}
        encoded = dict(zip(names, pipe.encode_prompt(prompt=PROMPTS[:images], **prompts), strict=False))
        expected = pipe(
            **encoded,
            latents=noise,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            height=height * scale,
            width=width * scale,
            output_type="latent",
        ).images

    def batch(name: str) -> torch.Tensor:
        return torch.cat([encoded[f"negative_{name}"], encoded[name]]) if guidance > 1 else encoded[name]

    embeds, tracked = batch("prompt_embeds"), enabled_hook(pipe).prompts
    text_emb: Any = None if tracked is None else tracked.text_emb(embeds)
    conditions = {} if text_emb is None else {"text_emb": text_emb.numpy()}
    if "pooled_prompt_embeds" in encoded:  # SDXL's further conditions, as its paper (arXiv 2307.01952) defines them
        size = [height * scale, width * scale]
        conditions |= {"text_embeds": batch("pooled_prompt_embeds").numpy()}
        conditions |= {"time_ids": np.tile(np.array([*size, 0, 0, *size], np.float32), (len(embeds), 1))}
    latents: NDArray[Any] = runner(noise.numpy(), embeds.numpy(), **conditions)
    assert latents.dtype == np.float32 and latents.shape == expected.shape
    return float(np.abs(latents - expected.numpy()).max())
