"""The chain is diffusers' own forward pass, cut anywhere: equality is exact, not approximate."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers.models import small_inputs, small_unet
from torch import Tensor

from clockwork.unet.chain import Chain, Cut
from clockwork.unet.split import SplitUNet

# One of each arrangement of blocks: SD v2.1 and UNets with a guidance input have those of SD v1.5.
ARRANGEMENTS = pytest.mark.parametrize("shape", ["sd15", "efficient", "sdxl", "bk_sdm_tiny"])


def every_cut(unet: UNet2DConditionModel) -> list[Cut]:
    chain = Chain.from_unet(unet)
    cuts = [Cut(d, u) for d in range(len(chain.down) + 1) for u in range(1, len(chain.up) + 1)]
    return [cut for cut in cuts if cut.num_kept_skips(chain) <= cut.down + 1]


def residuals(unet: UNet2DConditionModel, inputs: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
    """ControlNet's: one of each skip's shape, and the middle's; all different and none zero."""
    split = SplitUNet(unet, Cut(0, 1))
    e = split.embed(**inputs)
    high = split.high_in(e)
    low = split._down(high.r_in, high.skips, split.chain.down, e)
    rng = torch.Generator().manual_seed(2)
    return [torch.randn(s.shape, generator=rng) for s in low.skips], torch.randn(low.r_in.shape, generator=rng)


def telling_cuts(unet: UNet2DConditionModel) -> list[Cut]:
    """Cuts below and above an upsampler, DeepCache's first branch, and the lowest: each kind of layer on each side."""
    chain = Chain.from_unet(unet)
    named = [Cut.parse(name, chain) for name in ("stage1", "stage1_upsampled", "layer1")]
    return [*named, Cut(len(chain.down), len(chain.up))]


def assert_equal_everywhere(unet: UNet2DConditionModel, inputs: dict[str, Any], cuts: list[Cut] | None = None) -> None:
    plain = unet(**inputs).sample
    for cut in cuts or telling_cuts(unet):
        assert torch.equal(SplitUNet(unet, cut)(**inputs), plain), cut


@ARRANGEMENTS
def test_full_pass_is_diffusers_at_every_cut(shape: str) -> None:
    unet = small_unet(shape)
    assert_equal_everywhere(unet, small_inputs(shape), every_cut(unet))


def test_full_pass_is_diffusers(shape: str) -> None:
    assert_equal_everywhere(small_unet(shape), small_inputs(shape))


@ARRANGEMENTS
@pytest.mark.parametrize("size", [(17, 22), (30, 15)])
def test_odd_sizes(shape: str, size: tuple[int, int]) -> None:
    assert_equal_everywhere(small_unet(shape), small_inputs(shape, size))


@ARRANGEMENTS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(shape: str, dtype: torch.dtype) -> None:
    def half(x: Any) -> Any:
        return (
            {k: half(v) for k, v in x.items()} if isinstance(x, dict) else x.to(dtype) if x.is_floating_point() else x
        )

    assert_equal_everywhere(small_unet(shape).to(dtype), half(small_inputs(shape)))


@ARRANGEMENTS
def test_controlnet_residuals(shape: str) -> None:
    unet, inputs = small_unet(shape), small_inputs(shape)
    down, middle = residuals(unet, inputs)
    plain = unet(**inputs).sample
    inputs |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    assert not torch.allclose(unet(**inputs).sample, plain)
    assert_equal_everywhere(unet, inputs)


@ARRANGEMENTS
@pytest.mark.parametrize("with_middle", [False, True])
def test_t2i_adapter_residuals(shape: str, with_middle: bool) -> None:
    unet, inputs = small_unet(shape), small_inputs(shape)
    split = SplitUNet(unet, Cut(0, 1))
    skips, middle = residuals(unet, inputs)
    given = []
    for i, block in enumerate(unet.down_blocks):
        here = [
            skip
            for layer, skip in zip(split.chain.down, skips[1:], strict=True)
            if layer.block_index == i
            and (layer.is_last_resnet if getattr(block, "has_cross_attention", False) else layer.is_last_layer)
        ]
        given.append(here[0])
    given += [middle] * with_middle
    plain = unet(**inputs, down_intrablock_additional_residuals=list(given)).sample
    assert not torch.allclose(plain, unet(**inputs).sample)
    for cut in telling_cuts(unet):
        kept = list(given)
        out = SplitUNet(unet, cut)(**inputs, down_intrablock_additional_residuals=kept)
        assert torch.equal(out, plain), cut
        assert len(kept) == len(given)  # diffusers empties the caller's list; we must be able to run twice


@ARRANGEMENTS
def test_masks(shape: str) -> None:
    inputs = small_inputs(shape)
    inputs["encoder_attention_mask"] = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0], [1.0, 1, 1, 1, 1, 1, 0]])
    assert_equal_everywhere(small_unet(shape), inputs)


@ARRANGEMENTS
def test_freeu_leaves_r_out_alone(shape: str) -> None:
    unet, inputs = small_unet(shape), small_inputs(shape)
    plain = unet(**inputs).sample
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert not torch.allclose(unet(**inputs).sample, plain)
    assert_equal_everywhere(unet, inputs)
    for cut in telling_cuts(unet):
        split = SplitUNet(unet, cut)
        e = split.embed(**inputs)
        high = split.high_in(e)
        r_out = split.low(high, e)
        before = r_out.clone()
        split.high_out(r_out, high, e)
        assert torch.equal(r_out, before), cut


def test_lora_scale_is_applied_and_undone() -> None:
    from peft import LoraConfig

    unet, inputs = small_unet("sd15"), small_inputs("sd15")
    plain = unet(**inputs).sample
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v", "conv1"], init_lora_weights=False))
    full = unet(**inputs).sample
    inputs["cross_attention_kwargs"] = {"scale": 0.5}
    assert not torch.allclose(unet(**inputs).sample, full) and not torch.allclose(full, plain)
    assert_equal_everywhere(unet, inputs)
    del inputs["cross_attention_kwargs"]
    assert torch.equal(unet(**inputs).sample, full)


def test_names_count_from_the_ends() -> None:
    """SD v1.5's 11 down and 15 up layers, and the paper's cuts on it (Section 4.1)."""
    chain = Chain.from_unet(small_unet("sd15"))
    assert (len(chain.down), len(chain.up)) == (11, 15)
    expected = {"stage1": (3, 4), "stage1_upsampled": (3, 3), "stage2": (6, 8), "layer1": (0, 1), "layer3": (2, 3)}
    assert {name: Cut.parse(name, chain) for name in expected} == {name: Cut(*c) for name, c in expected.items()}
    assert Cut.parse("3,4", chain) == Cut(3, 4)
    xl = Chain.from_unet(small_unet("sdxl"))
    assert Cut.parse("stage1", xl) == Cut(3, 4)
    with pytest.raises(ValueError, match="unknown cut 'stage3'"):
        Cut.parse("stage3", xl)


@pytest.mark.parametrize("cut", [Cut(0, 2), Cut(12, 1), Cut(3, 0)])
def test_cuts_that_do_not_fit_are_refused(cut: Cut) -> None:
    with pytest.raises(ValueError, match=r"keeps 2 up layers|does not fit"):
        SplitUNet(small_unet("sd15"), cut)


def test_two_numbers_are_a_cut() -> None:
    unet = small_unet("sd15")
    assert SplitUNet(unet, (3, 4)).cut == SplitUNet(unet, [3, 4]).cut == SplitUNet(unet, "3,4").cut == Cut(3, 4)
    for wrong in ((3,), (3, 4, 5), (), 3, ("a", 4), None):
        with pytest.raises(ValueError, match="cut"):
            SplitUNet(unet, wrong)


def test_unknown_blocks_are_refused_by_name() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("KDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    with pytest.raises(ValueError, match="KDownBlock2D"):
        SplitUNet(unet)
