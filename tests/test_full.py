"""The chain at real size with random weights: `make test-full`."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from clockwork.split import SplitUNet
from clockwork.teachers.architectures import architecture


@pytest.mark.full
@pytest.mark.parametrize("name", ["sd15", "efficient", "distilled", "bk_sdm_base", "bk_sdm_tiny", "sd21", "sdxl"])
def test_full_pass_is_diffusers_at_real_size(name: str) -> None:
    config = architecture(name)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**config).eval().requires_grad_(False)
    inputs: dict[str, Any] = {
        "sample": torch.randn(1, 4, 32, 32),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, config["cross_attention_dim"]),
    }
    if name == "sdxl":
        inputs["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
    if name == "distilled":
        inputs["timestep_cond"] = torch.randn(1, config["time_cond_proj_dim"])
    plain = unet(**inputs).sample
    for cut in ("stage1", "stage1_upsampled", "stage2", "layer1", "layer2"):
        assert torch.equal(SplitUNet(unet, cut)(**inputs), plain), cut
