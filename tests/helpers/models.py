"""Teachers with random weights around the small UNets of `shapes.py`."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from helpers.shapes import SHAPES
from torch import Tensor

from clockwork.teachers import Teacher
from clockwork.teachers.random_weights import pipeline_around


def small_unet(shape: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    config = {"norm_num_groups": 4, "cross_attention_dim": 12, "sample_size": 16, **SHAPES[shape]}
    return UNet2DConditionModel(**config).eval().requires_grad_(False)


def small_inputs(shape: str, size: tuple[int, int] = (16, 16), batch: int = 2) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=rng)

    inputs: dict[str, Any] = {
        "sample": noise(batch, 4, *size),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": noise(batch, 7, 12),
    }
    if shape == "sdxl":
        inputs["added_cond_kwargs"] = {"text_embeds": noise(batch, 12), "time_ids": noise(batch, 6)}
    if shape == "guided":
        inputs["timestep_cond"] = noise(batch, 16)
    return inputs


def small_teacher(shape: str, **options: Any) -> Teacher:
    """A whole pipeline with random weights around a small UNet: 16 × 16 latents, autoencoder included."""
    unet = small_unet(shape)
    text = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 12}
    widths = (4, 8) if shape == "sdxl" else (12,)  # SDXL's tokens are two encoders' side by side
    texts = [{"hidden_size": width, **text} for width in widths]
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = {"block_out_channels": (4, 8), "norm_num_groups": 2, "mid_block_add_attention": False, **blocks}
    pipe = pipeline_around(unet, texts, vae, vocabulary=1000)
    pipe.set_progress_bar_config(disable=True)
    return Teacher(f"small_{shape}", pipe, **options)
