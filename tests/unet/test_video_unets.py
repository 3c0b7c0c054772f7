"""What a pipeline adds to a video UNet's call, against its own `forward`: equality is exact."""

from typing import Any

import pytest
import torch
from helpers.unets import UNETS, noise
from torch import Tensor

from clockwork.unet.chain import Chain, Cut
from clockwork.unet.split import SplitUNet


def assert_equal_at_every_up_cut(unet: Any, call: dict[str, Any]) -> Tensor:
    plain: Tensor = unet(**call).sample
    chain = Chain.from_unet(unet)
    for up in range(1, len(chain.up) + 1):
        down = max(Cut(0, up).num_kept_skips(chain) - 1, 0)
        assert torch.equal(SplitUNet(unet, Cut(down, up))(**call), plain), (down, up)
    return plain


@pytest.mark.parametrize("kind", ["Stable Video Diffusion", "AnimateDiff", "text to video", "I2VGen-XL"])
def test_odd_sizes(kind: str) -> None:
    unet, call = UNETS[kind]()
    odd = {name: x[..., :15, :13] for name, x in call.items() if name in ("sample", "image_latents")}
    assert_equal_at_every_up_cut(unet, {**call, **odd})


@pytest.mark.parametrize("kind", ["AnimateDiff", "text to video"])
def test_freeu_and_numbers_as_timesteps(kind: str) -> None:
    unet, call = UNETS[kind]()
    before = unet(**call).sample
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    call |= {"timestep": 37}
    assert not torch.equal(assert_equal_at_every_up_cut(unet, call), before)


@pytest.mark.parametrize("kind", ["AnimateDiff", "text to video"])
@pytest.mark.parametrize("middle", [False, True])
def test_residuals(kind: str, middle: bool) -> None:
    """Those of a sparse ControlNet: either kind may come without the other."""
    unet, call = UNETS[kind]()
    before = unet(**call).sample
    split = SplitUNet(unet, Cut(len(Chain.from_unet(unet).down), 1))
    high = split.high_in(split.embed(**call))
    if middle:
        call |= {"mid_block_additional_residual": noise(*high.r_in.shape)}
    else:
        call |= {"down_block_additional_residuals": [noise(*skip.shape) for skip in high.skips]}
    assert not torch.equal(assert_equal_at_every_up_cut(unet, call), before)


def test_lora_is_scaled() -> None:
    from peft import LoraConfig

    unet, call = UNETS["AnimateDiff"]()
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v", "conv1"], init_lora_weights=False))
    before = unet(**call).sample
    assert not torch.equal(
        assert_equal_at_every_up_cut(unet, {**call, "cross_attention_kwargs": {"scale": 0.5}}), before
    )
    assert torch.equal(unet(**call).sample, before)


def test_image_prompts() -> None:
    """An IP-Adapter's image features are repeated for each frame inside the UNet."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    unet, call = UNETS["AnimateDiff"]()
    before = unet(**call).sample
    torch.manual_seed(2)
    processors = dict(unet.attn_processors)
    for name in processors:
        if "attn2" in name and "motion" not in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            processors[name] = IPAdapterAttnProcessor2_0(width, cross_attention_dim=12, scale=[0.8])
    unet.set_attn_processor(processors)
    projection = ImageProjection(image_embed_dim=10, cross_attention_dim=12, num_image_text_embeds=4)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    call |= {"added_cond_kwargs": {"image_embeds": [noise(2, 1, 10)]}}
    with torch.no_grad():
        assert not torch.equal(assert_equal_at_every_up_cut(unet, call), before)
