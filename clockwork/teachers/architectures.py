"""The published UNets by name, at their real size, as arguments of `UNet2DConditionModel`."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork.errors import UserError

_CROSS, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP = "CrossAttnUpBlock2D", "UpBlock2D"

# diffusers calls the number of heads `attention_head_dim`; everything else defaults to SD v1.5's values.
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
    # Guidance distillation (Meng et al.) embeds the guidance scale in 256 numbers beside the timestep.
    "distilled": {**_EFFICIENT, "time_cond_proj_dim": 256},
    # BK-SDM (arXiv 2305.15798): a resnet less in each block; then no middle; then no lowest level either.
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
    "instaflow": _SD15,  # other weights, the same shape
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
    """The arguments of `UNet2DConditionModel` for a published UNet, as a new dict.

    Raises:
        UserError: The name is not a key of `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"architecture {name!r} is not known: use one of {', '.join(ARCHITECTURES)}")
    return dict(ARCHITECTURES[name])


def meta_unet(name: str) -> UNet2DConditionModel:
    """Builds a published UNet on the `meta` device, without weights, to count parameters and FLOPs."""
    with torch.device("meta"):
        return UNet2DConditionModel(**architecture(name)).eval().requires_grad_(False)
