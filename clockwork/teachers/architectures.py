"""Architectures of the published UNets: arguments of `UNet2DConditionModel` by name."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork.errors import UserError

_CROSS, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP = "CrossAttnUpBlock2D", "UpBlock2D"

# In these models, diffusers' `attention_head_dim` is the number of heads. All other defaults are SD v1.5's values.
_SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
_EFFICIENT: dict[str, Any] = {
    **_SD15,
    "down_block_types": (_DOWN, _CROSS, _CROSS, _DOWN),
    "up_block_types": (_UP, _UP_CROSS, _UP_CROSS, _UP),
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sd15": _SD15,
    # No transformer blocks at the highest resolution (paper, Section 5, after SnapFusion).
    "efficient": _EFFICIENT,
    # Guidance distillation (Meng et al. 2023) adds an embedding of the guidance scale, of width 256, to the time's.
    "distilled": {**_EFFICIENT, "time_cond_proj_dim": 256},
    # BK-SDM (arXiv 2305.15798). Base: one resnet less per block. Small: also no middle. Tiny: also no lowest level.
    "bk_sdm_base": {**_SD15, "layers_per_block": 1},
    "bk_sdm_small": {**_SD15, "layers_per_block": 1, "mid_block_type": None},
    "bk_sdm_tiny": {
        **_SD15,
        "layers_per_block": 1,
        "mid_block_type": None,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (_CROSS, _CROSS, _CROSS),
        "up_block_types": (_UP_CROSS, _UP_CROSS, _UP_CROSS),
    },
    "instaflow": _SD15,  # the architecture of SD v1.5, with other weights
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "sample_size": 96,
    },
    "sdxl": {
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (_DOWN, _CROSS, _CROSS),
        "up_block_types": (_UP_CROSS, _UP_CROSS, _UP),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def architecture(name: str) -> dict[str, Any]:
    """Returns the arguments of `UNet2DConditionModel` for a published UNet.

    Args:
        name: A key of `ARCHITECTURES`.

    Returns:
        A new dict.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"architecture {name!r} is not known: use one of {', '.join(ARCHITECTURES)}")
    return dict(ARCHITECTURES[name])


def meta_unet(name: str) -> UNet2DConditionModel:
    """Creates a published UNet on the `meta` device, without weights, to count parameters and FLOPs.

    Args:
        name: A key of `ARCHITECTURES`.

    Returns:
        The UNet in eval mode, without gradients.

    Raises:
        UserError: If the name is unknown.
    """
    with torch.device("meta"):
        return UNet2DConditionModel(**architecture(name)).eval().requires_grad_(False)
