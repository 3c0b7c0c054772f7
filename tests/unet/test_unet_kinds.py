"""Every class of UNet and kind of block, against its own `forward`: equality is exact, not approximate."""

from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from helpers.unets import TEXT, UNETS, conditional, inputs, noise, unconditional
from test_split import every_cut
from torch import Tensor

from clockwork.unet.split import SplitUNet


@pytest.mark.parametrize("kind", UNETS)
def test_full_pass_is_the_unets_own(kind: str) -> None:
    unet, call = UNETS[kind]()
    plain = unet(**call).sample
    assert not torch.equal(unet(**{**call, "sample": call["sample"] + 1}).sample, plain)
    for cut in every_cut(unet):
        assert torch.equal(SplitUNet(unet, cut)(**call), plain), cut


def forward_with(unet: Any, split: SplitUNet, r_out: Tensor, call: dict[str, Any]) -> Tensor:
    """Diffusers' own forward, in which a hook exchanges the features that enter the first kept up layer."""
    layer = split.chain.up[-split.cut.up]
    name = "input_tensor" if isinstance(layer.resnet, ResnetBlock2D) else "hidden_states"

    def exchange(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        features = args[0] if args else kwargs[name]
        skip = features[:, r_out.shape[1] :]
        features = torch.cat([r_out, skip], dim=1) if skip.shape[1] else r_out
        return ((features, *args[1:]), kwargs) if args else (args, {**kwargs, name: features})

    handle = (layer.resnet or layer.resampler).register_forward_pre_hook(exchange, with_kwargs=True)
    try:
        return unet(**call).sample
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", UNETS)
def test_kept_features_are_those_of_the_unet(kind: str) -> None:
    """What an adaptor step of the identity computes, against a forward whose low-res path is overridden."""
    unet, call = UNETS[kind]()
    before = {**call, "sample": noise(*call["sample"].shape, seed=5)}
    for cut in every_cut(unet):
        split = SplitUNet(unet, cut)
        embedded = split.embed(**before)
        r_out = split.low(split.high_in(embedded), embedded)
        embedded = split.embed(**call)
        kept = split.high_out(r_out, split.high_in(embedded), embedded)
        assert torch.equal(kept, forward_with(unet, split, r_out, call)), cut
        assert not torch.equal(kept, unet(**call).sample)


@pytest.mark.parametrize("kind", ["DDPM", "Kandinsky 2.2", "DeepFloyd IF", "Stable Video Diffusion", "I2VGen-XL"])
def test_half_precision(kind: str) -> None:
    def half(x: Any) -> Any:
        if isinstance(x, dict):
            return {name: half(value) for name, value in x.items()}
        return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x

    unet, call = UNETS[kind]()
    unet, call = unet.bfloat16(), half(call)
    assert torch.equal(SplitUNet(unet, "layer2")(**call), unet(**call).sample)


def test_freeu_reaches_the_blocks_that_have_it() -> None:
    unet, call = UNETS["DeepFloyd IF"]()
    plain = unet(**call).sample
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert torch.equal(unet(**call).sample, plain)  # not this one's
    assert torch.equal(SplitUNet(unet, "layer2")(**call), plain)


def test_class_labels_must_fit_the_unet() -> None:
    call = inputs(3, text=False)
    with pytest.raises(ValueError, match="class-conditional: pass class_labels"):
        SplitUNet(unconditional(num_class_embeds=5), "layer1")(**call)
    with pytest.raises(ValueError, match="knows no classes"):
        SplitUNet(unconditional(), "layer1")(**call, class_labels=torch.tensor([1, 2]))


def test_blocks_that_are_not_known_are_named() -> None:
    score = {"down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D")}
    unet = unconditional(**score, up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"), block_out_channels=(32, 64))
    with pytest.raises(ValueError, match="cannot split a UNet with SkipDownBlock2D"):
        SplitUNet(unet)
    unet = conditional(**TEXT)
    unet.mid_block = torch.nn.Identity()
    with pytest.raises(ValueError, match="cannot split a UNet with Identity"):
        SplitUNet(unet)


def test_lists_of_unequal_lengths_are_refused() -> None:
    unet, _ = UNETS["DDPM"]()
    del unet.down_blocks[1].attentions[0]
    with pytest.raises(ValueError, match="AttnDownBlock2D has 1 resnets, but 0 attentions"):
        SplitUNet(unet)
