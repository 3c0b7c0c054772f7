"""The chain at real size with random weights: `make test-full`."""

from typing import Any

import pytest
import torch
from conftest import CROSS, DOWN, UP, UP_CROSS
from diffusers import UNet2DConditionModel

from clockwork.split import SplitUNet

REAL: dict[str, tuple[float, dict[str, Any]]] = {  # millions of parameters, as published
    "sd15": (859.52, dict(cross_attention_dim=768, attention_head_dim=8)),
    "sd21": (865.91, dict(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)),
    "bk_sdm_tiny": (
        323.38,
        dict(
            cross_attention_dim=768,
            attention_head_dim=8,
            layers_per_block=1,
            block_out_channels=(320, 640, 1280),
            down_block_types=(CROSS, CROSS, CROSS),
            up_block_types=(UP_CROSS, UP_CROSS, UP_CROSS),
            mid_block_type=None,
        ),
    ),
    "sdxl": (
        2567.46,
        dict(
            cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20),
            block_out_channels=(320, 640, 1280),
            down_block_types=(DOWN, CROSS, CROSS),
            up_block_types=(UP_CROSS, UP_CROSS, UP),
            transformer_layers_per_block=(1, 2, 10),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("name", REAL)
def test_full_pass_is_diffusers_at_real_size(name: str) -> None:
    millions, config = REAL[name]
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=32, **config).eval().requires_grad_(False)
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 2) == millions
    inputs: dict[str, Any] = {
        "sample": torch.randn(1, 4, 32, 32),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, config["cross_attention_dim"]),
    }
    if name == "sdxl":
        inputs["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
    plain = unet(**inputs).sample
    for cut in ("stage1", "stage1_upsampled", "stage2", "layer1", "layer2"):
        assert torch.equal(SplitUNet(unet, cut)(**inputs), plain), cut
